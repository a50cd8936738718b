// SPDX-License-Identifier: GPL-2.0
//! A thread that does its operations, and judges what each call answers. What
//! isn't known to be possible is a failure.

use crate::{
    ambush::{self, Task, RACED},
    context::{Context, OpenFile, NOWHERE},
    counters::Count,
    fleeting, fork,
    ops::{
        BadSetup, Events, Finish, How, Op, Plan, Prey, Reap, Request, Size, Timeout, Touch, BATCH,
        DUPLICATES, FIRST_DISK, LONGEST_NAP, MANY_SYNCS,
    },
    polled::BOTH,
    report::Checked,
    resized, sys,
    testdev::{Command, Mode},
    world::{lock, World},
};
use raio::{raw, ring::Ring, sys as abi};
use std::{
    collections::VecDeque,
    hint, ptr,
    sync::{atomic::Ordering::SeqCst, Arc},
    thread,
    time::{Duration, Instant},
};

/// How long the buffers of a context that was destroyed are watched, while
/// there is room.
const WATCHED: Duration = Duration::from_millis(600);
/// How many such contexts there is room for.
const MOST_WATCHED: usize = 24;
/// For so long a process does something, then it ends, and others have their
/// turn.
const BUSY: Duration = Duration::from_secs(6);
/// After so long an event must be there: the supervisor ends what devices
/// hold much more often.
pub const LONGEST: Duration = Duration::from_secs(30);

/// A thread of the test.
pub struct Worker {
    world: Arc<World>,
    number: u32,
    /// Contexts that have ended, and since when.
    watched: VecDeque<(Instant, Arc<Context>)>,
}

fn timespec(time: Duration) -> abi::__kernel_timespec {
    abi::__kernel_timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

impl Worker {
    /// Thread `number` of a process.
    pub fn new(world: Arc<World>, number: u32) -> Self {
        Self {
            world,
            number,
            watched: VecDeque::new(),
        }
    }

    /// Does the operations of a generation of this thread, as far as the
    /// process has time. A failure ends the process.
    pub fn run(mut self, plan: Plan, generation: u32) {
        let seed = self.world.seed;
        self.world.waiting[self.number as usize]
            .thread
            .store(sys::thread_id(), SeqCst);
        self.world.counters.count(Count::Threads);
        for (n, op) in plan.operations(seed, self.number, generation) {
            if self.world.begun.elapsed() > BUSY {
                break;
            }
            self.world.counters.count(Count::Operations);
            let done = self.perform(&op).and_then(|()| self.watch(false));
            if let Err(e) = done {
                let whence = format!(
                    "thread {}, generation {generation}, operation {n}, {op:?}",
                    self.number
                );
                self.world.report.fail(&whence, &e);
            }
        }
        if let Err(e) = self.watch(true) {
            let whence = format!("thread {}, generation {generation}, its end", self.number);
            self.world.report.fail(&whence, &e);
        }
    }

    /// Looks at the contexts that were watched for long enough, or at all.
    fn watch(&mut self, all: bool) -> Checked {
        while let Some((since, context)) = self.watched.front() {
            if !all && since.elapsed() < WATCHED && self.watched.len() <= MOST_WATCHED {
                break;
            }
            context.watch(&self.world.counters)?;
            self.watched.pop_front();
        }
        Ok(())
    }

    fn destroy(&mut self, context: &Arc<Context>, via: u8) -> Checked<bool> {
        let world = &self.world;
        let destroyed = context.destroy(via, &world.own, &world.counters)?;
        if destroyed && context.is_watched() {
            self.watched
                .push_back((Instant::now(), Arc::clone(context)));
        }
        Ok(destroyed)
    }

    fn make(
        &self,
        file: &Arc<OpenFile>,
        via: u8,
        size: Size,
        shared: bool,
    ) -> Checked<Option<Arc<Context>>> {
        let made = Context::new(
            &self.world.once,
            file,
            via,
            size,
            shared,
            &self.world.devices,
        )?;
        let counters = &self.world.counters;
        counters.count(if made.is_some() {
            Count::Setups
        } else {
            Count::Stale
        });
        Ok(made)
    }

    fn submit(&self, context: &Context, via: u8, requests: &[Request]) -> Checked<bool> {
        let world = &self.world;
        let list = context.prepare(
            requests,
            self.number,
            &world.once,
            &world.devices,
            &world.polled,
            &world.own,
        );
        context.submit(via, &list, &world.own, &world.counters)
    }

    fn perform(&mut self, op: &Op) -> Checked {
        let world = Arc::clone(&self.world);
        match *op {
            Op::Setup { slot, file, size } => {
                let file = world.file(file);
                if let Some(made) = self.make(&file, slot, size, true)? {
                    if let Some(old) = world.put(slot, Some(made)) {
                        self.destroy(&old, slot)?;
                    }
                }
                Ok(())
            }
            Op::BadSetup { file, bad } => self.bad_setup(&world.file(file), bad),
            Op::Submit {
                slot,
                via,
                ref requests,
            } => {
                let Some(context) = world.context(slot) else {
                    return Ok(());
                };
                self.submit(&context, via, requests).map(drop)
            }
            Op::BadSubmit { slot, negative } => match world.context(slot) {
                Some(context) => bad_submit(&context, negative),
                None => Ok(()),
            },
            Op::GetEvents {
                slot,
                via,
                min,
                max,
                timeout,
                nowhere,
            } => {
                let Some(context) = world.context(slot) else {
                    return Ok(());
                };
                self.getevents(&context, via, (min, max), timeout, nowhere)
            }
            Op::Touch { place, touch } => {
                world.counters.count(match touch {
                    Touch::Replace { .. } => Count::Replaced,
                    _ => Count::Touches,
                });
                world.polled.touch(place, touch)
            }
            Op::Replace { slot, via, device } => match world.context(slot) {
                Some(context) => context.register_again(via, device, &world.counters),
                None => Ok(()),
            },
            Op::Fleeting { polled, requests } => fleeting::read(&world, polled, requests.into()),
            Op::Resized {
                registered,
                grows,
                pages,
                ref spans,
            } => resized::transfer(&world, registered, grows, pages, spans),
            Op::Cancel {
                slot,
                via,
                first,
                times,
                flying,
            } => match world.context(slot) {
                Some(context) => context.cancel_some(via, first, times, flying, &world.counters),
                None => Ok(()),
            },
            Op::Withdraw => self.withdraw(),
            Op::Look => self.look(),
            Op::Destroy {
                slot,
                via,
                stays,
                again,
            } => {
                let Some(context) = world.context(slot) else {
                    return Ok(());
                };
                if !stays {
                    world.remove(slot, &context);
                }
                self.destroy(&context, via)?;
                // That it succeeds once at most is seen there. (It may be the
                // second time, if the ring was being moved the first time.)
                if again {
                    self.destroy(&context, via)?;
                }
                Ok(())
            }
            Op::Stranger { slot, file } => match world.context(slot) {
                Some(context) => stranger(&context, &world.file(file)),
                None => Ok(()),
            },
            Op::Unmap { slot, part } => {
                let Some(context) = world.context(slot) else {
                    return Ok(());
                };
                context.ends();
                context
                    .unmap(part)
                    .map_err(|e| format!("munmap of a ring: {e}"))?;
                world.counters.count(Count::Unmaps);
                world.remove(slot, &context);
                Ok(())
            }
            Op::Remap { slot } => {
                let Some(context) = world.context(slot) else {
                    return Ok(());
                };
                // It has no handle for a moment.
                context.ends();
                match context.remap(&world.once) {
                    Ok(()) => world.counters.count(Count::Remaps),
                    // It may be that others have ended or moved it: it is not
                    // there, or is only a mapping of what was a ring.
                    Err(e)
                        if matches!(sys::errno(&e), libc::EFAULT | libc::EINVAL)
                            && context.is_ending_elsewhere() => {}
                    Err(e) => return Err(format!("mremap of a ring: {e}")),
                }
                Ok(())
            }
            Op::Fork { file, what } => fork::fork(&world, &world.file(file), what),
            Op::Close { file: n, which } => {
                let file = world.file(n);
                if file.close(which, &world.counters)? {
                    let new = OpenFile::open(&world.once, DUPLICATES)?;
                    world.replace_file(n, &file, new);
                }
                Ok(())
            }
            Op::Private {
                size,
                vain,
                ref requests,
                cancel,
                reap,
                finish,
            } => self.private(size, vain, requests, cancel, reap, finish),
            Op::Ambush {
                prey,
                ref requests,
                nap,
                close,
                finish,
                storm,
                times,
            } => (0..u32::from(times)).try_for_each(|n| {
                let nap = nap * (n + 1) % LONGEST_NAP;
                self.ambush(prey, requests, nap, close, finish, storm)
            }),
            Op::Race { cancel } => self.race(cancel),
            Op::Told { fails } => self.told(fails),
            Op::Move { to } => {
                let n = world.processors.len();
                sys::run_on(world.processors[usize::from(to) % n]);
                Ok(())
            }
            Op::Rest { microseconds } => {
                thread::sleep(Duration::from_micros(microseconds.into()));
                Ok(())
            }
            Op::Ask { file } => {
                let file = world.file(file);
                let descriptor = file.via(0);
                let asked =
                    raw::query(descriptor.number).and_then(|_| raw::stats(descriptor.number));
                match asked {
                    Ok(_) => Ok(()),
                    Err(e) if sys::errno(&e) == libc::EBADF && descriptor.is_closed() => Ok(()),
                    Err(e) => Err(format!("query or stats: {e}")),
                }
            }
        }
    }

    fn bad_setup(&self, file: &OpenFile, bad: BadSetup) -> Checked {
        let mut handle = u64::from(bad == BadSetup::NotZero);
        let mut arg = abi::raio_setup {
            nr_events: 1,
            ctxp: address(&raw mut handle),
            ..Default::default()
        };
        let expected = match bad {
            BadSetup::Zero => {
                arg.nr_events = 0;
                libc::EINVAL
            }
            BadSetup::TooMany => {
                arg.nr_events = u32::MAX;
                libc::EINVAL
            }
            BadSetup::NotZero => libc::EINVAL,
            BadSetup::Nowhere => {
                arg.ctxp = NOWHERE;
                libc::EFAULT
            }
            BadSetup::ReadOnly => {
                static ZERO: u64 = 0;
                arg.ctxp = address(&raw const ZERO);
                libc::EFAULT
            }
        };
        let descriptor = file.via(0);
        // SAFETY: `handle` may be written to, the others can't be.
        match unsafe { raw::setup(descriptor.number, &mut arg) } {
            Err(e) if sys::errno(&e) == expected => Ok(()),
            Err(e) if sys::errno(&e) == libc::EBADF && descriptor.is_closed() => Ok(()),
            other => Err(format!("it returns {other:?}")),
        }
    }

    /// Reads events once.
    fn getevents(
        &self,
        context: &Context,
        via: u8,
        (min, max): (u8, u8),
        timeout: Timeout,
        nowhere: bool,
    ) -> Checked {
        let world = &self.world;
        let mut events = vec![abi::io_event::default(); max.into()];
        let time = match timeout {
            Timeout::Nanoseconds(n) => timespec(Duration::from_nanos(n.into())),
            Timeout::Zero | Timeout::Endless => timespec(Duration::ZERO),
        };
        let endless = timeout == Timeout::Endless;
        let mut arg = abi::raio_getevents {
            ctx: context.handle(),
            min_nr: min.into(),
            nr: max.into(),
            events: if nowhere {
                NOWHERE
            } else {
                address(events.as_mut_ptr())
            },
            timeout: if endless { 0 } else { address(&raw const time) },
            ..Default::default()
        };
        let descriptor = context.file.via(via);
        let waiting = &world.waiting[self.number as usize];
        if endless {
            world.counters.count(Count::Endless);
            *lock(&waiting.since) = Some(Instant::now());
        }
        // SAFETY: there is room for as many events, or no memory.
        let result = unsafe { raw::getevents(descriptor.number, &mut arg) };
        if endless {
            *lock(&waiting.since) = None;
            // A kick that was sent comes here at the latest.
            thread::yield_now();
        }
        match result {
            Ok(got) => {
                let got = got as usize;
                if got > events.len() || nowhere && got > 0 {
                    return Err(format!("getevents has read {got}"));
                }
                if endless && min > 0 && got == 0 {
                    return Err("getevents has waited for ever and read nothing".to_owned());
                }
                for event in &events[..got] {
                    context.event(event, &world.own, &world.counters)?;
                }
                Ok(())
            }
            Err(e) => {
                let errno = sys::errno(&e);
                if errno == libc::EINTR && endless {
                    world.counters.count(Count::Interrupted);
                } else if errno == libc::EINVAL && context.is_ending()
                    || errno == libc::EBADF && descriptor.is_closed()
                {
                    world.counters.count(Count::Stale);
                } else if !(errno == libc::EINVAL && min > max
                    || errno == libc::EFAULT && nowhere && max > 0)
                {
                    return Err(format!("getevents: {e}"));
                }
                Ok(())
            }
        }
    }

    /// A context from its beginning to its end, each of which is known
    /// exactly.
    fn private(
        &mut self,
        size: Size,
        vain: bool,
        requests: &[Request],
        cancel: bool,
        reap: Reap,
        finish: Finish,
    ) -> Checked {
        let world = Arc::clone(&self.world);
        let forks = world.forks.load(SeqCst);
        let file = self.file_for(finish)?;
        let context = self
            .make(&file, 0, size, false)?
            .ok_or("an open file is closed")?;
        if vain {
            // Until it is kicked.
            self.getevents(&context, 0, (1, 1), Timeout::Endless, false)?;
        }
        if !self.submit(&context, 0, requests)? {
            return Err("a new context can't be used".to_owned());
        }
        if cancel {
            context.cancel_all(0, false, &world.counters)?;
        }
        match reap {
            Reap::Call => drain(&world, &context, 0)?,
            Reap::Ring => self.drain_ring(&context)?,
            Reap::Nobody => {}
        }
        match finish {
            Finish::Destroy => {
                if !self.destroy(&context, 0)? {
                    return Err("somebody else has destroyed it".to_owned());
                }
            }
            Finish::Close => {
                context.ends();
                file.close(0, &world.counters)?;
                self.closed(context, forks);
            }
            Finish::Unmap => self.unmap(&context)?,
        }
        Ok(())
    }

    /// The file of a context that is to end so.
    fn file_for(&self, finish: Finish) -> Checked<Arc<OpenFile>> {
        match finish {
            Finish::Close => OpenFile::open(&self.world.once, 1),
            Finish::Destroy | Finish::Unmap => Ok(Arc::clone(&self.world.home)),
        }
    }

    /// The file of a context was closed, and nobody is in a call with it.
    fn closed(&mut self, context: Arc<Context>, forks: u64) {
        // A process that was forked meanwhile may have the file, too.
        if self.world.forks.load(SeqCst) == forks {
            context.ended(&self.world.own);
            self.watched.push_back((Instant::now(), context));
        }
    }

    fn unmap(&self, context: &Context) -> Checked {
        context.ends();
        context
            .unmap(false)
            .map_err(|e| format!("munmap of a ring: {e}"))?;
        self.world.counters.count(Count::Unmaps);
        Ok(())
    }

    /// The same as [`drain`], in its ring.
    fn drain_ring(&self, context: &Context) -> Checked {
        let world = &self.world;
        context.cancel_all(0, true, &world.counters)?;
        // SAFETY: it stays mapped meanwhile, and nobody else reads events.
        let ring = unsafe {
            Ring::new(
                context.handle() as usize,
                context.ring_size as u64,
                context.ring_nr,
            )
        };
        let mut ring = ring.map_err(|e| e.to_string())?;
        let mut failed = Ok(());
        let drained = sys::wait_until(LONGEST, || {
            if context.polled && failed.is_ok() {
                failed = self.getevents(context, 0, (0, 0), Timeout::Zero, false);
            }
            let n = ring.reap(u32::MAX, |event| {
                if failed.is_ok() {
                    failed = context.event(&event, &world.own, &world.counters);
                }
            });
            world.counters.add(Count::RingEvents, n as usize);
            failed.is_err() || context.flying() == 0
        });
        failed?;
        lost(context, drained)?;
        context.balance()
    }

    fn ambush(
        &mut self,
        prey: Prey,
        requests: &[Request],
        nap: u32,
        close: bool,
        finish: Finish,
        storm: bool,
    ) -> Checked {
        let world = Arc::clone(&self.world);
        let rings = matches!(prey, Prey::Ring | Prey::Wake);
        let size = Size {
            nr_events: 1,
            entries: if storm {
                STORM
            } else if rings {
                64
            } else {
                24
            },
            native: nap % 2 == 1,
            polled: nap % 3 == 1,
        };
        let forks = world.forks.load(SeqCst);
        let file = self.file_for(finish)?;
        let context = self
            .make(&file, 0, size, true)?
            .ok_or("an open file is closed")?;
        self.submit(&context, 0, requests)?;

        // On the processor that we are on, or the next one.
        let n = world.processors.len();
        let here = sys::processor() % n;
        let victim = if close { here } else { (here + 1) % n };
        let task = Task::new(Arc::clone(&context), prey);
        let both = matches!(prey, Prey::Destroy | Prey::Ring);
        if both {
            // Two that are both urgent must not meet on one.
            sys::run_on(world.processors[here]);
        }
        let mut nap = nap;
        if storm {
            sys::run_on(world.processors[victim]);
            nap %= self.storm(&context)?;
            sys::run_on(world.processors[here]);
        }
        sys::urgent(close || storm || both && n > 1);
        world.victims[victim].give(&task);
        if !sys::wait_for(LONGEST, || task.started.load(SeqCst)) {
            return Err("the victim isn't there".to_owned());
        }
        if close {
            sys::run_on(world.processors[victim]);
        }
        let asleep = || sys::sleeps_in(task.thread.load(SeqCst), abi::RAIO_IOC_GETEVENTS);
        if prey == Prey::Sleep && !sys::wait_for(LONGEST, asleep) {
            return Err("the victim doesn't wait".to_owned());
        }
        if rings {
            // Not before the bells are ours.
            self.submit(&context, 0, &ambush::polls(victim))?;
        }
        if both {
            if task.now.meet() {
                world.counters.count(Count::Meetings);
            }
            // Whoever is first, the other comes soon after.
            (0..nap % 64).for_each(|_| hint::spin_loop());
        } else {
            sys::nap(nap);
        }
        if prey == Prey::Ring {
            let (cancelled, others) = context.cancel_all(0, false, &world.counters)?;
            if cancelled > 0 && others > 0 {
                world.counters.count(Count::Crossings);
            }
            sys::urgent(false);
            drain(&world, &context, 0)?;
        }
        match finish {
            Finish::Unmap => self.unmap(&context)?,
            Finish::Close => {
                context.ends();
                file.close(0, &world.counters)?;
            }
            Finish::Destroy => {
                let ours = self.destroy(&context, 0)?;
                if !ours && prey != Prey::Destroy {
                    return Err("somebody else has destroyed it".to_owned());
                }
            }
        }
        sys::urgent(false);
        // It sees at once what we have seen.
        if !sys::wait_for(LONGEST, || task.done.load(SeqCst)) {
            return Err("the victim is still at it".to_owned());
        }
        if prey == Prey::Destroy && !context.was_destroyed() {
            return Err("two have destroyed it, and none has".to_owned());
        }
        if finish == Finish::Close {
            self.closed(context, forks);
        }
        Ok(())
    }
}

/// Requests of a storm.
const STORM: u16 = 7 * BATCH as u16;

impl Worker {
    /// Submits requests whose ends will interrupt this processor, one after
    /// the other, from about now on. Returns for how long about half of them
    /// do, in nanoseconds. (The mode isn't ours alone, so it may be nothing.)
    fn storm(&self, context: &Context) -> Checked<u32> {
        let world = &self.world;
        let mut each = Duration::ZERO;
        for batch in 0..STORM / BATCH as u16 {
            let request = Request::Read {
                device: 0,
                block: batch,
                blocks: 1,
                how: How::PLAIN,
            };
            let delay = each.as_nanos().clamp(1000, 20_000_000) as u32 * 8;
            world
                .control
                .tell(0, Command::Mode(Mode::Timer(delay)))
                .map_err(|e| format!("the control device: {e}"))?;
            let start = Instant::now();
            self.submit(context, 0, &[request; BATCH])?;
            each = start.elapsed();
        }
        Ok((each.as_nanos() as u32).clamp(1000, 20_000_000) * 4)
    }

    /// Cancels syncs that wait for a worker. (Workers may be quick.)
    fn withdraw(&mut self) -> Checked {
        let world = Arc::clone(&self.world);
        let request = Request::Sync {
            disk: FIRST_DISK,
            data_only: false,
        };
        self.alone(MANY_SYNCS, |this, context| {
            // They get what processor is left.
            sys::urgent(true);
            this.submit(context, 0, &[request; MANY_SYNCS])?;
            context.cancel_all(0, false, &world.counters)?;
            sys::urgent(false);
            Ok(())
        })
    }

    /// A worker looks at a file, for it has two wait queues. (Others may have
    /// done something to it before.)
    fn look(&mut self) -> Checked {
        let world = Arc::clone(&self.world);
        let request = Request::Poll {
            place: BOTH,
            events: Events::In,
            counted: false,
        };
        self.alone(1, |this, context| {
            world.polled.touch(BOTH, Touch::Drain)?;
            this.submit(context, 0, &[request])?;
            world.polled.touch(BOTH, Touch::Fill)?;
            let soon = Timeout::Nanoseconds(20_000_000);
            this.getevents(context, 0, (1, 1), soon, false)
        })
    }

    /// Does something with a context of so many entries, gets all events and
    /// destroys it.
    fn alone(&mut self, entries: usize, call: impl FnOnce(&Self, &Context) -> Checked) -> Checked {
        let world = Arc::clone(&self.world);
        let size = Size {
            nr_events: entries as u32,
            entries: entries as u16,
            native: false,
            polled: false,
        };
        let context = self
            .make(&world.home, 0, size, false)?
            .ok_or("the file that stays open is closed")?;
        call(self, &context)?;
        drain(&world, &context, 0)?;
        if !self.destroy(&context, 0)? {
            return Err("somebody else has destroyed it".to_owned());
        }
        Ok(())
    }

    /// A device moves less than it is asked to, or fails. (Others may have
    /// their requests there, too.)
    fn told(&mut self, fails: bool) -> Checked {
        // Not the one that is raced on.
        let device = 0;
        let world = Arc::clone(&self.world);
        let tell = |command| {
            let told = world.control.tell(device, command);
            told.map_err(|e| format!("the control device: {e}"))
        };
        let request = Request::Read {
            device,
            block: 0,
            blocks: 8,
            how: How::PLAIN,
        };
        self.alone(1, |this, context| {
            if fails {
                tell(Command::Mode(Mode::Hang))?;
                this.submit(context, 0, &[request])?;
                tell(Command::Fail(u8::MAX, libc::EIO))
            } else {
                tell(Command::Mode(Mode::Now))?;
                tell(Command::Short(1, 100))?;
                this.submit(context, 0, &[request]).map(drop)
            }
        })
    }

    /// The context's end cancels requests that the device ends meanwhile.
    fn race(&mut self, cancel: &'static str) -> Checked {
        const BATCHES: u16 = 3;
        let world = Arc::clone(&self.world);
        let tell = |command| {
            let told = world.control.tell(RACED, command);
            told.map_err(|e| format!("the control device: {e}"))
        };
        let size = Size {
            nr_events: 1,
            entries: BATCHES * BATCH as u16,
            native: false,
            polled: false,
        };
        let context = self
            .make(&world.home, 0, size, true)?
            .ok_or("the file that stays open is closed")?;
        // It is ready before there is anything that others may end.
        let next = (sys::processor() + 1) % world.victims.len();
        let task = Task::new(Arc::clone(&context), Prey::Complete);
        world.victims[next].give(&task);
        if !sys::wait_for(LONGEST, || task.started.load(SeqCst)) {
            return Err("the victim isn't there".to_owned());
        }
        // The first are cancelled in any case, which is seen.
        tell(Command::Mode(Mode::Hang))?;
        tell(Command::Cancel("yes"))?;
        for batch in 0..BATCHES {
            let request = Request::Read {
                device: RACED,
                block: batch,
                blocks: 1,
                how: How::PLAIN,
            };
            self.submit(&context, 0, &[request; BATCH])?;
            tell(Command::Cancel(cancel))?;
        }
        if !self.destroy(&context, 0)? {
            return Err("somebody else has destroyed it".to_owned());
        }
        if !sys::wait_for(LONGEST, || task.done.load(SeqCst)) {
            return Err("the victim is still at it".to_owned());
        }
        Ok(())
    }
}

fn bad_submit(context: &Context, negative: bool) -> Checked {
    let descriptor = context.file.via(0);
    let mut arg = abi::raio_submit {
        ctx: context.handle(),
        nr: if negative { -1 } else { 1 },
        iocbs: NOWHERE,
        ..Default::default()
    };
    // SAFETY: nothing is submitted.
    let result = unsafe { raw::submit(descriptor.number, &mut arg) };
    let errno = result.as_ref().err().map_or(0, sys::errno);
    if errno == if negative { libc::EINVAL } else { libc::EFAULT }
        || errno == libc::EINVAL && context.is_ending()
        || errno == libc::EBADF && descriptor.is_closed()
    {
        return Ok(());
    }
    Err(format!("it returns {result:?}"))
}

/// A context is that of its file only.
fn stranger(context: &Context, file: &OpenFile) -> Checked {
    if ptr::eq(file, &raw const *context.file) {
        return Ok(());
    }
    let descriptor = file.via(0);
    let zero = abi::__kernel_timespec::default();
    let mut arg = abi::raio_getevents {
        ctx: context.handle(),
        timeout: address(&raw const zero),
        ..Default::default()
    };
    // SAFETY: there is room for no events.
    let result = unsafe { raw::getevents(descriptor.number, &mut arg) };
    match result.as_ref().err().map_or(0, sys::errno) {
        libc::EINVAL => Ok(()),
        libc::EBADF if descriptor.is_closed() => Ok(()),
        _ => Err(format!("getevents by another file: {result:?}")),
    }
}

/// Waits for all events of a context that nobody else uses. Polls are
/// cancelled: nobody need make their files ready.
///
/// # Errors
///
/// Any is a failure of the test.
pub fn drain(world: &World, context: &Context, via: u8) -> Checked {
    let mut events = [abi::io_event::default(); 64];
    context.cancel_all(via, true, &world.counters)?;
    let start = Instant::now();
    while context.flying() > 0 && start.elapsed() < LONGEST {
        let time = timespec(Duration::from_secs(1));
        let mut arg = abi::raio_getevents {
            ctx: context.handle(),
            min_nr: 1,
            nr: events.len() as i64,
            events: address(events.as_mut_ptr()),
            timeout: address(&raw const time),
            ..Default::default()
        };
        // SAFETY: there is room for as many events.
        let got = unsafe { raw::getevents(context.file.via(via).number, &mut arg) };
        let got = got.map_err(|e| format!("getevents of all: {e}"))?;
        for event in &events[..got as usize] {
            context.event(event, &world.own, &world.counters)?;
        }
    }
    lost(context, context.flying() == 0)?;
    context.balance()
}

fn lost(context: &Context, drained: bool) -> Checked {
    if drained {
        return Ok(());
    }
    Err(format!(
        "{} events have not come, the first for {}",
        context.flying(),
        context.first_flying()
    ))
}
