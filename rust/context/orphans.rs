// SPDX-License-Identifier: GPL-2.0

//! Contexts whose process has gone, while workers carry out their requests.
//!
//! The end of a process, or another program in it, is the end of its memory, and so that of its rings'
//! mappings and of its contexts, see [`teardown`](super::teardown). But a worker has that memory too, for as long
//! as it carries out a request, and that may be for ever: nothing is unmapped, nobody interrupts the worker.
//! There is no way to be told of such an end: descriptors can be closed before it, or be shared. So while workers
//! carry out anything, it is looked once a second whether anybody but them has the memory.
//!
//! # Locks
//!
//! Those of [`quota`](super::quota) and of [`Workers`], one after the other.

use super::{
    quota::Quota,
    User, //
};
use crate::{
    kernel_ext::{
        mm,
        work::{
            DelayedWork,
            HasDelayedWork,
            OwnedQueue, //
        },
    },
    request::{
        workers,
        Workers, //
    },
};
use core::mem::offset_of;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// How long after it a process may be found to have gone.
const EVERY_MS: u32 = 1000;

/// Who looks for them.
#[pin_data]
pub(crate) struct Orphans {
    #[pin]
    work: DelayedWork<Self>,
    quota: Arc<Quota>,
    queue: Arc<OwnedQueue>,
}

// SAFETY: The offset of a field of that type, the first one.
unsafe impl HasDelayedWork for Orphans {
    const OFFSET: usize = offset_of!(Orphans, work);

    fn run(&self) {
        let mut are_busy = false;
        self.quota
            .each_workers(|workers| are_busy |= look_at(workers));
        if are_busy {
            self.watch();
        }
    }
}

/// Looks at the contexts that those work for, and ends those that no process has. True if there are any.
fn look_at(workers: &Workers) -> bool {
    let mut left = [const { None }; workers::MOST];
    let mut free = left.iter_mut();
    let mut are_busy = false;
    workers.each_served(|ctx| {
        are_busy = true;
        if !ctx.identity.is_in(&ctx.mm) {
            if let Some(place) = free.next() {
                *place = User::tryget(ctx);
            }
        }
    });
    let mut used = None;
    for ctx in left.into_iter().flatten() {
        // Others may share the memory of who made it.
        if used != Some(ctx.mm.as_raw()) && !mm::is_used(&ctx.mm) {
            // Workers needn't give that up soon, and so it keeps the others, too.
            ctx.siblings.each(|other| {
                if other.mm.as_raw() == ctx.mm.as_raw() {
                    // It can only fail for one that ends already.
                    let _ = other.kill();
                }
            });
        } else {
            used = Some(ctx.mm.as_raw());
        }
    }
    are_busy
}

impl Orphans {
    /// Looks for none yet. Fails with `ENOMEM`.
    pub(super) fn new(quota: Arc<Quota>, queue: Arc<OwnedQueue>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- DelayedWork::new(),
                quota,
                queue,
            }),
            GFP_KERNEL,
        )
    }

    /// To be called by who has begun to carry out requests of a context, and has said so: from then on it is found.
    pub(crate) fn watch(&self) {
        self.work.queue(&self.queue, EVERY_MS);
    }

    /// Looks no more. To be called when nobody carries out anything any more.
    pub(super) fn stop(&self) {
        self.work.cancel();
    }
}
