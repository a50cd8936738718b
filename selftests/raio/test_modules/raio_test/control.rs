// SPDX-License-Identifier: GPL-2.0

//! `/dev/raio_test_ctl`: takes a test's commands, one for each `write(2)`, and tells the state.
//!
//! ```text
//! DEVICE mode now|sync|softirq|hang   when requests end
//! DEVICE mode timer NS
//! DEVICE cancel yes|no|refuse|late    what to cancel one that waits does (c0, c1)
//! DEVICE complete N|all               ends those held for the longest, at most so many
//! DEVICE fail N|all ERRNO
//! DEVICE nowait N|all                 refuses the next that must not wait, with EAGAIN
//! DEVICE short N|all BYTES            the next transfer so many bytes at most (c0, c1)
//! DEVICE wait held|started|ended N    returns when it has come so far
//! DEVICE reset                        ends all that waits; as in the beginning
//! ```
//!
//! `DEVICE` is `c0`, `c1`, `b0` or `b1`. `EINVAL` is for everything else, `EINTR` for a signal while
//! it waits, which `read(2)` never does. There is one line for each device:
//!
//! ```text
//! c0 mode=hang held=3 started=10 ended=7 cancelled=1 failed=0 refused=2 shortened=0 ioprio=0
//! ```
//!
//! A request that is refused, or that finds the end of the device, isn't started. One that is over
//! has ended, however: it may also have been cancelled (or its caller killed) or failed, by command.
//! The priority is that of the last that was started.
//!
//! No locks.

use crate::{
    devices,
    queue::{
        Cancel,
        Event,
        Mode,
        Next,
        Queue,
        Work, //
    }, //
};
use core::str::{
    FromStr,
    SplitAsciiWhitespace, //
};
use kernel::{
    bindings,
    fs::{
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    prelude::*,
    str::CString,
};

/// Longer commands than that there aren't.
const MAX_COMMAND: usize = 128;

/// An open file of the device.
pub(crate) struct ControlFile;

#[vtable]
impl MiscDevice for ControlFile {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        Ok(KBox::new(Self, GFP_KERNEL)?)
    }

    fn write_iter(_kiocb: Kiocb<'_, Self::Ptr>, iter: &mut IovIterSource<'_>) -> Result<usize> {
        let mut buffer = [0; MAX_COMMAND];
        let len = iter.len();
        let text = buffer.get_mut(..len).ok_or(EINVAL)?;
        if iter.copy_from_iter(text) != len {
            return Err(EFAULT);
        }
        let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
        let devices = devices()?;
        let [c0, c1] = &devices.chars;
        let [b0, b1] = &devices.disks;
        let mut words = Words(text.split_ascii_whitespace());
        match words.next()? {
            "c0" => command(c0, words)?,
            "c1" => command(c1, words)?,
            "b0" => command(b0, words)?,
            "b1" => command(b1, words)?,
            _ => return Err(EINVAL),
        }
        Ok(len)
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, iter: &mut IovIterDest<'_>) -> Result<usize> {
        let devices = devices()?;
        let [c0, c1] = &devices.chars;
        let [b0, b1] = &devices.disks;
        let mut text = KVec::new();
        for line in [
            line("c0", c0)?,
            line("c1", c1)?,
            line("b0", b0)?,
            line("b1", b1)?,
        ] {
            text.extend_from_slice(line.to_bytes(), GFP_KERNEL)?;
        }
        iter.simple_read_from_buffer(kiocb.ki_pos_mut(), &text)
    }
}

fn line<W: Work>(name: &str, queue: &Queue<W>) -> Result<CString> {
    let (mode, held, counts) = queue.stat();
    let mode = match mode {
        Mode::Now => "now",
        Mode::Sync => "sync",
        Mode::Softirq => "softirq",
        Mode::Timer(_) => "timer",
        Mode::Hang => "hang",
    };
    CString::try_from_fmt(fmt!(
        "{} mode={} held={} started={} ended={} cancelled={} failed={} refused={} shortened={} ioprio={}\n",
        name,
        mode,
        held,
        counts.started,
        counts.ended,
        counts.cancelled,
        counts.failed,
        counts.refused,
        counts.shortened,
        counts.ioprio
    ))
}

/// What is left of a command.
struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str> {
        self.0.next().ok_or(EINVAL)
    }

    fn number<T: FromStr>(&mut self) -> Result<T> {
        self.next()?.parse().map_err(|_| EINVAL)
    }

    fn how_many(&mut self) -> Result<Next> {
        match self.next()? {
            "all" => Ok(Next::All),
            word => Ok(Next::Some(word.parse().map_err(|_| EINVAL)?)),
        }
    }

    fn error(&mut self) -> Result<Error> {
        let errno: i32 = self.number()?;
        if !(1..=bindings::MAX_ERRNO as i32).contains(&errno) {
            return Err(EINVAL);
        }
        Ok(Error::from_errno(-errno))
    }

    /// There must be no more.
    fn end(mut self) -> Result {
        match self.0.next() {
            None => Ok(()),
            Some(_) => Err(EINVAL),
        }
    }
}

/// Nothing is done before all of it was understood.
fn command<W: Work>(queue: &Queue<W>, mut words: Words<'_>) -> Result {
    match words.next()? {
        "mode" => {
            let mode = match words.next()? {
                "now" => Mode::Now,
                "sync" => Mode::Sync,
                "softirq" => Mode::Softirq,
                "timer" => Mode::Timer(words.number::<u64>()?.try_into()?),
                "hang" => Mode::Hang,
                _ => return Err(EINVAL),
            };
            words.end()?;
            queue.set_mode(mode);
        }
        "cancel" if W::IS_CHAR => {
            let cancel = match words.next()? {
                "yes" => Cancel::Yes,
                "no" => Cancel::No,
                "refuse" => Cancel::Refuse,
                "late" => Cancel::Late,
                _ => return Err(EINVAL),
            };
            words.end()?;
            queue.set_cancel(cancel);
        }
        "complete" => {
            let next = words.how_many()?;
            words.end()?;
            queue.release(next, None);
        }
        "fail" => {
            let next = words.how_many()?;
            let error = words.error()?;
            words.end()?;
            queue.release(next, Some(error));
        }
        "nowait" => {
            let next = words.how_many()?;
            words.end()?;
            queue.set_nowait(next);
        }
        "short" if W::IS_CHAR => {
            let next = words.how_many()?;
            let len = words.number()?;
            words.end()?;
            queue.set_short(next, len);
        }
        "wait" => {
            let event = match words.next()? {
                "held" => Event::Held,
                "started" => Event::Started,
                "ended" => Event::Ended,
                _ => return Err(EINVAL),
            };
            let n = words.number()?;
            words.end()?;
            queue.wait(event, n)?;
        }
        "reset" => {
            words.end()?;
            queue.reset()?;
        }
        _ => return Err(EINVAL),
    }
    Ok(())
}
