// SPDX-License-Identifier: GPL-2.0

//! What `poll(2)` says of an open file. RCU, and of each ring `completion_lock`.

use super::{
    teardown::Siblings,
    Contexts,
    Engine, //
};
use crate::kernel_ext::wait::PollQueue;
use kernel::{
    impl_has_work,
    sync::{
        rcu,
        Arc, //
    },
    workqueue::WorkItem, //
};

impl_has_work! {
    impl HasWork<Self> for Siblings { self.tell }
}

impl WorkItem for Siblings {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Who polls what polls this can't look for itself.
        if this.readable() {
            this.pollers.wake();
        }
    }
}

impl Siblings {
    /// Does any context have an event that wasn't read? Looks at one after the other, since user
    /// space reads events without telling.
    fn readable(&self) -> bool {
        let mut from = 0;
        loop {
            let rcu = rcu::read_lock();
            let Some((id, ctx)) = self.table.next(from, &rcu) else {
                return false;
            };
            if ctx.ring.unread() > 0 {
                return true;
            }
            // No id is `u32::MAX`.
            from = id + 1;
        }
    }

    /// Has those told who poll the file, who can't be told here. Any context.
    pub(super) fn tell_later(this: &Arc<Self>, engine: &Engine) {
        // If it is queued already, they will be told after this.
        let _ = engine.looks.as_queue().enqueue(this.clone());
    }
}

impl Contexts {
    /// Where who polls the file is queued.
    pub(crate) fn pollers(&self) -> &PollQueue {
        &self.siblings.pollers
    }

    /// Does any context have an event that wasn't read?
    pub(crate) fn readable(&self) -> bool {
        self.siblings.readable()
    }
}
