// SPDX-License-Identifier: GPL-2.0

//! The machine is suspended, or hibernated: an image of memory is written then, which is what goes on later. User
//! space is frozen until it is over, but workers are threads of the kernel. So meanwhile they begin nothing; and
//! before it they have done what they write, for nothing may be written behind the image's back.
//!
//! # Locks
//!
//! Those of [`quota`](super::quota) and of [`Workers`], one after the other.

use super::quota::Quota;
use crate::{
    kernel_ext::{
        pm::Sleeper,
        task, //
    },
    request::{
        workers,
        Workers, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    },
};

/// How long a write may take before it keeps the machine from sleeping, as a task does that can't be frozen.
const PATIENCE_MS: i64 = 20_000;

/// Has workers pause.
pub(super) struct Sleep(pub(super) Arc<Quota>);

impl Sleeper for Sleep {
    fn prepare(&self) -> Result {
        workers::pause(true);
        let begun = Instant::<Monotonic>::now();
        loop {
            let mut are_writing = false;
            self.0
                .each_workers(|workers| are_writing |= workers.are_writing());
            if !are_writing {
                return Ok(());
            }
            if begun.elapsed().as_millis() >= PATIENCE_MS {
                pr_warn!("a write doesn't end, so the machine can't sleep: kill its process\n");
                self.over();
                return Err(EBUSY);
            }
            task::pause(1000);
        }
    }

    fn over(&self) {
        workers::pause(false);
        self.0.each_workers(Workers::go_on);
    }
}
