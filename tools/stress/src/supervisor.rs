// SPDX-License-Identifier: GPL-2.0
//! One thread that starts processes, kills them, tells the test devices what
//! to do, sees to it that nothing is held for long, and sums up. Its output is
//! KTAP.

use crate::{
    check,
    counters::{self, Count, Counters, Module},
    fleeting,
    ops::{self, BLOCK, OWN_PAGES, READ_ONLY_BLOCKS},
    resized,
    seed::{self, Random, Role},
    sys::{self, End, Reaped},
    testdev::{self, Command, Control, Mode},
};
use clap::Args;
use raio::{Device, Stats};
use rand::Rng;
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, IsTerminal, Read},
    os::{fd::AsRawFd, unix::fs::FileExt},
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant},
};

/// What is held is let go at least so often.
const LET_GO: Duration = Duration::from_millis(250);
/// A process that is there for so long hangs.
const LONGEST_LIFE: Duration = Duration::from_secs(60);
/// And one that was killed so long ago.
const LONGEST_DEATH: Duration = Duration::from_secs(30);
/// At the end those that aren't to be killed must end within that. (Whatever
/// a thread waits for in vain, it gives up after 30 seconds.)
const GRACE: Duration = Duration::from_secs(40);
/// Contexts are freed a little after their end; so long that may take.
const SETTLED: Duration = Duration::from_secs(10);
/// So much is told of failures.
const MOST_FAILURES: usize = 20;
/// However slow it goes, so many processes are started.
const LEAST: u64 = 2 * ops::ROUND.len() as u64;
/// On a machine that is slow, or busy with something else, it may take so much
/// longer until everything has occurred.
const PATIENCE: Duration = Duration::from_secs(300);
/// What kselftests return when they aren't run.
const SKIPPED: u8 = 4;

/// What the test is to be like.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How long it takes, in seconds; longer until 16 processes were started,
    /// and up to three times as long until everything has occurred
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// The seed that everything follows from, in decimal or as 0x...; a random
    /// one if not given
    #[arg(long, value_parser = seed::parse)]
    pub seed: Option<u64>,
    /// Processes at a time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub processes: u32,
    /// Threads of each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub threads: u32,
    /// Run the process with this number again and again, not one after the
    /// other
    #[arg(long, value_name = "NUMBER")]
    pub only: Option<u64>,
}

/// A process that runs.
struct Process {
    pid: i32,
    place: u32,
    started: Instant,
    kill_after: Option<Duration>,
    killed: Option<Instant>,
    /// That it hangs was told.
    told: bool,
}

struct Supervisor<'a> {
    options: &'a Options,
    seed: u64,
    random: Random,
    control: Control,
    disk: fleeting::Disk,
    counters: Counters,
    reports: BufReader<File>,
    /// The end of the pipe that processes inherit.
    pipe: File,
    processes: Vec<Process>,
    /// How many were started in each place.
    started: Vec<u64>,
    number: u64,
    failures: Vec<String>,
    /// For how long processes were started.
    lasted: Duration,
}

/// Runs the test.
pub fn run(options: &Options) -> ExitCode {
    println!("TAP version 13");
    if !testdev::is_there() || !std::path::Path::new("/dev/raio").exists() {
        println!("1..0 # SKIP raio.ko and raio_test.ko are needed");
        return ExitCode::from(SKIPPED);
    }
    if u64::from(options.processes * options.threads * 2) * u64::from(OWN_PAGES) > testdev::PAGES {
        println!("Bail out! the devices are too small for so many threads");
        return ExitCode::FAILURE;
    }
    println!("1..4");
    let seed = match options.seed.map_or_else(raio_seed::fresh, Ok) {
        Ok(seed) => seed,
        Err(e) => {
            println!("Bail out! getrandom: {e}");
            return ExitCode::FAILURE;
        }
    };
    println!("# seed {seed:#x}");
    match test(options, seed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            println!("Bail out! {e}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the result of one test.
fn result(number: u32, title: &str, failures: &[String]) -> bool {
    for failure in failures.iter().take(MOST_FAILURES) {
        for line in failure.lines() {
            println!("# {line}");
        }
    }
    if failures.len() > MOST_FAILURES {
        println!("# and {} more", failures.len() - MOST_FAILURES);
    }
    let ok = failures.is_empty();
    println!("{}ok {number} {title}", if ok { "" } else { "not " });
    ok
}

fn test(options: &Options, seed: u64) -> io::Result<bool> {
    let device = Device::open()?;
    let control = Control::open()?;
    control.tell_all(Command::Reset)?;
    let _asked = testdev::make()?;
    let _resized = resized::make()?;
    testdev::fill()?;
    let before = device.stats()?;

    let mut supervisor = Supervisor::new(options, seed, control)?;
    supervisor.supervise(&device, &before)?;
    supervisor.end()?;
    let after = settle(&device, &before)?;
    supervisor.control.tell_all(Command::Reset)?;

    println!("# {} s of stress", supervisor.lasted.as_secs());
    let module = Module::between(&before, &after);
    let title = ("what was done", "what the module has counted");
    for line in counters::table(title, &supervisor.counters.all(), module.all()).lines() {
        println!("# {line}");
    }
    // Each is printed, whatever the others are.
    let oks = [
        result(1, &format!("stress seed={seed:#x}"), &supervisor.failures),
        result(2, "everything has ended", &unbalanced(&before, &after)),
        result(3, "what nobody writes is unchanged", &changed()?),
        result(
            4,
            "every interleaving has occurred",
            &missing(&module, &supervisor.counters),
        ),
    ];
    Ok(!oks.contains(&false))
}

/// Waits until everything is freed, as far as it gets.
fn settle(device: &Device, before: &Stats) -> io::Result<Stats> {
    let start = Instant::now();
    loop {
        let after = device.stats()?;
        let balanced = unbalanced(before, &after).is_empty();
        if balanced || start.elapsed() > SETTLED {
            println!(
                "# waited {} ms for the last contexts to be freed",
                start.elapsed().as_millis()
            );
            return Ok(after);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn unbalanced(before: &Stats, after: &Stats) -> Vec<String> {
    let mut failures = Vec::new();
    let (was, is) = (
        before.setups.wrapping_sub(before.frees),
        after.setups.wrapping_sub(after.frees),
    );
    if is != was {
        failures.push(format!("there are {is} contexts, before there were {was}"));
    }
    let (was, is) = (
        before.submitted.wrapping_sub(before.completed),
        after.submitted.wrapping_sub(after.completed),
    );
    if is != was {
        failures.push(format!("{is} requests have no event, before it were {was}"));
    }
    failures
}

fn changed() -> io::Result<Vec<String>> {
    let devices = testdev::open()?;
    let mut failures = Vec::new();
    let pages = sys::Pages::new(1)?;
    for (device, file) in devices.files.iter().enumerate() {
        for block in (0..u64::from(READ_ONLY_BLOCKS)).step_by(8) {
            // Aligned memory, for disks.
            let n = pages.with(0, |page| file.read_at(page, block * BLOCK as u64))?;
            let page = pages.get(0);
            let verified = if n == page.len() {
                check::verify(&page[..], device as u8, block, check::FIRST_GENERATION)
            } else {
                Err(format!("only {n} bytes can be read"))
            };
            failures.extend(verified.err());
        }
    }
    Ok(failures)
}

fn missing(module: &Module, counters: &Counters) -> Vec<String> {
    let never = |what: &str| format!("never: {what}");
    let module = module
        .missing(sys::processors().len())
        .into_iter()
        .map(never);
    let own = counters.missing().into_iter().map(never);
    module.chain(own).collect()
}

impl<'a> Supervisor<'a> {
    fn new(options: &'a Options, seed: u64, control: Control) -> io::Result<Self> {
        sys::adopt_orphans();
        sys::prefer();
        let (reports, pipe) = sys::pipe()?;
        Ok(Self {
            options,
            seed,
            random: seed::random(seed, Role::Supervisor),
            control,
            disk: fleeting::Disk::new(),
            counters: Counters::new()?,
            reports: BufReader::new(reports),
            pipe,
            processes: Vec::new(),
            started: vec![0; options.processes as usize],
            number: 0,
            failures: Vec::new(),
            lasted: Duration::ZERO,
        })
    }

    /// Starts and kills, until the time is over and every way to end has had
    /// its turn, or something has failed. If anything has not occurred then,
    /// goes on for a while.
    fn supervise(&mut self, raio: &Device, before: &Stats) -> io::Result<()> {
        let start = Instant::now();
        let mut let_go = start;
        let mut shown = start;
        let limit = Duration::from_secs(self.options.seconds);
        let mut complete = false;
        while self.failures.is_empty() {
            let elapsed = start.elapsed();
            let enough = complete || elapsed > limit + PATIENCE;
            if elapsed > limit && self.number >= LEAST && enough {
                break;
            }
            for place in 0..self.options.processes {
                if !self.processes.iter().any(|process| process.place == place) {
                    self.start(place)?;
                }
            }
            let (device, command) = Command::random(&mut self.random);
            self.control.tell(device, command)?;
            self.disk.come_or_go(&mut self.random)?;
            if let_go.elapsed() > LET_GO {
                self.control.tell_all(Command::CompleteAll)?;
                let_go = Instant::now();
            }
            self.attend()?;
            if shown.elapsed() > Duration::from_secs(1) {
                let module = Module::between(before, &raio.stats()?);
                complete = missing(&module, &self.counters).is_empty();
                self.show(start.elapsed());
                shown = Instant::now();
            }
            thread::sleep(Duration::from_millis(self.random.random_range(2..20)));
        }
        self.lasted = start.elapsed();
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        Ok(())
    }

    fn show(&self, elapsed: Duration) {
        if !io::stderr().is_terminal() {
            return;
        }
        eprint!(
            "\r\x1b[K{} of {} s: {} processes, {} killed, {} operations, {} events",
            elapsed.as_secs(),
            self.options.seconds,
            self.counters.get(Count::Processes),
            self.counters.get(Count::Kills),
            self.counters.get(Count::Operations),
            self.counters.get(Count::Events),
        );
    }

    fn start(&mut self, place: u32) -> io::Result<()> {
        let number = self.options.only.unwrap_or(self.number);
        self.number += 1;
        // The pages of who was here last may be written to until all that it
        // has left behind has ended.
        let turn = &mut self.started[place as usize];
        *turn += 1;
        let half = u64::from(place) * 2 + *turn % 2;
        let page =
            testdev::FIRST_PAGE + half * u64::from(self.options.threads) * u64::from(OWN_PAGES);
        self.control.tell_all(Command::CompleteAll)?;
        let (seed, killed) = ops::child(self.seed, number);
        let child = process::Command::new("/proc/self/exe")
            .arg("child")
            .args(["--seed", &format!("{seed:#x}")])
            .args(["--number", &number.to_string()])
            .args(["--threads", &self.options.threads.to_string()])
            .args(["--page", &page.to_string()])
            .args(["--counters", &self.counters.descriptor().to_string()])
            .args(["--report", &self.pipe.as_raw_fd().to_string()])
            .stdin(process::Stdio::null())
            .stdout(process::Stdio::null())
            .spawn()?;
        self.counters.count(Count::Processes);
        let kill_after = self.random.random_range(20..1500);
        self.processes.push(Process {
            pid: child.id() as i32,
            place,
            started: Instant::now(),
            kill_after: killed.then(|| Duration::from_millis(kill_after)),
            killed: None,
            told: false,
        });
        Ok(())
    }

    /// Kills, waits for who has ended, reads what was reported, and finds who
    /// hangs. Says whether there is any process left.
    fn attend(&mut self) -> io::Result<bool> {
        for process in &mut self.processes {
            let due = process
                .kill_after
                .is_some_and(|after| process.started.elapsed() > after);
            if due && process.killed.is_none() {
                sys::kill(process.pid);
                process.killed = Some(Instant::now());
                self.counters.count(Count::Kills);
            }
        }
        let mut any = true;
        loop {
            match sys::reap_any()? {
                Reaped::One(pid, end) => self.ended(pid, end),
                Reaped::NotYet => break,
                Reaped::Nobody => {
                    any = false;
                    break;
                }
            }
        }
        self.read_reports()?;
        self.hang(|process| {
            process.started.elapsed() > LONGEST_LIFE
                || process
                    .killed
                    .is_some_and(|killed| killed.elapsed() > LONGEST_DEATH)
        });
        Ok(any)
    }

    /// Tells of processes of which that is true that they hang, once.
    fn hang(&mut self, hangs: impl Fn(&Process) -> bool) {
        for process in &mut self.processes {
            if process.told || !hangs(process) {
                continue;
            }
            process.told = true;
            let killed = match process.killed {
                Some(killed) => format!("killed {} s ago", killed.elapsed().as_secs()),
                None => "not killed".to_owned(),
            };
            self.failures.push(format!(
                "process {} hangs: started {} s ago, {killed}\n{}{}",
                process.pid,
                process.started.elapsed().as_secs(),
                stacks(process.pid),
                self.control.state(),
            ));
        }
    }

    /// Of those that aren't in the list the parent has died, who may have
    /// killed them.
    fn ended(&mut self, pid: i32, end: End) {
        let at = self.processes.iter().position(|process| process.pid == pid);
        let process = at.map(|at| self.processes.swap_remove(at));
        let killed = process.is_some_and(|process| process.killed.is_some());
        match end {
            End::Exited(0) => {}
            End::Killed(libc::SIGKILL) if killed || at.is_none() => {}
            _ => self
                .failures
                .push(format!("process {pid} has ended so: {end:?}")),
        }
    }

    fn read_reports(&mut self) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            match self.reports.read_until(b'\n', &mut line) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    let line = String::from_utf8_lossy(&line);
                    self.failures.push(line.trim_end().to_owned());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits for all processes, which may end by themselves for a while.
    fn end(&mut self) -> io::Result<()> {
        let start = Instant::now();
        self.control.tell_all(Command::Mode(Mode::Now))?;
        while self.attend()? {
            self.control.tell_all(Command::CompleteAll)?;
            if start.elapsed() > GRACE {
                self.hang(|process| process.killed.is_none());
            }
            if !self.failures.is_empty() {
                for process in &mut self.processes {
                    process.kill_after = Some(Duration::ZERO);
                }
            }
            if self.processes.iter().all(|process| process.told) && start.elapsed() > LONGEST_DEATH
            {
                self.failures
                    .push("not all processes have ended".to_owned());
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.control.tell_all(Command::CompleteAll)
    }
}

/// Where the threads of a process are.
fn stacks(pid: i32) -> String {
    let mut text = String::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return text;
    };
    for task in tasks.flatten() {
        let read = |name: &str| {
            let mut content = String::new();
            let file = File::open(task.path().join(name));
            let _ = file.map(|mut file| file.read_to_string(&mut content));
            content
        };
        text += &format!(
            "{} {} {}\n{}",
            task.file_name().to_string_lossy(),
            read("comm").trim_end(),
            read("wchan"),
            read("stack")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let before = Stats {
            setups: 5,
            frees: 4,
            ..Default::default()
        };
        let mut after = Stats {
            setups: 9,
            frees: 8,
            submitted: 7,
            completed: 7,
            ..Default::default()
        };
        assert!(unbalanced(&before, &after).is_empty());
        after.frees = 7;
        after.completed = 6;
        assert_eq!(unbalanced(&before, &after).len(), 2);
    }
}
