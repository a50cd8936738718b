// SPDX-License-Identifier: GPL-2.0

//! The counters of `RAIO_IOC_STATS`. Each is kept per processor, so counting costs an addition;
//! a sum is what it was at some moment while it was taken. No locks.

use crate::{abi, bindings};

/// What is counted. `struct raio_stats` says what each means.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    Setups,
    Frees,
    Submitted,
    /// Those with which their files went on: what is queued but for the direct path.
    WentOn,
    Completed,
    Reaped,
    Refused,
    Migrated,
    Cancelled,
    Uncancelled,
    Early,
    DeadLookups,
    KillBusy,
    KillInflight,
    KilledWaits,
    SecondDestroys,
    Abandoned,
    PolledInline,
    PolledDeferred,
    Punted,
    Parked,
    Kicked,
    Direct,
    Iopolled,
}

impl Counter {
    fn as_raw(self) -> bindings::raio_counter {
        match self {
            Self::Setups => bindings::raio_counter_RAIO_CTR_SETUPS,
            Self::Frees => bindings::raio_counter_RAIO_CTR_FREES,
            Self::Submitted => bindings::raio_counter_RAIO_CTR_SUBMITTED,
            Self::WentOn => bindings::raio_counter_RAIO_CTR_WENT_ON,
            Self::Completed => bindings::raio_counter_RAIO_CTR_COMPLETED,
            Self::Reaped => bindings::raio_counter_RAIO_CTR_REAPED,
            Self::Refused => bindings::raio_counter_RAIO_CTR_REFUSED,
            Self::Migrated => bindings::raio_counter_RAIO_CTR_MIGRATED,
            Self::Cancelled => bindings::raio_counter_RAIO_CTR_CANCELLED,
            Self::Uncancelled => bindings::raio_counter_RAIO_CTR_UNCANCELLED,
            Self::Early => bindings::raio_counter_RAIO_CTR_EARLY,
            Self::DeadLookups => bindings::raio_counter_RAIO_CTR_DEAD_LOOKUPS,
            Self::KillBusy => bindings::raio_counter_RAIO_CTR_KILL_BUSY,
            Self::KillInflight => bindings::raio_counter_RAIO_CTR_KILL_INFLIGHT,
            Self::KilledWaits => bindings::raio_counter_RAIO_CTR_KILLED_WAITS,
            Self::SecondDestroys => bindings::raio_counter_RAIO_CTR_SECOND_DESTROYS,
            Self::Abandoned => bindings::raio_counter_RAIO_CTR_ABANDONED,
            Self::PolledInline => bindings::raio_counter_RAIO_CTR_POLLED_INLINE,
            Self::PolledDeferred => bindings::raio_counter_RAIO_CTR_POLLED_DEFERRED,
            Self::Punted => bindings::raio_counter_RAIO_CTR_PUNTED,
            Self::Parked => bindings::raio_counter_RAIO_CTR_PARKED,
            Self::Kicked => bindings::raio_counter_RAIO_CTR_KICKED,
            Self::Direct => bindings::raio_counter_RAIO_CTR_DIRECT,
            Self::Iopolled => bindings::raio_counter_RAIO_CTR_IOPOLLED,
        }
    }

    /// Counts `n` more, in any context.
    #[inline]
    pub(crate) fn add(self, n: u64) {
        // SAFETY: An addition to per-cpu data that is there for as long as the module is.
        unsafe { bindings::raio_counter_add(self.as_raw(), n) }
    }

    fn sum(self) -> u64 {
        // SAFETY: Reads per-cpu data that is there for as long as the module is.
        unsafe { bindings::raio_counter_sum(self.as_raw()) }
    }
}

/// All of them.
pub(crate) fn snapshot() -> abi::Stats {
    // What is left of a pair is read first, so that no difference is negative.
    let frees = Counter::Frees.sum();
    let reaped = Counter::Reaped.sum();
    let completed = Counter::Completed.sum();
    let early = Counter::Early.sum();
    let direct = Counter::Direct.sum();
    let queued = Counter::WentOn.sum().saturating_add(direct);
    abi::Stats {
        flags: 0,
        resv: 0,
        setups: Counter::Setups.sum(),
        frees,
        submitted: Counter::Submitted.sum(),
        queued,
        completed,
        reaped,
        refused: Counter::Refused.sum(),
        migrated: Counter::Migrated.sum(),
        cancelled: Counter::Cancelled.sum(),
        uncancelled: Counter::Uncancelled.sum(),
        early,
        late: queued.saturating_sub(early),
        dead_lookups: Counter::DeadLookups.sum(),
        kill_busy: Counter::KillBusy.sum(),
        kill_inflight: Counter::KillInflight.sum(),
        killed_waits: Counter::KilledWaits.sum(),
        second_destroys: Counter::SecondDestroys.sum(),
        abandoned: Counter::Abandoned.sum(),
        polled_inline: Counter::PolledInline.sum(),
        polled_deferred: Counter::PolledDeferred.sum(),
        punted: Counter::Punted.sum(),
        parked: Counter::Parked.sum(),
        kicked: Counter::Kicked.sum(),
        direct,
        iopolled: Counter::Iopolled.sum(),
    }
}
