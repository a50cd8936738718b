// SPDX-License-Identifier: GPL-2.0
//! Requests in a context of their own, of which all that they are about goes while they are in flight:
//! what is registered, the file, and the context now and then.

use crate::{counters::Count, report::Checked, sys::Pages, worker::LONGEST, world::World};
use raio::{raw, ring::Ring, sys as abi};
use std::{fs::File, os::fd::AsRawFd};

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

/// Submits them, with `pages` and `file` registered as the only ones, lets `meanwhile` be done, and tells
/// `judge` the result of each by its number, unless the context ends before. Their data are their numbers.
///
/// # Errors
///
/// Any is a failure of the test.
pub fn fly(
    world: &World,
    polled: bool,
    file: File,
    pages: &Pages,
    iocbs: &[abi::iocb],
    meanwhile: impl FnOnce(&File) -> Checked,
    judge: impl Fn(usize, i64) -> Checked,
) -> Checked {
    let device = world.home.via(0).number;
    let requests = iocbs.len();
    let mut handle = 0u64;
    let mut setup = abi::raio_setup {
        nr_events: requests as u32,
        ctxp: address(&raw mut handle),
        flags: if polled { abi::RAIO_SETUP_IOPOLL } else { 0 },
        nr_buffers: 1,
        nr_files: 1,
        ..Default::default()
    };
    // SAFETY: `handle` may be written to.
    unsafe { raw::setup(device, &mut setup) }.map_err(|e| format!("setup: {e}"))?;
    world.counters.count(Count::Setups);
    let table = |buffer: abi::raio_buffer, file: i32| {
        let mut arg = abi::raio_register {
            ctx: handle,
            nr: 1,
            array: address(&raw const buffer),
            ..Default::default()
        };
        // SAFETY: requests alone use the memory, until it is looked at.
        unsafe { raw::buffers(device, &mut arg) }.and_then(|_| {
            arg.array = address(&raw const file);
            raw::files(device, &mut arg)
        })
    };
    let all = abi::raio_buffer {
        addr: pages.page(0),
        len: pages.len() as u64,
    };
    table(all, file.as_raw_fd()).map_err(|e| format!("registering: {e}"))?;
    let mut enter = abi::raio_enter {
        ctx: handle,
        nr: requests as u32,
        iocbs: address(iocbs.as_ptr()),
        ..Default::default()
    };
    // SAFETY: as above.
    let taken = unsafe { raw::enter(device, &mut enter) }.map_err(|e| format!("enter: {e}"))?;
    if taken as usize != requests {
        return Err(format!("{taken} of {requests} were taken"));
    }
    world.counters.add(Count::Taken, requests);
    meanwhile(&file)?;
    // All that they are about goes now, but for what they keep.
    drop(file);
    table(abi::raio_buffer::default(), -1).map_err(|e| format!("unregistering: {e}"))?;
    if requests % 3 != 0 {
        land(world, device, handle, requests, judge)?;
    } else if !polled {
        // Of those that are polled for none has an event, for nobody has asked.
        // SAFETY: it is mapped until the context ends, and nobody reads its events.
        let ring = unsafe { Ring::new(handle as usize, setup.ring_size, setup.ring_nr) };
        let posted = ring.map_err(|e| e.to_string())?.len();
        if (posted as usize) < requests {
            world.counters.count(Count::EndedInFlight);
        }
    }
    let mut arg = abi::raio_destroy {
        ctx: handle,
        ..Default::default()
    };
    // SAFETY: the ring's memory is used in calls only.
    unsafe { raw::destroy(device, &mut arg) }.map_err(|e| format!("destroy: {e}"))?;
    world.counters.count(Count::Destroyed);
    Ok(())
}

/// Each has one event.
fn land(
    world: &World,
    device: i32,
    handle: u64,
    requests: usize,
    judge: impl Fn(usize, i64) -> Checked,
) -> Checked {
    let mut events = vec![abi::io_event::default(); requests];
    let time = abi::__kernel_timespec {
        tv_sec: LONGEST.as_secs() as i64,
        ..Default::default()
    };
    let mut arg = abi::raio_getevents {
        ctx: handle,
        min_nr: requests as i64,
        nr: requests as i64,
        events: address(events.as_mut_ptr()),
        timeout: address(&raw const time),
        ..Default::default()
    };
    // SAFETY: there is room for as many events.
    let got = unsafe { raw::getevents(device, &mut arg) }.map_err(|e| format!("getevents: {e}"))?;
    if got as usize != requests {
        return Err(format!("{got} of {requests} events have come"));
    }
    world.counters.add(Count::Events, requests);
    let mut seen = vec![false; requests];
    for event in &events {
        let at = event.data as usize;
        match seen.get_mut(at) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(format!("not one that there is: {event:?}")),
        }
        judge(at, event.res).map_err(|e| format!("{event:?}: {e}"))?;
    }
    Ok(())
}
