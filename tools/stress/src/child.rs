// SPDX-License-Identifier: GPL-2.0
//! A process of the test: its threads, those that follow them, and its end.

use crate::{
    ambush,
    context::{Context, OwnPages},
    counters::{Count, Counters},
    fork,
    ops::{Ending, Plan, DEVICES, FILES, OWN_PAGES, SLOTS},
    report::{Checked, Report},
    sys, testdev,
    worker::{self, Worker},
    world::{lock, Parts, World},
};
use clap::Args;
use std::{
    sync::{atomic::Ordering::SeqCst, Arc},
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long a thread may wait without an end before it is kicked.
const KICKED_AFTER: Duration = Duration::from_millis(150);
/// How long buffers are watched after the last close.
const WATCHED: Duration = Duration::from_millis(400);

/// What the supervisor says.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Its own seed
    #[arg(long, value_parser = crate::seed::parse)]
    pub seed: u64,
    /// Its number
    #[arg(long)]
    pub number: u64,
    /// Threads
    #[arg(long)]
    pub threads: u32,
    /// The first page of each device that is its own
    #[arg(long)]
    pub page: u64,
    /// The descriptor of the counters
    #[arg(long)]
    pub counters: i32,
    /// The descriptor of the pipe for failures
    #[arg(long)]
    pub report: i32,
}

/// Runs a process. It ends with success, or a report.
pub fn run(options: &Options) {
    sys::die_with_parent();
    sys::allow_files(1 << 14);
    let who = format!("process {} (seed {:#x})", options.number, options.seed);
    let report = Report::new(sys::inherited(options.report), who.clone());
    let told = Report::new(sys::inherited(options.report), who);
    std::panic::set_hook(Box::new(move |panic| {
        told.tell("a panic", &panic.to_string());
    }));
    let world = match world(options, report) {
        Ok(world) => Arc::new(world),
        Err(e) => panic!("at the start: {e}"),
    };
    if let Err(e) = live(&world, options) {
        world.report.fail("the main thread", &e);
    }
}

fn world(options: &Options, report: Report) -> Checked<World> {
    let error = |e: std::io::Error| e.to_string();
    World::new(Parts {
        seed: options.seed,
        number: options.number,
        counters: Counters::of(sys::inherited(options.counters)).map_err(error)?,
        report,
        devices: testdev::open().map_err(error)?,
        control: testdev::Control::open().map_err(error)?,
        own: OwnPages::new(options.page, options.threads, OWN_PAGES, DEVICES),
        threads: options.threads,
    })
}

/// A thread, and the number of its generation.
type Running = (JoinHandle<()>, u32);

fn start(world: &Arc<World>, plan: Plan, number: u32, generation: u32) -> Checked<Running> {
    let worker = Worker::new(Arc::clone(world), number);
    let thread = thread::Builder::new()
        .name(format!("worker{number}"))
        .stack_size(256 << 10)
        .spawn(move || worker.run(plan, generation))
        .map_err(|e| format!("a thread: {e}"))?;
    Ok((thread, generation))
}

fn live(world: &Arc<World>, options: &Options) -> Checked {
    let plan = Plan::new(options.seed);
    sys::accept_kicks();
    ambush::start(world).map_err(|e| format!("a thread: {e}"))?;
    let threads: Checked<Vec<_>> = (0..options.threads)
        .map(|number| start(world, plan, number, 0).map(Some))
        .collect();
    let mut threads = threads?;

    let abrupt = matches!(plan.ending, Ending::Exit | Ending::Exec);
    while threads.iter().any(Option::is_some) {
        thread::sleep(Duration::from_millis(5));
        kick(world);
        for (number, place) in threads.iter_mut().enumerate() {
            let Some((thread, generation)) = place.take_if(|(thread, _)| thread.is_finished())
            else {
                continue;
            };
            thread.join().map_err(|_| "a thread has panicked")?;
            let next = generation + 1;
            if next < plan.generations {
                *place = Some(start(world, plan, number as u32, next)?);
            }
        }
        if abrupt && world.begun.elapsed() > Duration::from_millis(plan.after.into()) {
            break;
        }
    }
    match plan.ending {
        Ending::Orderly => orderly(world),
        Ending::Close => close(world),
        Ending::Exit => {
            world.counters.count(Count::Exited);
            sys::exit_now(0)
        }
        Ending::Exec => {
            world.counters.count(Count::Execs);
            let context = (0..SLOTS).find_map(|slot| world.context(slot));
            let file = world.file(0);
            let handle = context.map_or(crate::context::NOWHERE, |context| context.handle());
            Err(fork::exec(file.via(0).number, handle))
        }
    }
}

/// Ends waits that nothing else has ended.
fn kick(world: &World) {
    for waiting in &world.waiting {
        let since = lock(&waiting.since);
        if since.is_some_and(|since| since.elapsed() > KICKED_AFTER) {
            sys::signal_thread(waiting.thread.load(SeqCst), sys::KICK);
        }
    }
}

fn contexts(world: &World) -> Vec<Arc<Context>> {
    (0..SLOTS)
        .filter_map(|slot| world.put(slot, None))
        .collect()
}

/// Nobody does anything any more: all that lives must have all its events,
/// and can be destroyed.
fn orderly(world: &World) -> Checked {
    for context in contexts(world) {
        let lives = !context.is_ending();
        let mut descriptors = 0..context.file.descriptors.len() as u8;
        if let Some(via) = descriptors.find(|via| !context.file.via(*via).is_closed()) {
            if lives {
                worker::drain(world, &context, via)?;
            }
            let destroyed = context.destroy(via, &world.own, &world.counters)?;
            if lives && !destroyed {
                return Err("a context that lives was not destroyed".to_owned());
            }
        }
        context.watch(&world.counters)?;
    }
    world.counters.count(Count::Orderly);
    Ok(())
}

/// All files are closed, with what is in flight. Nobody else has them: forked
/// processes were waited for. So the buffers are ours after that.
fn close(world: &World) -> Checked {
    let contexts = contexts(world);
    for file in (0..FILES)
        .map(|n| world.file(n))
        .chain([Arc::clone(&world.home)])
    {
        for n in 0..file.descriptors.len() as u8 {
            file.close(n, &world.counters)?;
        }
    }
    for context in &contexts {
        context.ended(&world.own);
    }
    thread::sleep(WATCHED);
    for context in &contexts {
        context.watch(&world.counters)?;
    }
    world.counters.count(Count::Closed);
    Ok(())
}
