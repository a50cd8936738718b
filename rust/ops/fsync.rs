// SPDX-License-Identifier: GPL-2.0

//! Making last what was written. It is done by a worker, as whoever submits it: that may take long,
//! and what a file system does for it may depend on for whom. It covers what was completed before.
//! No locks.

use crate::{
    abi,
    kernel_ext::file_io,
    request::{
        Prepared,
        Submitted, //
    }, //
};
use kernel::prelude::*;

/// Syncs a file. `EINVAL` if it can't be.
pub(super) fn all(request: Prepared, _args: &abi::Request) -> Result<Submitted> {
    start(request, false)
}

/// Syncs its data, and what is needed to read it. `EINVAL` if it can't be.
pub(super) fn data(request: Prepared, _args: &abi::Request) -> Result<Submitted> {
    start(request, true)
}

fn start(request: Prepared, data_only: bool) -> Result<Submitted> {
    if !file_io::can_sync(request.file()) {
        return Err(EINVAL);
    }
    Ok(request.sync(data_only))
}
