// SPDX-License-Identifier: GPL-2.0

//! Waiting once for a file to be ready, as `poll(2)` does. No locks.

use crate::{
    abi,
    request::{
        Prepared,
        Submitted, //
    }, //
};
use kernel::prelude::*;

/// Waits for what `buf` says. The result is what it is ready for. `EINVAL` for what isn't in the 16 bits of `poll(2)`, and for a file that is never ready.
pub(super) fn start(request: Prepared, args: &abi::Request) -> Result<Submitted> {
    request.watch(u16::try_from(args.buf).map_err(|_| EINVAL)?)
}
