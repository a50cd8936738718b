// SPDX-License-Identifier: GPL-2.0

//! What `poll(2)` says of an open file. RCU, and of each ring `completion_lock`.

use super::Contexts;
use crate::kernel_ext::wait::PollQueue;
use kernel::sync::rcu;

impl Contexts {
    /// Where who polls the file is queued.
    pub(crate) fn pollers(&self) -> &PollQueue {
        &self.siblings.pollers
    }

    /// Does any context have an event that wasn't read? Looks at one after the other, since user
    /// space reads events without telling.
    pub(crate) fn readable(&self) -> bool {
        let mut from = 0;
        loop {
            let rcu = rcu::read_lock();
            let Some((id, ctx)) = self.siblings.table.next(from, &rcu) else {
                return false;
            };
            if ctx.ring.unread() > 0 {
                return true;
            }
            // No id is `u32::MAX`.
            from = id + 1;
        }
    }
}
