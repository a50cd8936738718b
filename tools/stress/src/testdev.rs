// SPDX-License-Identifier: GPL-2.0
//! The devices: those of raio_test.ko, which are told what to do, and one that has to
//! be asked for what it has done. `selftests/raio/test_modules/raio_test/control.rs` has
//! the commands.

use crate::{
    check,
    context::Devices,
    ops::{DEVICES, READ_ONLY_BLOCKS, TOLD},
    seed::Random,
};
use raio_nullblk::NullBlk;
use rand::Rng;
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

/// Where commands go.
const CONTROL: &str = "/dev/raio_test_ctl";
/// The devices.
const NODES: [&str; DEVICES as usize] = [
    "/dev/raio_test0",
    "/dev/raio_test1",
    "/dev/raio_testb0",
    "/dev/raio_testb1",
    "/dev/raio-stress",
];
/// What commands call them.
const NAMES: [&str; TOLD as usize] = ["c0", "c1", "b0", "b1"];

/// Bytes of the smallest device.
const SIZE: usize = 1 << 20;
/// Pages of each device that are written to.
pub const PAGES: u64 = (SIZE / 4096) as u64 - FIRST_PAGE;
/// The first of them.
pub const FIRST_PAGE: u64 = READ_ONLY_BLOCKS as u64 / 8;

/// Whether the module is there.
pub fn is_there() -> bool {
    Path::new(CONTROL).exists()
}

/// Makes the last one, which is there until that is dropped.
///
/// # Errors
///
/// Those of [`NullBlk::new`] and [`NullBlk::set_timeout`].
pub fn make() -> io::Result<NullBlk> {
    let name = NODES[usize::from(TOLD)].trim_start_matches("/dev/");
    let disk = NullBlk::new(
        name,
        &[
            ("size", (SIZE >> 20) as u64),
            ("memory_backed", 1),
            ("submit_queues", 1),
            ("poll_queues", 1),
        ],
    )?;
    // Nobody need ask for what is in flight while its process is there.
    disk.set_timeout(Duration::from_secs(60))?;
    Ok(disk)
}

/// Opens them. A disk is opened without a cache in between.
///
/// # Errors
///
/// Those of open(2).
pub fn open() -> io::Result<Devices> {
    let files: io::Result<Vec<File>> = (0..DEVICES).map(open_one).collect();
    Ok(Devices {
        files: files?,
        read_only: File::open(NODES[0])?,
    })
}

/// Opens one of them, to be read and written.
///
/// # Errors
///
/// Those of open(2).
pub fn open_one(device: u8) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if check::is_block(device) {
        options.custom_flags(libc::O_DIRECT);
    }
    options.open(NODES[usize::from(device)])
}

/// Writes what everybody knows to all devices.
///
/// # Errors
///
/// Those of write(2).
pub fn fill() -> io::Result<()> {
    let mut data = vec![0; SIZE];
    for (device, node) in NODES.iter().enumerate() {
        check::fill(&mut data, device as u8, 0, check::FIRST_GENERATION);
        let file = OpenOptions::new().write(true).open(node)?;
        file.write_all_at(&data, 0)?;
        file.sync_all().or_else(|e| match e.raw_os_error() {
            // A character device needs none.
            Some(libc::EINVAL) => Ok(()),
            _ => Err(e),
        })?;
    }
    Ok(())
}

/// What a device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// When requests end.
    Mode(Mode),
    /// Whether those that are held can be cancelled.
    Cancel(&'static str),
    /// The oldest of those that are held end.
    Complete(u8),
    /// All that are held end.
    CompleteAll,
    /// The oldest of those that are held fail.
    Fail(u8, i32),
    /// The next ones move so many bytes at most.
    Short(u8, u16),
    /// As in the beginning.
    Reset,
}

/// When requests end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// While they are submitted, but told as if later.
    Now,
    /// While they are submitted.
    Sync,
    /// Soon.
    Softirq,
    /// After so many nanoseconds.
    Timer(u32),
    /// When told.
    Hang,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode(Mode::Now) => write!(f, "mode now"),
            Self::Mode(Mode::Sync) => write!(f, "mode sync"),
            Self::Mode(Mode::Softirq) => write!(f, "mode softirq"),
            Self::Mode(Mode::Timer(time)) => write!(f, "mode timer {time}"),
            Self::Mode(Mode::Hang) => write!(f, "mode hang"),
            Self::Cancel(how) => write!(f, "cancel {how}"),
            Self::Complete(n) => write!(f, "complete {n}"),
            Self::CompleteAll => write!(f, "complete all"),
            Self::Fail(n, errno) => write!(f, "fail {n} {errno}"),
            Self::Short(n, bytes) => write!(f, "short {n} {bytes}"),
            Self::Reset => write!(f, "reset"),
        }
    }
}

impl Command {
    /// Something for some device.
    pub fn random(random: &mut Random) -> (u8, Self) {
        let device = random.random_range(0..TOLD);
        let is_block = check::is_block(device);
        let n = random.random_range(1..20);
        let command = match random.random_range(0..100) {
            0..45 => Self::Mode(match random.random_range(0..10) {
                0 => Mode::Now,
                1 => Mode::Sync,
                2..4 => Mode::Softirq,
                // Just when the method returns, or while it is waited for.
                4 => Mode::Timer(random.random_range(100..50_000)),
                5 => Mode::Timer(random.random_range(50_000..20_000_000)),
                _ => Mode::Hang,
            }),
            45..65 if !is_block => {
                Self::Cancel(["yes", "no", "refuse", "late"][random.random_range(0..4)])
            }
            65..72 if !is_block => Self::Short(n, random.random_range(0..4096)),
            72..84 => {
                let errors = check::DEVICE_ERRORS;
                Self::Fail(n, errors[random.random_range(0..errors.len())])
            }
            84..93 => Self::CompleteAll,
            _ => Self::Complete(n),
        };
        (device, command)
    }
}

/// The control device.
pub struct Control(File);

impl Control {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        Ok(Self(file))
    }

    /// Gives a command.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub fn tell(&self, device: u8, command: Command) -> io::Result<()> {
        let text = format!("{} {command}", NAMES[usize::from(device)]);
        let n = (&self.0).write(text.as_bytes())?;
        if n != text.len() {
            return Err(io::Error::other("a command was cut"));
        }
        Ok(())
    }

    /// Gives it to all devices that are told.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub fn tell_all(&self, command: Command) -> io::Result<()> {
        (0..TOLD).try_for_each(|device| self.tell(device, command))
    }

    /// How many requests of a device have been cancelled.
    ///
    /// # Errors
    ///
    /// Those of read(2).
    pub fn cancelled(&self, device: u8) -> io::Result<u64> {
        let mut text = [0; 1024];
        let n = self.0.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..n]);
        Ok(cancelled(&text, NAMES[usize::from(device)]))
    }

    /// What the devices are doing, a line for each.
    pub fn state(&self) -> String {
        let mut text = String::new();
        // A new one, to read from the beginning.
        let read = File::open(CONTROL).and_then(|mut file| file.read_to_string(&mut text));
        match read {
            Ok(_) => text,
            Err(e) => format!("{CONTROL}: {e}\n"),
        }
    }
}

/// The number that the line of a device says.
fn cancelled(text: &str, device: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(device))
        .and_then(|line| {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.strip_prefix("cancelled="))
        })
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{self, Role};

    #[test]
    fn commands_are_words() {
        for (command, text) in [
            (Command::Mode(Mode::Timer(5)), "mode timer 5"),
            (Command::Cancel("late"), "cancel late"),
            (Command::Fail(3, libc::EIO), "fail 3 5"),
            (Command::Short(2, 100), "short 2 100"),
            (Command::CompleteAll, "complete all"),
        ] {
            assert_eq!(command.to_string(), text);
        }
    }

    #[test]
    fn states_are_read() {
        let text = "c0 mode=hang held=3 started=10 ended=7 cancelled=1 failed=0\n\
                    c1 mode=now held=0 started=9 ended=9 cancelled=23 failed=0\n";
        assert_eq!(cancelled(text, "c0"), 1);
        assert_eq!(cancelled(text, "c1"), 23);
        assert_eq!(cancelled(text, "b0"), 0);
    }

    #[test]
    fn disks_are_told_what_they_know() {
        let random = &mut seed::random(3, Role::Supervisor);
        for _ in 0..2000 {
            let (device, command) = Command::random(random);
            assert!(device < TOLD);
            if check::is_block(device) {
                assert!(!matches!(command, Command::Cancel(_) | Command::Short(..)));
            }
        }
    }
}
