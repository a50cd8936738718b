// SPDX-License-Identifier: GPL-2.0

//! Requests that do nothing: what they cost is what raio costs. No locks.

use crate::{
    abi,
    request::{
        Prepared,
        Submitted, //
    },
    ring::Event, //
};
use kernel::prelude::*;

/// That of one without a file.
pub(super) fn event(obj: u64, data: u64) -> Event {
    Event {
        data,
        obj,
        res: 0,
        res2: 0,
    }
}

/// Ends it with a result of 0.
pub(super) fn start(request: Prepared, _args: &abi::Request) -> Result<Submitted> {
    Ok(request.end(0))
}
