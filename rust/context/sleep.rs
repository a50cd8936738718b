// SPDX-License-Identifier: GPL-2.0

//! The machine is suspended, or hibernated: an image of memory is written then, which is what goes on later. Workers
//! are no tasks that are frozen. So when the tasks of user space are, they begin nothing any more, and have to be
//! done with what they write: nothing may be written behind the image's back. If they aren't in time, the machine
//! doesn't sleep, as with a task that can't be frozen.
//!
//! # Locks
//!
//! Those of [`quota`](super::quota) and of [`Workers`], one after the other.

use super::quota::Quota;
use crate::{
    kernel_ext::pm::Freezes,
    request::{
        workers,
        Workers, //
    },
};
use kernel::sync::Arc;

/// The workers of all users.
pub(super) struct Sleep(pub(super) Arc<Quota>);

impl Freezes for Sleep {
    fn stop(&self) {
        workers::pause(true);
    }

    fn is_busy(&self) -> bool {
        let mut are_writing = false;
        self.0
            .each_workers(|workers| are_writing |= workers.are_writing());
        are_writing
    }

    fn go_on(&self) {
        workers::pause(false);
        self.0.each_workers(Workers::go_on);
    }
}
