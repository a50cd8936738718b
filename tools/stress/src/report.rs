// SPDX-License-Identifier: GPL-2.0
//! How a process tells the supervisor what it found: one line through a pipe,
//! which ends the process.

use crate::sys;
use std::{fs::File, io::Write};

/// What a check has found, in words.
pub type Checked<T = ()> = Result<T, String>;

/// The longest line, which pipes don't mix with others.
const LONGEST: usize = 4000;

/// Where to tell.
pub struct Report {
    pipe: File,
    who: String,
}

impl Report {
    /// Of a process called `who`, through `pipe`.
    pub fn new(pipe: File, who: String) -> Self {
        Self { pipe, who }
    }

    /// Tells and ends the process.
    pub fn fail(&self, whence: &str, what: &str) -> ! {
        self.tell(whence, what);
        sys::exit_now(1)
    }

    /// Tells only.
    pub fn tell(&self, whence: &str, what: &str) {
        let mut line = format!("{}, {whence}: {what}", self.who).replace(['\n', '\r'], " ");
        while line.len() > LONGEST {
            line.pop();
        }
        line.push('\n');
        // There is nobody else to tell that this failed.
        let _ = (&self.pipe).write_all(line.as_bytes());
    }
}
