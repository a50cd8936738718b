// SPDX-License-Identifier: GPL-2.0

//! The end of requests that one thread has several of: their events are posted together, under one lock and
//! with one look for who waits.

use super::{
    direct::Direct,
    stack::List,
    Own,
    Request, //
};
use crate::{
    context::Kioctx,
    registered::Uses, //
};
use core::ptr::NonNull;
use kernel::{
    fs::File,
    sync::aref::ARef, //
};

/// Gives up a reference to each of which `has_ended` says so, and posts the events of those of which it was the last.
/// Returns how many these were, and what of their memory is to be used again. Any context.
///
/// # Safety
///
/// They must be of `ctx`, which somebody else keeps, and the references the caller's, or whose `has_ended` makes them.
#[inline(always)]
pub(super) unsafe fn requests(
    ctx: &Kioctx,
    mut ended: List<Request>,
    mut has_ended: impl FnMut(NonNull<Request>) -> bool,
) -> (u32, List<Request>) {
    let mut files = Uses::none();
    let mut are_plain = true;
    ended.retain(|this| {
        if !has_ended(this) {
            return false;
        }
        // SAFETY: The reference is ours, as the caller says. If it isn't the last, somebody else sees to its end.
        let Some(own) = (unsafe { Request::release(this) }) else {
            return false;
        };
        are_plain &= own.is_plain();
        own.let_go(&mut files);
        true
    });
    // With the lock that it may have.
    drop(has_ended);
    // Who sees an event may rely on its request no longer using the file.
    drop(files);
    let n = ended.n;
    if n > 0 {
        // SAFETY: They are ours, with nothing left but what their events need.
        ctx.publish_all(ended.each().map(|this| unsafe { Request::event(this) }));
        if !are_plain {
            // SAFETY: As above, and their events are posted.
            ended.retain(|this| unsafe { Own::told(this) });
        }
        // SAFETY: They were those of the slots, of which none is left.
        unsafe { ctx.put_all(n as usize) };
    }
    (n, ended)
}

/// Posts the events of those on the direct path for which nothing has to be done that may sleep, and keeps them in
/// `ended`: their places are free now. The `others` have to [go on](Direct::go_on). Any context.
///
/// # Safety
///
/// They must be of `ctx`, which somebody else keeps, and the caller's, after their bios have ended.
#[inline(never)]
pub(super) unsafe fn direct(ctx: &Kioctx, ended: &mut List<Direct>, others: &mut List<Direct>) {
    // SAFETY: It is ours, and its bio has ended.
    let has_ended = |this| unsafe { Direct::has_ended(this) && Direct::pins(this).try_release() };
    let mut files = Uses::<ARef<File>>::none();
    if ended.n == 1 {
        // Who makes a call for each has one each time.
        if let Some(this) = ended.first() {
            if !has_ended(this) {
                others.append_list(ended.take());
                return;
            }
            // SAFETY: As above. Its slot was forgotten.
            unsafe {
                Direct::end_in(this, &mut files);
                drop(files);
                ctx.publish_all(core::iter::once(Direct::event(this)));
                ctx.put_all(1);
            }
        }
        return;
    }
    ended.retain(|this| {
        if !has_ended(this) {
            // SAFETY: As above.
            unsafe { others.push(this) };
            return false;
        }
        // SAFETY: As above.
        unsafe { Direct::end_in(this, &mut files) };
        true
    });
    // Who sees an event may rely on its request no longer using the file.
    drop(files);
    if ended.n > 0 {
        // SAFETY: So many slots were forgotten, of as many events. All are ours.
        unsafe {
            ctx.publish_all(ended.each().map(|this| Direct::event(this)));
            ctx.put_all(ended.n as usize);
        }
    }
}
