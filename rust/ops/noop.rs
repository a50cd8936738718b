// SPDX-License-Identifier: GPL-2.0

//! Requests that do nothing: what they cost is what raio costs. No locks.

use crate::{
    abi,
    request::Prepared, //
};
use kernel::prelude::*;

/// Ends it with a result of 0.
pub(super) fn start(request: Prepared, _args: &abi::Request) -> Result<bool> {
    request.end(0);
    Ok(false)
}
