// SPDX-License-Identifier: GPL-2.0

//! How a structure of the ABI grows. Pure: tools/core-tests runs its tests on the host.

/// What to do with a structure of `user` bytes, where ours has `ours` and its first version had
/// `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes to copy; the rest of ours is zero.
    pub(crate) copy: usize,
    /// Bytes of the caller's behind those, which must be zero: they mean nothing to us.
    pub(crate) beyond: usize,
}

impl Plan {
    /// [`None`] if the caller's is shorter than any there ever was.
    pub(crate) fn new(user: usize, first: usize, ours: usize) -> Option<Self> {
        if user < first {
            return None;
        }
        Some(Self {
            copy: if user < ours { user } else { ours },
            beyond: user.saturating_sub(ours),
        })
    }
}
