// SPDX-License-Identifier: GPL-2.0

//! What users may have of contexts, requests and ring memory, each of them and all together.
//!
//! A context is charged for before anything of it is made, and what it was charged for is returned
//! when nothing can use it any more, by the drop of its [`Charge`]. What is over a limit is refused
//! with `EAGAIN`. The memory itself is charged to the memory cgroup of the caller as it is
//! allocated.
//!
//! Limits can be changed at any time in `/proc/sys/fs/raio`. One that is lower than what is in use
//! takes nothing away; it refuses until enough was returned.
//!
//! # Locks
//!
//! `users`, a spin lock with interrupts off. Nothing nests inside of it but the allocator's, to
//! free.

use crate::{
    kernel_ext::{
        sysctl::{
            self,
            File,
            Sysctls, //
        },
        task, //
    },
    request::Workers, //
};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    rbtree::{
        Entry,
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLockIrq, //
    },
};

/// Contexts, requests that can be in flight, bytes of ring memory.
type Amounts = [usize; 3];

/// One for each so many bytes of the machine's memory is what a user may have unless told
/// otherwise. A context takes some 8 KiB besides its ring, a request in flight some 500 bytes, and
/// a place for one on the direct path some 400 more; twice as much where several threads submit at once.
const BYTES_PER_CONTEXT: usize = 128 << 10;
const BYTES_PER_REQUEST: usize = 512;
const BYTES_PER_RING_BYTE: usize = 16;

/// One resource, for all users together and for each.
struct Resource {
    /// In use. Only written with `users` held.
    used: Atomic<usize>,
    /// Most that all users together may have. Written by `/proc/sys`.
    max: Atomic<usize>,
    /// Most that one may have. Written by `/proc/sys`.
    user_max: Atomic<usize>,
}

impl Resource {
    /// A user may have one for each `share` bytes of the machine's memory; all together four times
    /// as much.
    fn new(share: usize) -> Self {
        let user_max = sysctl::ram_bytes().checked_div(share).unwrap_or(0);
        Self {
            used: Atomic::new(0),
            max: Atomic::new(user_max.saturating_mul(4)),
            user_max: Atomic::new(user_max),
        }
    }

    /// What is in use if a user who has `mine` gets `amount` more: by all, by that one. [`None`] if
    /// it is over a limit.
    fn plus(&self, mine: usize, amount: usize) -> Option<(usize, usize)> {
        // Relaxed: `used` is guarded by the lock; a limit counts from when it is seen.
        let used = self.used.load(Relaxed).checked_add(amount)?;
        let mine = mine.checked_add(amount)?;
        (used <= self.max.load(Relaxed) && mine <= self.user_max.load(Relaxed))
            .then_some((used, mine))
    }
}

/// The limits, and what is in use.
///
/// # Invariants
///
/// For each resource `used` is the sum over `users`, and each of those the sum over the charges of
/// that user. Users who have nothing aren't there.
#[pin_data]
pub(super) struct Quota {
    resources: [Resource; 3],
    /// By user id.
    #[pin]
    users: SpinLockIrq<RBTree<u32, Account>>,
}

/// What one user has.
struct Account {
    amounts: Amounts,
    workers: Arc<Workers>,
}

impl Quota {
    /// Nothing in use. Fails with `ENOMEM`.
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                resources: [
                    Resource::new(BYTES_PER_CONTEXT),
                    Resource::new(BYTES_PER_REQUEST),
                    Resource::new(BYTES_PER_RING_BYTE),
                ],
                users <- new_spinlock_irq!(RBTree::new(), "raio_users"),
            }),
            GFP_KERNEL,
        )
    }

    fn contexts(&self) -> &Resource {
        &self.resources[0]
    }

    fn requests(&self) -> &Resource {
        &self.resources[1]
    }

    fn ring_bytes(&self) -> &Resource {
        &self.resources[2]
    }

    /// Charges the user that is calling, and returns who works for that one. `EAGAIN` if it is over
    /// a limit, `ENOMEM`.
    pub(super) fn charge(
        self: &Arc<Self>,
        requests: usize,
        ring_bytes: usize,
    ) -> Result<(Charge, Arc<Workers>)> {
        let amounts = [1, requests, ring_bytes];
        let user = task::charged_user();
        let workers = self.add(user, amounts)?;
        let charge = Charge {
            quota: self.clone(),
            user,
            amounts,
        };
        Ok((charge, workers))
    }

    /// Calls `f` with the workers of each user, without any lock.
    pub(super) fn each_workers(&self, mut f: impl FnMut(&Arc<Workers>)) {
        let mut from = Some(0);
        while let Some((user, workers)) = from.and_then(|from| self.workers_from(from)) {
            f(&workers);
            from = user.checked_add(1);
        }
    }

    /// The first user from that number on, and who works for that one.
    fn workers_from(&self, user: u32) -> Option<(u32, Arc<Workers>)> {
        let users = self.users.lock();
        let cursor = users.cursor_lower_bound(&user)?;
        let (user, account) = cursor.current();
        Some((*user, account.workers.clone()))
    }

    fn add(&self, user: u32, amounts: Amounts) -> Result<Arc<Workers>> {
        let mut users = self.users.lock();
        if let Some(mut entry) = users.find_mut(&user) {
            let account = entry.get_mut();
            account.amounts = self.plus(account.amounts, amounts)?;
            return Ok(account.workers.clone());
        }
        drop(users);

        // The first of that user, unless somebody is quicker.
        let node = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
        let mut workers = Workers::new()?;
        let mut users = self.users.lock();
        match users.entry(user) {
            Entry::Occupied(mut entry) => {
                let account = entry.get_mut();
                account.amounts = self.plus(account.amounts, amounts)?;
                workers = account.workers.clone();
            }
            Entry::Vacant(entry) => {
                let account = Account {
                    amounts: self.plus([0; 3], amounts)?,
                    workers: workers.clone(),
                };
                entry.insert(account, node);
            }
        }
        Ok(workers)
    }

    /// Adds to what is in use, and to what one user has; returns that. `EAGAIN` if it is over a
    /// limit. To be called with `users` held.
    fn plus(&self, mut mine: Amounts, amounts: Amounts) -> Result<Amounts> {
        let mut used = [0; 3];
        let all = self
            .resources
            .iter()
            .zip(&mut used)
            .zip(&mut mine)
            .zip(amounts);
        for (((resource, used), mine), amount) in all {
            (*used, *mine) = resource.plus(*mine, amount).ok_or(EAGAIN)?;
        }
        // INVARIANT: The same is added to both sums, and to the charges.
        for (resource, used) in self.resources.iter().zip(used) {
            resource.used.store(used, Relaxed);
        }
        Ok(mine)
    }
}

/// What a context was charged for, returned on drop. Any context.
pub(super) struct Charge {
    quota: Arc<Quota>,
    user: u32,
    amounts: Amounts,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut users = self.quota.users.lock();
        // INVARIANT: The same is taken from both sums, and from the charges.
        for (resource, amount) in self.quota.resources.iter().zip(self.amounts) {
            let used = resource.used.load(Relaxed);
            resource.used.store(used.saturating_sub(amount), Relaxed);
        }
        if let Some(mut entry) = users.find_mut(&self.user) {
            let account = entry.get_mut();
            for (mine, amount) in account.amounts.iter_mut().zip(self.amounts) {
                *mine = mine.saturating_sub(amount);
            }
            if account.amounts == [0; 3] {
                entry.remove();
            }
        }
    }
}

/// The quota with its files in `/proc/sys/fs/raio`, for as long as it lives.
pub(super) struct Limits {
    pub(super) quota: Arc<Quota>,
    _files: Sysctls<Quota>,
}

impl Limits {
    /// Fails with `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let quota = Quota::new()?;
        let files = [
            File::read_only(c"nr_contexts", |quota: &Quota| &quota.contexts().used),
            File::read_only(c"nr_requests", |quota| &quota.requests().used),
            File::read_only(c"nr_ring_bytes", |quota| &quota.ring_bytes().used),
            File::writable(c"max_contexts", |quota| &quota.contexts().max),
            File::writable(c"max_requests", |quota| &quota.requests().max),
            File::writable(c"max_ring_bytes", |quota| &quota.ring_bytes().max),
            File::writable(c"max_user_contexts", |quota| &quota.contexts().user_max),
            File::writable(c"max_user_requests", |quota| &quota.requests().user_max),
            File::writable(c"max_user_ring_bytes", |quota| &quota.ring_bytes().user_max),
        ];
        Ok(Self {
            _files: Sysctls::register(c"fs/raio", quota.clone(), &files)?,
            quota,
        })
    }
}
