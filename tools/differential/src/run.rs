// SPDX-License-Identifier: GPL-2.0
//! Carries out a sequence on one peer and notes what came of it.
//!
//! What makes it the same each time: before a step, all requests have ended that
//! can end, unless the step is about requests in flight. Which have, the ring
//! itself tells; which polls should have, `poll(2)` does.
//!
//! Kernel AIO carries out what is buffered while it is submitted, so that nothing
//! meets it; raio may park it. Where that would show, it is waited for: before a
//! request that would meet it on its file, which may divide a call in two, and
//! before a step that changes the file or may cancel a write.

use crate::{
    files::{File, Files, Handle},
    memory::{Memory, Words},
    peer::{GetEvents, Iocbs, Peer, REGISTERED, SHARED},
    plan::{
        self, flag, Context, Mask, Minimum, Place, Pointer, Request, Sequence, Step, Timeout, Word,
        EVENTS, REQUESTS,
    },
    sys::{self, Result},
};
use raio::sys::{
    io_event, iocb, raio_ring, RAIO_IOCB_FIXED_BUF, RAIO_IOCB_FIXED_FILE, RAIO_RING_MAGIC,
};
use std::{
    collections::HashMap,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Nothing takes longer that comes at all.
const PATIENCE: Duration = Duration::from_secs(100);
/// `aio_data` of the requests of [`Step::Fill`].
const FILL: u64 = 0x0f11_0f11_0f11_0f11;
/// How many of those are submitted at a time.
const FILL_BATCH: usize = 32;

/// A number that has to be the same on both, and what it is.
pub type Fact = (&'static str, i64);

/// What one request came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How often it was taken.
    pub taken: u32,
    /// How often it was cancelled.
    pub cancelled: u32,
    /// `res` and `res2` of its events, sorted.
    pub events: Vec<(i64, i64)>,
    /// `aio_key` at the end.
    pub key: u32,
    /// Whether there is anything to say of the above.
    pub used: bool,
}

/// What a sequence came to on one peer.
#[derive(Debug, Default)]
pub struct Trace {
    /// Of each step.
    pub steps: Vec<Vec<Fact>>,
    /// Of each request.
    pub requests: Vec<Outcome>,
    /// What the two eventfds have counted.
    pub counts: [u64; 2],
    /// What is wrong without a look at the other peer.
    pub wrong: Vec<String>,
    /// How many requests were taken by raio's own call, and of how many the file was
    /// registered, and the buffer; and how many were given by the submission array.
    pub native: [u64; 4],
}

// Words of a ring's head.
const NR: usize = 1;
const HEAD: usize = 2;
const TAIL: usize = 3;

/// A context, and what is known of it.
struct Ring {
    handle: u64,
    nr: u32,
    /// Events in it, since there is one, and those that were taken out.
    posted: u32,
    taken: u32,
    /// Where raio's submission array is, and which of it comes next.
    array: u64,
    next: u32,
}

impl Ring {
    fn of(handle: u64, array: u64) -> Self {
        let mut ring = Self {
            handle,
            nr: 0,
            posted: 0,
            taken: 0,
            array: handle + array,
            next: 0,
        };
        ring.nr = ring.word(NR).load(Ordering::Relaxed);
        ring
    }

    /// A word of its head.
    fn word(&self, n: usize) -> &AtomicU32 {
        // SAFETY: a ring is mapped for as long as this is here, and its head has 8
        // words.
        unsafe { AtomicU32::from_ptr((self.handle as *mut u32).add(n)) }
    }

    fn there(&self) -> u32 {
        let head = self.word(HEAD).load(Ordering::Relaxed);
        let tail = self.word(TAIL).load(Ordering::Acquire);
        (tail + self.nr - head) % self.nr
    }

    /// The event after so many.
    fn event(&self, n: u32) -> io_event {
        let at = self.handle + size_of::<raio_ring>() as u64;
        // SAFETY: a slot of the ring.
        unsafe { ptr::read_volatile((at as *const io_event).add((n % self.nr) as usize)) }
    }

    /// Puts those into the submission array, and says which is the first.
    fn share(&mut self, iocbs: &[iocb]) -> u32 {
        let first = self.next;
        for iocb in iocbs {
            // SAFETY: an entry of the array, which is mapped as the ring is.
            unsafe {
                (self.array as *mut iocb)
                    .add(self.next as usize)
                    .write_volatile(*iocb)
            };
            self.next = (self.next + 1) % SHARED as u32;
        }
        first
    }

    fn looks_wrong(&self) -> Option<String> {
        let words: Vec<u32> = (NR..8)
            .map(|n| self.word(n).load(Ordering::Relaxed))
            .collect();
        let expected = [
            self.nr,
            self.taken % self.nr,
            self.posted % self.nr,
            RAIO_RING_MAGIC,
            1,
            0,
            size_of::<raio_ring>() as u32,
        ];
        (words != expected).then(|| format!("the ring's head is {words:?}, not {expected:?}"))
    }
}

/// A request that was taken.
struct Flying {
    k: usize,
    done: bool,
    notify: Option<usize>,
    /// If it is a poll, the file, and what for.
    poll: Option<(OwnedFd, i16)>,
    /// Something has happened that ends it.
    due: bool,
}

impl Flying {
    /// Whether it ends by itself.
    fn goes_on(&self) -> bool {
        !self.done && self.poll.is_none()
    }
}

/// One peer with all it has.
pub struct Side {
    /// Which.
    pub peer: Peer,
    /// Its files.
    pub files: Files,
    /// Its memory.
    pub memory: Memory,
    /// By the number of their events, and whether they poll.
    kept: HashMap<(u32, bool), Ring>,
    scratch: Vec<u8>,
}

impl Side {
    /// With these files.
    pub fn new(peer: Peer, files: Files) -> Result<Self> {
        Ok(Self {
            peer,
            files,
            memory: Memory::new()?,
            kept: HashMap::new(),
            scratch: Vec::new(),
        })
    }

    fn setup(&self, nr_events: u32, polls: bool) -> Result<Ring> {
        let ctxp = self.memory.words(Words::Handle, &[0]);
        match self.peer.setup(nr_events, ctxp, polls) {
            (0, array) => Ok(Ring::of(self.memory.handle(), array)),
            (error, _) => Err(format!(
                "{}: io_setup({nr_events}) is {error}",
                self.peer.name()
            )),
        }
    }

    /// Carries out a sequence. Its files are left for the caller to compare.
    pub fn run(&mut self, sequence: &Sequence) -> Result<Trace> {
        let polls = plan::polls(sequence.seed) && self.peer != Peer::Kernel;
        let of = (sequence.nr_events, polls);
        let kept = if sequence.fresh {
            None
        } else {
            self.kept.remove(&of)
        };
        let ring = match kept {
            Some(ring) => ring,
            None => self.setup(sequence.nr_events, polls)?,
        };
        let native = match self.peer {
            Peer::Raio(_) if plan::enters(sequence.seed) => sequence.native(),
            _ => vec![false; sequence.requests.len()],
        };
        let mut run = Run {
            handle: ring.handle,
            ring: Some(ring),
            side: self,
            sequence,
            flying: Vec::new(),
            waited: Vec::new(),
            expected: [0; 2],
            in_flight: false,
            native,
            polls,
            trace: Trace {
                requests: vec![Outcome::default(); REQUESTS],
                ..Trace::default()
            },
        };
        for step in &sequence.steps {
            let facts = run.step(step)?;
            run.trace.steps.push(facts);
            if !run.trace.wrong.is_empty() {
                break;
            }
        }
        run.end()?;
        let (trace, ring) = (run.trace, run.ring);
        if let Some(ring) = ring {
            if sequence.fresh {
                let ret = self.peer.destroy(ring.handle);
                if ret != 0 {
                    return Err(format!("{}: io_destroy is {ret}", self.peer.name()));
                }
            } else {
                self.kept.insert(of, ring);
            }
        }
        Ok(trace)
    }
}

struct Run<'a> {
    side: &'a mut Side,
    sequence: &'a Sequence,
    /// That of the context, also when it is gone.
    handle: u64,
    ring: Option<Ring>,
    flying: Vec<Flying>,
    /// Handles that a poll has waited on.
    waited: Vec<Handle>,
    /// What the eventfds should have counted.
    expected: [u64; 2],
    /// Requests may be in flight that will end by themselves.
    in_flight: bool,
    /// Those that go by raio's own call.
    native: Vec<bool>,
    /// The context has to be asked for what has ended.
    polls: bool,
    trace: Trace,
}

/// The key of an event.
fn data_of(k: usize) -> u64 {
    0xda7a_0000_0000_0000 | k as u64
}

impl Run<'_> {
    fn wrong(&mut self, what: String) {
        self.trace
            .wrong
            .push(format!("{}: {what}", self.side.peer.name()));
    }

    fn context(&self, context: Context) -> u64 {
        match context {
            Context::Own => self.handle,
            Context::Beside => self.handle + 8,
            Context::Copy => match &self.ring {
                Some(ring) => self.side.memory.copy_of(ring.handle),
                None => self.side.memory.words(Words::Handle, &[0]),
            },
            Context::Bad(bad) => self.side.memory.bad(bad),
        }
    }

    fn iocb(&self, pointer: Pointer) -> u64 {
        match pointer {
            Pointer::Request(k) => {
                let place = self
                    .sequence
                    .requests
                    .get(k)
                    .map_or(Place::Good, |r| r.place);
                self.side.memory.iocb(k, place)
            }
            Pointer::Bad(bad) => self.side.memory.bad(bad),
        }
    }

    fn step(&mut self, step: &Step) -> Result<Vec<Fact>> {
        Ok(match step {
            Step::Submit {
                context,
                pointers,
                place,
                nr,
                settle,
            } => {
                let ret = self.submit(*context, pointers, *place, *nr)?;
                if *settle {
                    self.settle();
                }
                vec![("submitted", ret)]
            }
            Step::Alone(k) => {
                let ret = self.submit(Context::Own, &[Pointer::Request(*k)], Place::Good, 1)?;
                self.settle();
                self.cancel_all();
                self.reap_all();
                vec![("submitted", ret)]
            }
            Step::GetEvents {
                context,
                min_nr,
                nr,
                room,
                place,
                timeout,
                mask,
            } => {
                self.settle();
                vec![self.getevents(*context, *min_nr, *nr, (*room, *place), *timeout, *mask)]
            }
            Step::Wait => {
                // What goes on may be what polls wait for; they come, or they don't, at its end.
                if self.flying.iter().any(|f| f.poll.is_some() && !f.done) {
                    self.settle_and(false);
                }
                // Polls may never come; those that are done are there.
                let sure = |f: &&Flying| f.poll.is_none() || f.done;
                let n = match self.ring {
                    Some(_) => self.flying.iter().filter(sure).count() as i64,
                    None => 0,
                };
                vec![self.getevents(
                    Context::Own,
                    Minimum::Number(n),
                    n,
                    (EVENTS, Place::Good),
                    Timeout::Time(PATIENCE.as_secs() as i64, 0),
                    Mask::None,
                )]
            }
            Step::Reap(n) => {
                self.settle();
                self.reap(*n)
            }
            Step::Cancel {
                context,
                pointer,
                key,
            } => self.cancel(*context, *pointer, *key),
            Step::Setup { nr_events, word } => self.setup(*nr_events, *word),
            Step::Destroy(context) => self.destroy(*context),
            Step::Fill => self.fill()?,
            Step::Close(handle) => {
                if self.waited.contains(handle) {
                    // The request lets go of the file a little later, and the
                    // other end would see that.
                    return Ok(vec![("not closed", 0)]);
                }
                let ret = self.side.files.close(*handle);
                self.settle();
                vec![("closed", ret)]
            }
            Step::Truncate(file, len) => {
                // Also since XFS of 7.3 loses what a direct write behind the end has written if the
                // file is made longer before that has ended, with kernel AIO, too.
                self.settle_if(|r| r.handle.file() == *file && !r.syncs());
                let ret = self.side.files.truncate(*file, *len);
                self.settle();
                vec![("truncated", ret)]
            }
            Step::Write(handle, len) => {
                self.settle();
                let ret = self.side.files.transfer(*handle, *len, None);
                self.settle();
                vec![("written", ret)]
            }
            Step::Read(handle, len) => {
                self.settle();
                let mut into = std::mem::take(&mut self.side.scratch);
                let ret = self.side.files.transfer(*handle, *len, Some(&mut into));
                let sum = into[..ret.max(0) as usize].iter().enumerate();
                let sum = sum.map(|(i, byte)| (i as i64 + 1) * i64::from(*byte)).sum();
                self.side.scratch = into;
                self.settle();
                vec![("read", ret), ("sum of that", sum)]
            }
            Step::Limit(size) => {
                self.settle();
                vec![("limited", sys::limit_files(*size))]
            }
        })
    }

    fn fd(&self, handle: Handle) -> u32 {
        self.side.files.fd(handle) as u32
    }

    fn prepare(&mut self, k: usize) -> Result<()> {
        let request = &self.sequence.requests[k];
        let mut iocb = iocb {
            aio_data: data_of(k),
            aio_key: request.key,
            aio_rw_flags: request.rw_flags as i32,
            aio_lio_opcode: request.opcode,
            aio_reqprio: request.priority as i16,
            aio_fildes: self.fd(request.handle),
            aio_offset: request.offset,
            aio_reserved2: request.reserved,
            aio_flags: request.flags,
            ..iocb::default()
        };
        if let Some(handle) = request.notify {
            iocb.aio_flags |= flag::RESFD;
            iocb.aio_resfd = self.fd(handle);
            self.side.files.touch(handle.file());
        }
        if !request.polls() {
            self.side.files.touch(request.handle.file());
        }
        self.trace.requests[k].used = true;
        self.side.memory.prepare(k, request, iocb)
    }

    /// Prepares a request that was submitted before: a descriptor may have been
    /// closed, and its number may be that of another.
    fn renew(&mut self, k: usize) {
        let request = &self.sequence.requests[k];
        let notify = request.notify.map_or(0, |handle| self.fd(handle));
        let memory = &self.side.memory;
        memory.set_descriptors(k, self.fd(request.handle), notify);
    }

    fn submit(
        &mut self,
        context: Context,
        pointers: &[Pointer],
        place: Place,
        nr: i64,
    ) -> Result<i64> {
        let mut addresses = Vec::with_capacity(pointers.len());
        for pointer in pointers {
            if let Pointer::Request(k) = pointer {
                if self.trace.requests[*k].used {
                    self.renew(*k);
                } else {
                    self.prepare(*k)?;
                }
            }
            addresses.push(self.iocb(*pointer));
        }
        let array = self.side.memory.pointers(&addresses, place);
        let ctx = self.context(context);
        let mut taken = 0;
        loop {
            let rest = &pointers[taken as usize..];
            // Of what is in flight, and of the call.
            let meets = match usize::try_from(nr - taken) {
                Ok(left) => self.meets(&rest[..rest.len().min(left)]),
                Err(_) => None,
            };
            if meets == Some(0) {
                self.settle_and(false);
                continue;
            }
            let part = meets.map_or(nr - taken, |n| n as i64);
            let ret = match self.natives(rest, part) {
                Some(natives) => self.enter(ctx, &natives),
                None => self.side.peer.submit(ctx, part, array + taken as u64 * 8),
            };
            if ret > rest.len() as i64 {
                self.wrong(format!("{ret} of {} requests were taken", rest.len()));
                return Ok(ret);
            }
            for pointer in &rest[..ret.max(0) as usize] {
                if let Pointer::Request(k) = pointer {
                    self.took(*k);
                }
            }
            self.in_flight = true;
            if ret < 0 && taken == 0 {
                return Ok(ret);
            }
            taken += ret.max(0);
            if ret < part || meets.is_none() {
                return Ok(taken);
            }
        }
    }

    /// Does it go by raio's own call?
    fn is_native(&self, k: usize) -> bool {
        self.native.get(k).is_some_and(|native| *native)
    }

    /// The numbers of those, if they go by raio's own call.
    fn natives(&self, pointers: &[Pointer], nr: i64) -> Option<Vec<usize>> {
        let part = pointers.get(..usize::try_from(nr).ok()?)?;
        let native = |pointer: &Pointer| match pointer {
            Pointer::Request(k) if self.is_native(*k) => Some(*k),
            _ => None,
        };
        part.iter()
            .map(native)
            .collect::<Option<Vec<_>>>()
            .filter(|numbers| !numbers.is_empty())
    }

    /// Submits those by raio's own call, if it is to be so with what they are about
    /// registered, as far as that can be and makes no difference otherwise.
    fn enter(&mut self, ctx: u64, numbers: &[usize]) -> i64 {
        let peer = self.side.peer;
        let mut iocbs: Vec<_> = numbers
            .iter()
            .map(|k| self.side.memory.iocb_of(*k))
            .collect();
        let mut registered = Vec::new();
        let entries = iocbs.iter_mut().zip(numbers).enumerate();
        for (n, (iocb, k)) in entries.take(REGISTERED) {
            let request = &self.sequence.requests[*k];
            let moves = request.reads() || request.writes();
            if !plan::registers(self.sequence.seed) || !moves || iocb.aio_reserved2 != 0 {
                continue;
            }
            if request.handle.may_be_kept() && peer.set_file(ctx, n, iocb.aio_fildes as i32) {
                registered.push((n, true));
                iocb.aio_flags |= RAIO_IOCB_FIXED_FILE;
                iocb.aio_fildes = n as u32;
            }
            // No bytes at no address would be none, and what is registered is no memory for a
            // write that is not to be torn.
            if request.vectors.is_none()
                && request.rw_flags & libc::RWF_ATOMIC as u32 == 0
                && iocb.aio_nbytes > 0
                && peer.set_buffer(ctx, n, iocb.aio_buf, iocb.aio_nbytes)
            {
                registered.push((n, false));
                iocb.aio_flags |= RAIO_IOCB_FIXED_BUF;
                iocb.aio_reserved2 = n as u64;
            }
        }
        let seed = self.sequence.seed;
        let from = match &mut self.ring {
            Some(ring) if plan::shares(seed) && ring.handle == ctx && iocbs.len() <= SHARED => {
                self.trace.native[3] += iocbs.len() as u64;
                Iocbs::Shared(ring.share(&iocbs))
            }
            _ => Iocbs::At(iocbs.as_ptr().addr() as u64),
        };
        let time = self.side.memory.words(Words::Time, &[0, 0]);
        let ret = peer.enter(ctx, from, iocbs.len(), plan::looks(seed).then_some(time));
        for (n, is_file) in registered {
            let gone = match is_file {
                true => peer.set_file(ctx, n, -1),
                false => peer.set_buffer(ctx, n, 0, 0),
            };
            if !gone {
                self.wrong(format!("number {n} can't be registered no more"));
            }
        }
        let taken = ret.max(0) as usize;
        self.trace.native[0] += taken as u64;
        for iocb in &iocbs[..taken.min(iocbs.len())] {
            self.trace.native[1] += u64::from(iocb.aio_flags & RAIO_IOCB_FIXED_FILE != 0);
            self.trace.native[2] += u64::from(iocb.aio_flags & RAIO_IOCB_FIXED_BUF != 0);
        }
        // As kernel AIO does with what it takes, and looks at when it cancels.
        for k in numbers.iter().take(taken) {
            self.side.memory.set_key(*k, 0);
        }
        ret
    }

    /// The first of them that would meet one that is in flight, or one before it.
    fn meets(&mut self, pointers: &[Pointer]) -> Option<usize> {
        self.look();
        let flying = self.flying.iter().filter(|f| f.goes_on()).map(|f| f.k);
        let mut before: Vec<_> = flying.flat_map(|k| self.uses(k)).collect();
        for (n, pointer) in pointers.iter().enumerate() {
            let Pointer::Request(k) = pointer else {
                continue;
            };
            let request = &self.sequence.requests[*k];
            let meets = |(file, writes): &(File, bool)| {
                *file == request.handle.file() && (*writes || request.writes())
            };
            if before.iter().any(meets) {
                return Some(n);
            }
            if !request.polls() {
                before.extend(self.uses(*k));
            } else if let Some(handle) = request.notify {
                // It isn't waited for, but may be told of at the end of the call only.
                before.push((handle.file(), true));
            }
        }
        None
    }

    /// The files of a request, and whether it writes them.
    fn uses(&self, k: usize) -> impl Iterator<Item = (File, bool)> + use<> {
        let request = &self.sequence.requests[k];
        let counts = request.notify.map(|handle| (handle.file(), true));
        [(request.handle.file(), request.writes())]
            .into_iter()
            .chain(counts)
    }

    /// Waits, if something goes on that is like that; with kernel AIO it may have ended.
    fn settle_if(&mut self, is: impl Fn(&Request) -> bool) {
        self.look();
        let goes_on = |f: &Flying| f.goes_on() && is(&self.sequence.requests[f.k]);
        if self.flying.iter().any(goes_on) {
            self.settle_and(false);
        }
    }

    fn took(&mut self, k: usize) {
        let request: &Request = &self.sequence.requests[k];
        self.trace.requests[k].taken += 1;
        let poll = request.polls().then(|| {
            // SAFETY: the request was taken just now, so its file is open.
            let fd = unsafe { BorrowedFd::borrow_raw(self.fd(request.handle) as i32) };
            (fd.try_clone_to_owned(), request.len as i16)
        });
        let poll = match poll {
            None => None,
            Some((Ok(fd), events)) => Some((fd, events)),
            Some((Err(e), _)) => return self.wrong(format!("a poll of what isn't open: {e}")),
        };
        self.flying.push(Flying {
            k,
            done: false,
            notify: request.notified(),
            poll,
            due: false,
        });
    }

    /// Looks at the events that have come.
    fn look(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        let mut strays = Vec::new();
        while ring.posted % ring.nr != ring.word(TAIL).load(Ordering::Acquire) {
            let event = ring.event(ring.posted);
            ring.posted += 1;
            let flying = &mut self.flying;
            match flying
                .iter_mut()
                .find(|f| !f.done && data_of(f.k) == event.data)
            {
                Some(f) => {
                    f.done = true;
                    if let Some(n) = f.notify {
                        self.expected[n] += 1;
                    }
                }
                None => strays.push(format!("an event of no request: {event:x?}")),
            }
            if strays.len() > 3 {
                break;
            }
        }
        for stray in strays {
            self.wrong(stray);
        }
    }

    /// Reads what the eventfds have counted.
    fn count(&mut self) {
        for (n, handle) in [Handle::CountA, Handle::CountB].into_iter().enumerate() {
            if self.trace.counts[n] >= self.expected[n] {
                continue;
            }
            let mut count = 0u64;
            // SAFETY: an eventfd gives 8 bytes.
            let ret = unsafe { libc::read(self.side.files.fd(handle), (&raw mut count).cast(), 8) };
            if ret == 8 {
                self.trace.counts[n] += count;
                // Who polls it was told.
                for f in &mut self.flying {
                    let polls = self.sequence.requests[f.k].handle == handle;
                    if let (true, Some((_, events))) = (polls, &f.poll) {
                        f.due |= events & libc::POLLIN != 0;
                    }
                }
            }
        }
    }

    /// Has devices be asked for what has ended.
    fn ask(&self) {
        if let (true, Some(ring)) = (self.polls, &self.ring) {
            let time = self.side.memory.words(Words::Time, &[0, 0]);
            self.side.peer.ask(self.handle, ring.there() + 1, time);
        }
    }

    /// Waits until all have ended that can.
    fn settle(&mut self) {
        self.settle_and(true);
    }

    /// The same, and reads what the eventfds have counted, or leaves it there.
    fn settle_and(&mut self, read: bool) {
        let mut start = None;
        loop {
            self.ask();
            self.look();
            if read {
                self.count();
            }
            if self.ring.is_none() || !self.trace.wrong.is_empty() {
                break;
            }
            let missing = self.flying.iter_mut().position(|f| {
                if let Some((fd, events)) = &f.poll {
                    f.due = f.due || sys::ready(fd.as_raw_fd(), *events) != 0;
                    f.due && !f.done
                } else {
                    !f.done
                }
            });
            let counted = [Handle::CountA, Handle::CountB].into_iter().enumerate();
            let counted = counted.into_iter().all(|(n, handle)| {
                self.trace.counts[n] >= self.expected[n]
                    || !read && sys::ready(self.side.files.fd(handle), libc::POLLIN) != 0
            });
            if missing.is_none() && counted {
                break;
            }
            let start = *start.get_or_insert_with(Instant::now);
            if start.elapsed() > PATIENCE {
                self.wrong(match missing {
                    Some(i) => format!("request {} doesn't end", self.flying[i].k),
                    None => format!(
                        "eventfds have counted {:?}, not {:?}",
                        self.trace.counts, self.expected
                    ),
                });
                break;
            }
            thread::sleep(Duration::from_micros(20));
        }
        self.in_flight = false;
        for f in &mut self.flying {
            let handle = self.sequence.requests[f.k].handle;
            // In the middle of a step it depends on who is there to wait for.
            if read && f.poll.is_some() && !f.done && !self.waited.contains(&handle) {
                self.waited.push(handle);
            }
            // Whoever has it open otherwise may close it.
            if f.done {
                f.poll = None;
            }
        }
    }

    /// Notes an event that was taken out of the ring.
    fn note(&mut self, event: &io_event) {
        if let Some(ring) = &mut self.ring {
            ring.taken += 1;
        }
        let Some(i) = self
            .flying
            .iter()
            .position(|f| f.done && data_of(f.k) == event.data)
        else {
            return self.wrong(format!("an event that was not in the ring: {event:x?}"));
        };
        let k = self.flying.swap_remove(i).k;
        let expected = match self.is_native(k) {
            true => event.data,
            false => self.iocb(Pointer::Request(k)),
        };
        if event.obj != expected {
            self.wrong(format!(
                "obj of request {k} is {:#x}, not {expected:#x}",
                event.obj
            ));
        }
        let events = &mut self.trace.requests[k].events;
        events.push((event.res, event.res2));
        events.sort_unstable();
    }

    fn getevents(
        &mut self,
        context: Context,
        min_nr: Minimum,
        nr: i64,
        (room, place): (usize, Place),
        timeout: Timeout,
        mask: Mask,
    ) -> Fact {
        let waits = self.in_flight;
        let there = i64::from(self.ring.as_ref().map_or(0, Ring::there));
        let min_nr = match min_nr {
            Minimum::Number(n) => n,
            Minimum::There(more) => there + more,
        };
        let enough = waits || there >= min_nr;
        let memory = &self.side.memory;
        let timeout = match timeout {
            Timeout::Bad(bad) => memory.bad(bad),
            Timeout::Forever if enough => 0,
            Timeout::Time(s, ns) if enough || s == 0 => {
                memory.words(Words::Time, &[s as u64, ns as u64])
            }
            _ => memory.words(Words::Time, &[0, 0]),
        };
        let mask = match mask {
            Mask::None => None,
            Mask::Size(size) => Some((memory.words(Words::Mask, &[0]), size)),
            Mask::Bad(bad) => Some((memory.bad(bad), 8)),
        };
        let events = memory.results(room, place);
        let ctx = self.context(context);
        let args = GetEvents {
            ctx,
            min_nr,
            nr,
            events,
            timeout,
            mask,
        };
        let ret = self.side.peer.getevents(&args);
        self.look();
        if ret > 0 {
            let room = match place {
                Place::Good => room as i64,
                Place::Over => room as i64 - 1,
                _ => 0,
            };
            if ret > room {
                self.wrong(format!("{ret} events where there is no room"));
            } else {
                match self.side.memory.events(events, ret as usize) {
                    Ok(events) => events.iter().for_each(|event| self.note(event)),
                    Err(e) => self.wrong(e),
                }
            }
        }
        self.settle();
        ("got", ret)
    }

    /// Takes events out of the ring as a program does.
    fn reap(&mut self, most: u32) -> Vec<Fact> {
        let mut events = Vec::new();
        if let Some(ring) = &self.ring {
            let head = ring.word(HEAD);
            let first = head.load(Ordering::Relaxed);
            let n = ring.there().min(most);
            events.extend((0..n).map(|i| ring.event(first + i)));
            head.store((first + n) % ring.nr, Ordering::Release);
        }
        for event in &events {
            self.note(event);
        }
        vec![("reaped", events.len() as i64)]
    }

    fn reap_all(&mut self) {
        while self.ring.as_ref().is_some_and(|ring| ring.there() > 0) && self.trace.wrong.is_empty()
        {
            self.getevents(
                Context::Own,
                Minimum::Number(0),
                EVENTS as i64,
                (EVENTS, Place::Good),
                Timeout::Time(0, 0),
                Mask::None,
            );
        }
    }

    fn cancel(&mut self, context: Context, pointer: Pointer, key: Option<u32>) -> Vec<Fact> {
        // What is cancelled isn't written.
        self.settle_if(Request::writes);
        let ctx = self.context(context);
        let at = self.iocb(pointer);
        if let (Pointer::Request(k), Some(key)) = (pointer, key) {
            self.side.memory.set_key(k, key);
        }
        let ret = match pointer {
            // The key isn't looked at.
            Pointer::Request(k) if self.is_native(k) && self.side.memory.key(k) == 0 => {
                self.side.peer.cancel_native(ctx, data_of(k))
            }
            _ => self.side.peer.cancel(ctx, at),
        };
        if ret == -i64::from(libc::EINPROGRESS) {
            if let Pointer::Request(k) = pointer {
                self.trace.requests[k].cancelled += 1;
                match self
                    .flying
                    .iter_mut()
                    .find(|f| f.k == k && !f.done && !f.due)
                {
                    Some(f) => f.due = true,
                    None => self.wrong(format!("request {k} is cancelled but not in flight")),
                }
            }
        }
        self.settle();
        vec![("cancelled", ret)]
    }

    /// Cancels what would never end.
    fn cancel_all(&mut self) {
        if self.ring.is_none() {
            return;
        }
        // To cancel one may end others, which wait for the eventfd that it tells.
        while let Some(f) = self.flying.iter().find(|f| !f.done) {
            let k = f.k;
            self.side.memory.set_key(k, 0);
            let (_, ret) = self.cancel(Context::Own, Pointer::Request(k), None)[0];
            if ret != -i64::from(libc::EINPROGRESS) || !self.trace.wrong.is_empty() {
                return self.wrong(format!("request {k} waits but can't be cancelled: {ret}"));
            }
        }
    }

    fn setup(&mut self, nr_events: u32, word: Word) -> Vec<Fact> {
        let memory = &self.side.memory;
        let at = match word {
            Word::Zero => memory.words(Words::Handle, &[0]),
            Word::NonZero => memory.words(Words::Handle, &[self.handle]),
            Word::ReadOnly => memory.read_only_zero(),
            Word::Bad(bad) => memory.bad(bad),
        };
        let (ret, _) = self.side.peer.setup(nr_events, at, self.polls);
        let mut facts = vec![("set up", ret)];
        if ret == 0 {
            facts.push(("destroyed", self.side.peer.destroy(memory.handle())));
        }
        facts
    }

    fn destroy(&mut self, context: Context) -> Vec<Fact> {
        // Nor is what it cancels, and nobody tells of that.
        self.settle_if(|request| request.reads() || request.writes());
        let ctx = self.context(context);
        let ret = self.side.peer.destroy(ctx);
        if ret == 0 {
            self.ring = None;
            // It was waited for all of them.
            for f in self.flying.drain(..).filter(|f| !f.done) {
                if let Some(n) = f.notify {
                    self.expected[n] += 1;
                }
            }
        }
        self.settle();
        vec![("destroyed", ret)]
    }

    fn fill(&mut self) -> Result<Vec<Fact>> {
        self.settle();
        let Some(ring) = &self.ring else {
            return Ok(Vec::new());
        };
        if !self.flying.is_empty() || ring.there() > 0 {
            return Ok(Vec::new());
        }
        let iocb = iocb {
            aio_data: FILL,
            aio_fildes: self.fd(Handle::Null),
            ..iocb::default()
        };
        let at = self.side.memory.spare_iocb(iocb);
        let array = self.side.memory.pointers(&[at; FILL_BATCH], Place::Good);
        let mut n = 0;
        let last = loop {
            match self.side.peer.submit(self.handle, FILL_BATCH as i64, array) {
                taken if taken > 0 => n += taken,
                error => break error,
            }
        };
        let mut got = 0;
        loop {
            let args = GetEvents {
                ctx: self.handle,
                min_nr: 0,
                nr: EVENTS as i64,
                events: self.side.memory.results(EVENTS, Place::Good),
                timeout: self.side.memory.words(Words::Time, &[0, 0]),
                mask: None,
            };
            let ret = self.side.peer.getevents(&args);
            if ret <= 0 {
                break;
            }
            got += ret;
            let events = self.side.memory.events(args.events, ret as usize)?;
            if let Some(event) = events
                .iter()
                .find(|event| (event.obj, event.data, event.res, event.res2) != (at, FILL, 0, 0))
            {
                self.wrong(format!("an event in a full ring: {event:x?}"));
            }
        }
        if let Some(ring) = &mut self.ring {
            ring.posted += got as u32;
            ring.taken += got as u32;
        }
        if got != n {
            self.wrong(format!("{n} requests in a full ring, {got} events"));
        }
        let enough = n >= i64::from(self.sequence.nr_events);
        Ok(vec![
            ("slots", n),
            ("enough", enough.into()),
            ("full", last),
        ])
    }

    /// Ends everything that is left, except the context.
    fn end(&mut self) -> Result<()> {
        sys::limit_files(libc::RLIM_INFINITY);
        self.settle();
        self.cancel_all();
        self.reap_all();
        self.settle();
        if let (Some(what), true) = (
            self.ring.as_ref().and_then(Ring::looks_wrong),
            self.trace.wrong.is_empty(),
        ) {
            self.wrong(what);
        }
        if let Some(f) = self.flying.first() {
            let k = f.k;
            self.wrong(format!("request {k} has no event"));
        }
        for (n, handle) in [Handle::CountA, Handle::CountB].into_iter().enumerate() {
            let mut rest = Vec::new();
            sys::drain(self.side.files.fd(handle), &mut rest);
            if let Ok(count) = rest.try_into() {
                self.trace.counts[n] += u64::from_ne_bytes(count);
            }
        }
        // Raio's own call writes no key, but kernel AIO does, to what it refuses after that, too.
        let by_enter = match plan::enters(self.sequence.seed) {
            true => self.sequence.native(),
            false => Vec::new(),
        };
        for k in 0..self.sequence.requests.len() {
            if by_enter.get(k) != Some(&true) {
                self.trace.requests[k].key = self.side.memory.key(k);
            }
        }
        Ok(())
    }
}
