// SPDX-License-Identifier: GPL-2.0
//! Threads that use a context in the one way that they are told, until it is
//! gone. There is one on each processor. Who ambushes it ends the context:
//! from another processor, at the same time; or from the same one as a thread
//! that takes the processor in the middle of the call. The processors may be
//! virtual, and one of them not be run just now: so who are to do something at
//! the same time meet first, see [`Beat`].

use crate::{
    context::{Context, NOWHERE},
    counters::Count,
    ops::{Events, How, Prey, Request, Touch, BATCH},
    polled::Polled,
    report::Checked,
    sys,
    testdev::Command,
    world::World,
};
use raio::{raw, sys as abi};
use std::{
    hint,
    sync::{
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst},
        mpsc::{self, Receiver, Sender},
        Arc, Mutex,
    },
    thread,
    time::{Duration, Instant},
};

/// After so long a context that was ended must be seen to have.
const LONGEST: Duration = Duration::from_secs(30);

/// What a victim is told.
pub struct Task {
    /// What to use.
    pub context: Arc<Context>,
    /// How.
    pub prey: Prey,
    /// It is about to.
    pub started: AtomicBool,
    /// The context ends now, for who does it at the same time.
    pub now: Beat,
    /// It won't use it any more.
    pub done: AtomicBool,
    /// Who does it.
    pub thread: AtomicI32,
}

impl Task {
    /// To use `context`.
    pub fn new(context: Arc<Context>, prey: Prey) -> Arc<Self> {
        Arc::new(Self {
            context,
            prey,
            started: AtomicBool::new(false),
            now: Beat::default(),
            done: AtomicBool::new(false),
            thread: AtomicI32::new(0),
        })
    }
}

/// They begin.
const NOW: u32 = u32::MAX - 1;
/// An answer that comes within that comes from a processor that is run.
const AT_ONCE: Duration = Duration::from_micros(20);
/// So many of them in a row are asked for.
const ANSWERS: u32 = 4;
/// After so long it isn't tried any more.
const PATIENCE: Duration = Duration::from_millis(250);

/// How two threads on two processors begin something at the same time. What is
/// asked is odd, the answer one more, and [`NOW`] the end.
#[derive(Default)]
pub struct Beat(AtomicU32);

impl Beat {
    /// Waits until both run at the same time, and tells the other to go on.
    /// Says whether they do.
    pub fn meet(&self) -> bool {
        let start = Instant::now();
        let mut answers = 0;
        for beat in (1..NOW).step_by(2) {
            if answers == ANSWERS || start.elapsed() > PATIENCE {
                break;
            }
            let asked = Instant::now();
            self.0.store(beat, SeqCst);
            spin(|| self.0.load(SeqCst) != beat);
            answers = if asked.elapsed() < AT_ONCE {
                answers + 1
            } else {
                0
            };
        }
        self.0.store(NOW, SeqCst);
        answers == ANSWERS
    }

    /// The other side: answers until it is told.
    pub fn answer(&self) {
        spin(|| match self.0.load(SeqCst) {
            NOW => true,
            beat => {
                if beat % 2 == 1 {
                    self.0.store(beat + 1, SeqCst);
                }
                false
            }
        });
    }
}

/// The way to a victim.
pub struct Victim {
    tasks: Sender<Arc<Task>>,
    ours: Mutex<Option<Receiver<Arc<Task>>>>,
}

impl Victim {
    /// Nobody yet.
    pub fn new() -> Self {
        let (tasks, ours) = mpsc::channel();
        Self {
            tasks,
            ours: Mutex::new(Some(ours)),
        }
    }

    /// Gives it something to do, when it has done what it has.
    pub fn give(&self, task: &Arc<Task>) {
        // It never ends.
        let _ = self.tasks.send(Arc::clone(task));
    }
}

/// Spins a little, then lets others run.
fn spin(until: impl Fn() -> bool) {
    for n in 0u32.. {
        if until() {
            return;
        }
        if n % 4096 == 4095 {
            thread::yield_now();
        }
        hint::spin_loop();
    }
}

/// Starts the victims.
///
/// # Errors
///
/// Those of a thread.
pub fn start(world: &Arc<World>) -> std::io::Result<()> {
    for (n, processor) in world.processors.iter().copied().enumerate() {
        let world = Arc::clone(world);
        thread::Builder::new()
            .name(format!("victim{n}"))
            .stack_size(128 << 10)
            .spawn(move || {
                let Some(tasks) = crate::world::lock(&world.victims[n].ours).take() else {
                    return;
                };
                sys::run_on(processor);
                while let Ok(task) = tasks.recv() {
                    if let Err(e) = run(&world, &task, n as u32) {
                        let whence = format!("victim {n}, {:?}", task.prey);
                        world.report.fail(&whence, &e);
                    }
                    task.done.store(true, SeqCst);
                }
            })?;
    }
    Ok(())
}

fn run(world: &World, task: &Task, n: u32) -> Checked {
    let context = &task.context;
    let start = Instant::now();
    task.thread.store(sys::thread_id(), SeqCst);
    let later = matches!(task.prey, Prey::Destroy | Prey::Ring | Prey::Wake);
    task.started.store(!later, SeqCst);
    match task.prey {
        Prey::LookUp => while look_up(world, context, start)? {},
        Prey::Submit => {
            const REQUEST: Request = Request::Read {
                device: 0,
                block: 0,
                blocks: 1,
                how: How::PLAIN,
            };
            while submit(world, context, n, start, &[REQUEST; BATCH / 4], false)? {}
        }
        Prey::Cancel => {
            let polls = polls(n as usize);
            while submit(world, context, n, start, &polls[..BATCH / 2], true)? {}
        }
        Prey::Wait | Prey::Sleep => wait(world, context)?,
        Prey::Destroy => {
            // Nobody else shall be run here when it is time.
            sys::urgent(world.processors.len() > 1);
            task.started.store(true, SeqCst);
            task.now.answer();
            let destroyed = context.destroy(0, &world.own, &world.counters);
            sys::urgent(false);
            destroyed?;
        }
        Prey::Complete => complete(world, context)?,
        Prey::Ring => {
            sys::urgent(world.processors.len() > 1);
            task.started.store(true, SeqCst);
            task.now.answer();
            let rung = Polled::bells(n as usize).try_for_each(|bell| ring(world, bell));
            sys::urgent(false);
            rung?;
        }
        Prey::Wake => wake(world, task, n as usize, start)?,
    }
    world.counters.count(Count::Ambushes);
    Ok(())
}

/// The call that does the least with a context. Says whether it is there. The
/// module remembers which one was looked up last; each time that is another.
fn look_up(world: &World, context: &Context, start: Instant) -> Checked<bool> {
    let descriptor = context.file.via(0);
    let submit_nothing = |context: &Context| {
        let mut arg = abi::raio_submit {
            ctx: context.handle(),
            iocbs: NOWHERE,
            ..Default::default()
        };
        // SAFETY: nothing is submitted.
        unsafe { raw::submit(descriptor.number, &mut arg) }
    };
    for _ in 0..64 {
        match submit_nothing(&world.decoy) {
            Ok(0) => {}
            other => return Err(format!("submit of nothing to the decoy: {other:?}")),
        }
        match submit_nothing(context) {
            Ok(0) => {}
            Err(e) if sys::errno(&e) == libc::EINVAL && context.is_ending() => return Ok(false),
            other => return Err(format!("submit of nothing: {other:?}")),
        }
    }
    on_time(start)?;
    Ok(true)
}

fn on_time(start: Instant) -> Checked {
    if start.elapsed() > LONGEST {
        return Err("a context that was destroyed is still there".to_owned());
    }
    Ok(())
}

/// Submits, and cancels that if it shall. Says whether the context is there.
fn submit(
    world: &World,
    context: &Context,
    n: u32,
    start: Instant,
    requests: &[Request],
    cancel: bool,
) -> Checked<bool> {
    let list = context.prepare(
        requests,
        n,
        &world.once,
        &world.devices,
        &world.polled,
        &world.own,
    );
    if !context.submit(0, &list, &world.own, &world.counters)? {
        return Ok(false);
    }
    if cancel {
        context.cancel_all(0, false, &world.counters)?;
    }
    let mut events = [abi::io_event::default(); BATCH];
    let zero = abi::__kernel_timespec::default();
    let mut arg = abi::raio_getevents {
        ctx: context.handle(),
        nr: BATCH as i64,
        events: events.as_mut_ptr().expose_provenance() as u64,
        timeout: (&raw const zero).expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: there is room for as many events.
    match unsafe { raw::getevents(context.file.via(0).number, &mut arg) } {
        Ok(got) => {
            for event in &events[..got as usize] {
                context.event(event, &world.own, &world.counters)?;
            }
        }
        Err(e) if sys::errno(&e) == libc::EINVAL && context.is_ending() => return Ok(false),
        Err(e) if sys::errno(&e) == libc::EBADF && context.file.is_closing() => return Ok(false),
        Err(e) => return Err(format!("getevents without waiting: {e}")),
    }
    on_time(start)?;
    Ok(true)
}

/// So many poll each bell.
const POLLS: usize = 4;

/// Polls of a victim's bells. The first is of one that isn't rung while it
/// matters, and is counted: so it tells when the oldest is cancelled.
pub fn polls(victim: usize) -> Vec<Request> {
    let poll = |place, counted| Request::Poll {
        place,
        events: Events::In,
        counted,
    };
    let bells = Polled::bells(victim);
    let mut polls = vec![poll(bells.start + 1, true)];
    for bell in bells.skip(2) {
        polls.extend([poll(bell, false); POLLS]);
    }
    polls
}

fn ring(world: &World, bell: u16) -> Checked {
    world.polled.touch(bell, Touch::Pulse)
}

/// Rings when the first poll is cancelled: the oldest go first, so from the
/// other end.
fn wake(world: &World, task: &Task, n: usize, start: Instant) -> Checked {
    let bells = Polled::bells(n);
    world.polled.was_counted(bells.start);
    task.started.store(true, SeqCst);
    for n in 1u32.. {
        if world.polled.was_counted(bells.start) {
            break;
        }
        if n % 64 == 0 {
            on_time(start)?;
            thread::yield_now();
        }
    }
    world.counters.count(Count::Wakes);
    bells.skip(2).rev().try_for_each(|bell| ring(world, bell))
}

/// The device whose requests are cancelled and ended at the same time.
pub const RACED: u8 = 1;

/// Waits until requests begin to be cancelled, and ends the rest. Others may
/// have their requests on that device, too.
fn complete(world: &World, context: &Context) -> Checked {
    let error = |e: std::io::Error| format!("the control device: {e}");
    if !sys::wait_for(LONGEST, || context.is_ending()) {
        return Err("a context doesn't end".to_owned());
    }
    // It isn't so far yet: first a grace period passes.
    let before = world.control.cancelled(RACED).map_err(error)?;
    while !context.was_destroyed() {
        if world.control.cancelled(RACED).map_err(error)? != before {
            // One by one: both begin with the oldest that is left.
            for _ in 0..64 {
                world
                    .control
                    .tell(RACED, Command::Complete(1))
                    .map_err(error)?;
                if context.was_destroyed() {
                    break;
                }
            }
            world.counters.count(Count::Races);
            break;
        }
    }
    Ok(())
}

/// Waits for events until there can't be any.
fn wait(world: &World, context: &Context) -> Checked {
    let mut events = [abi::io_event::default(); BATCH];
    loop {
        let mut arg = abi::raio_getevents {
            ctx: context.handle(),
            min_nr: BATCH as i64,
            nr: BATCH as i64,
            events: events.as_mut_ptr().expose_provenance() as u64,
            ..Default::default()
        };
        // SAFETY: there is room for as many events.
        match unsafe { raw::getevents(context.file.via(0).number, &mut arg) } {
            Ok(got @ 1..) => {
                for event in &events[..got as usize] {
                    context.event(event, &world.own, &world.counters)?;
                }
            }
            Err(e) if sys::errno(&e) == libc::EINVAL && context.is_ending() => return Ok(()),
            other => return Err(format!("a wait without an end: {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_meet_go_on() {
        for _ in 0..10 {
            let beat = Beat::default();
            thread::scope(|scope| {
                let other = scope.spawn(|| beat.answer());
                thread::yield_now();
                assert!(!other.is_finished());
                beat.meet();
            });
            assert_eq!(beat.0.load(SeqCst), NOW);
        }
    }
}
