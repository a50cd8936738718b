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
//!
//! DEVICE ready MASK                   what poll(2) says from now on; nobody is woken (c0, c1)
//! DEVICE queues DIGITS|none           on which of its queues, 0 to 3, who polls is put, in this
//!                                     order, as 0, 012 or 00
//! DEVICE WAKE                         wakes who is on a queue
//! DEVICE during N WAKE                the same in the next N calls of the method, after it has
//!                                     looked what is ready
//! DEVICE soft|hard N NS WAKE          the same N times, NS after one another, in interrupts
//! DEVICE free QUEUE                   frees a queue, as POLLFREE says, and makes a new one
//! DEVICE wait polled|woken N
//!
//! WAKE: wake QUEUE KEY                with that key, or without if it is 0
//!       fire QUEUE KEY                the same, and KEY is ready from then on
//! ```
//!
//! `DEVICE` is `c0`, `c1`, `b0` or `b1`. `EINVAL` is for everything else, `EINTR` for a signal while
//! it waits, which `read(2)` never does. There is one line for each device:
//!
//! ```text
//! c0 mode=hang held=3 started=10 ended=7 cancelled=1 interrupting=0 failed=0 refused=2 shortened=0 ioprio=0 protected=0 polled=0 woken=0
//! ```
//!
//! A request that is refused, or that finds the end of the device, isn't started. One that is over
//! has ended, however: it may also have been cancelled (or its caller killed) or failed, by command.
//! The priority is that of the last that was started. `fsync(2)` of a character device is a request,
//! too.
//!
//! No locks.

use crate::{
    devices,
    pollers::{
        Places,
        Pollers,
        Seen,
        Wake,
        NR_QUEUES, //
    },
    queue::{
        Cancel,
        Event,
        Mode,
        Next,
        Queue,
        Work, //
    },
    timer::Lane, //
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
            "c0" => command(c0, Some(&c0.device().pollers), words)?,
            "c1" => command(c1, Some(&c1.device().pollers), words)?,
            "b0" => command(b0, None, words)?,
            "b1" => command(b1, None, words)?,
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
            line("c0", c0, Some(&c0.device().pollers))?,
            line("c1", c1, Some(&c1.device().pollers))?,
            line("b0", b0, None)?,
            line("b1", b1, None)?,
        ] {
            text.extend_from_slice(line.to_bytes(), GFP_KERNEL)?;
        }
        iter.simple_read_from_buffer(kiocb.ki_pos_mut(), &text)
    }
}

fn line<W: Work>(name: &str, queue: &Queue<W>, pollers: Option<&Pollers>) -> Result<CString> {
    let (mode, held, counts) = queue.stat();
    let polls = pollers.map(Pollers::counts).unwrap_or_default();
    let mode = match mode {
        Mode::Now => "now",
        Mode::Sync => "sync",
        Mode::Softirq => "softirq",
        Mode::Timer(_) => "timer",
        Mode::Hang => "hang",
    };
    CString::try_from_fmt(fmt!(
        "{} mode={} held={} started={} ended={} cancelled={} interrupting={} failed={} \
         refused={} shortened={} ioprio={} protected={} polled={} woken={}\n",
        name,
        mode,
        held,
        counts.started,
        counts.ended,
        counts.cancelled,
        counts.interrupting,
        counts.failed,
        counts.refused,
        counts.shortened,
        counts.ioprio,
        counts.protected,
        polls.polled,
        polls.woken
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

    fn queue(&mut self) -> Result<usize> {
        let queue = self.number()?;
        if queue >= NR_QUEUES {
            return Err(EINVAL);
        }
        Ok(queue)
    }

    fn mask(&mut self) -> Result<u32> {
        Ok(self.number::<u16>()?.into())
    }

    /// The rest of what begins with `word`.
    fn wake(&mut self, word: &str) -> Result<Wake> {
        let ready = match word {
            "wake" => false,
            "fire" => true,
            _ => return Err(EINVAL),
        };
        Ok(Wake {
            queue: self.queue()?,
            key: self.mask()?,
            ready,
        })
    }

    fn places(&mut self) -> Result<Places> {
        let mut places = Places::NONE;
        match self.next()? {
            "none" => (),
            digits => {
                for digit in digits.bytes() {
                    places.add(digit.wrapping_sub(b'0'))?;
                }
            }
        }
        Ok(places)
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
fn command<W: Work>(queue: &Queue<W>, pollers: Option<&Pollers>, mut words: Words<'_>) -> Result {
    match (words.next()?, pollers) {
        ("mode", _) => {
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
        ("cancel", _) if W::IS_CHAR => {
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
        ("complete", _) => {
            let next = words.how_many()?;
            words.end()?;
            queue.release(next, None);
        }
        ("fail", _) => {
            let next = words.how_many()?;
            let error = words.error()?;
            words.end()?;
            queue.release(next, Some(error));
        }
        ("nowait", _) => {
            let next = words.how_many()?;
            words.end()?;
            queue.set_nowait(next);
        }
        ("short", _) if W::IS_CHAR => {
            let next = words.how_many()?;
            let len = words.number()?;
            words.end()?;
            queue.set_short(next, len);
        }
        ("wait", _) => {
            let event = words.next()?;
            let n = words.number()?;
            words.end()?;
            match (event, pollers) {
                ("held", _) => queue.wait(Event::Held, n)?,
                ("started", _) => queue.wait(Event::Started, n)?,
                ("ended", _) => queue.wait(Event::Ended, n)?,
                ("polled", Some(pollers)) => pollers.wait(Seen::Polled, n)?,
                ("woken", Some(pollers)) => pollers.wait(Seen::Woken, n)?,
                _ => return Err(EINVAL),
            }
        }
        ("reset", _) => {
            words.end()?;
            if let Some(pollers) = pollers {
                pollers.reset()?;
            }
            queue.reset()?;
        }
        (word, Some(pollers)) => poll_command(pollers, word, words)?,
        _ => return Err(EINVAL),
    }
    Ok(())
}

/// The rest of a command that begins with `word`, one about polling.
fn poll_command(pollers: &Pollers, word: &str, mut words: Words<'_>) -> Result {
    match word {
        "ready" => {
            let ready = words.mask()?;
            words.end()?;
            pollers.set_ready(ready);
        }
        "queues" => {
            let places = words.places()?;
            words.end()?;
            pollers.set_places(places);
        }
        "during" => {
            let times = words.number()?;
            let word = words.next()?;
            let wake = words.wake(word)?;
            words.end()?;
            pollers.wake_during(times, wake);
        }
        "soft" | "hard" => {
            let lane = if word == "soft" {
                Lane::Soft
            } else {
                Lane::Hard
            };
            let times = words.number()?;
            let period = words.number::<u64>()?.try_into()?;
            let word = words.next()?;
            let wake = words.wake(word)?;
            words.end()?;
            pollers.wake_later(lane, period, times, wake);
        }
        "free" => {
            let queue = words.queue()?;
            words.end()?;
            pollers.free(queue)?;
        }
        _ => {
            let wake = words.wake(word)?;
            words.end()?;
            pollers.wake(wake);
        }
    }
    Ok(())
}
