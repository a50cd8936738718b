// SPDX-License-Identifier: GPL-2.0
//! Requests that are cancelled when nobody wants them any more.

use crate::{in_flight::Name, link::Link};
use std::{fmt, sync::Arc};

/// Cancels a request when it is dropped, if it is in flight and can be cancelled.
///
/// Its completion comes as every other, with the buffer. Made by
/// [`Context::cancel_on_drop`](crate::Context::cancel_on_drop). It may be sent to
/// another thread.
///
/// ```no_run
/// use raio::{Buffer, Device, Request};
/// use std::fs::File;
///
/// # fn main() -> std::io::Result<()> {
/// let mut context = Device::open()?.setup(32)?;
/// let pipe = File::open("/tmp/pipe")?;
/// let mut batch = context.batch();
/// let name = batch
///     .push(Request::read(&pipe, Buffer::zeroed(100, 1), 0, 0))
///     .expect("room for one");
/// batch.enter(0, None)?;
/// drop(batch);
/// let handle = context.cancel_on_drop(name);
/// // Whoever drops it has had enough.
/// std::thread::spawn(move || drop(handle));
/// context.wait(1, None)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the request is cancelled when this is dropped"]
pub struct CancelOnDrop {
    link: Arc<Link>,
    name: Option<Name>,
}

impl CancelOnDrop {
    pub(crate) fn new(link: Arc<Link>, name: Name) -> Self {
        Self {
            link,
            name: Some(name),
        }
    }

    /// Has the request go on.
    pub fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            // It may have ended, or can't be cancelled.
            let _ = self.link.cancel(name);
        }
    }
}

impl fmt::Debug for CancelOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        calls::{fake::Fake, Calls},
        Buffer, Builder, Context, FileNumber, Name, Request,
    };

    /// A context with a read in flight.
    fn context(fake: &Fake) -> (Context, Name) {
        let mut context: Context = Builder::new(Calls::Fake(fake.clone()), 8).setup().unwrap();
        let mut batch = context.batch();
        let read = Request::read(FileNumber(0), Buffer::zeroed(8, 1), 0, 0);
        let name = batch.push(read).unwrap();
        batch.enter(0, None).unwrap();
        drop(batch);
        (context, name)
    }

    fn was_cancelled(context: &mut Context) -> bool {
        let done = context.pop().unwrap();
        assert_eq!(done.buffer.len(), 8);
        done.result
            .is_err_and(|e| e.raw_os_error() == Some(libc::ECANCELED))
    }

    #[test]
    fn by_name() {
        let fake = Fake::default();
        let (mut context, name) = context(&fake);
        fake.state().refuse_cancel = true;
        let e = context.cancel(name).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EAGAIN));
        fake.state().refuse_cancel = false;
        context.cancel(name).unwrap();
        let e = context.cancel(name).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
        assert!(was_cancelled(&mut context));
    }

    #[test]
    fn by_drop() {
        let fake = Fake::default();
        let (mut context, name) = context(&fake);
        drop(context.cancel_on_drop(name));
        assert!(was_cancelled(&mut context));
        // There is none of that name any more.
        drop(context.cancel_on_drop(name));
    }

    #[test]
    fn not_if_it_is_kept() {
        let fake = Fake::default();
        let (mut context, name) = context(&fake);
        context.cancel_on_drop(name).keep();
        fake.state().end(0);
        assert!(!was_cancelled(&mut context));
    }

    /// Then the context has been destroyed, and its handle may be another's.
    #[test]
    fn not_after_the_context() {
        let fake = Fake::default();
        let (context, name) = context(&fake);
        let handle = context.cancel_on_drop(name);
        drop(context);
        drop(handle);
        assert_eq!(fake.state().in_flight.len(), 1);
    }
}
