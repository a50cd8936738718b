// SPDX-License-Identifier: GPL-2.0
//! What a thread does, one operation after the other. Making an operation
//! uses random numbers and nothing else, and doing it uses none: so the
//! operations of a thread follow from its seed, whatever happens meanwhile.

use crate::{
    polled::PLACES,
    seed::{self, Random, Role},
};
use rand::{seq::SliceRandom, Rng, RngCore};

/// Contexts that the threads of a process share.
pub const SLOTS: u8 = 4;
/// Open files of the device that they share.
pub const FILES: u8 = 3;
/// Descriptors that an open file has in the beginning.
pub const DUPLICATES: u8 = 3;
/// Devices.
pub const DEVICES: u8 = 5;
/// The first so many of them are told what to do; the others end what has been submitted when they are
/// asked.
pub const TOLD: u8 = 4;
/// The first of them that is a disk.
pub const FIRST_DISK: u8 = 2;
/// Most buffers of a request.
pub const PIECES: usize = 4;
/// Bytes that requests are counted in.
pub const BLOCK: usize = 512;
/// Blocks of a device that are only read.
pub const READ_ONLY_BLOCKS: u16 = 512;
/// Pages of each device that a thread has for itself to write to.
pub const OWN_PAGES: u8 = 4;
/// Before so many nanoseconds an ambushed context ends.
pub const LONGEST_NAP: u32 = 400_000;
/// Most requests in a call.
pub const BATCH: usize = 16;
/// Pages that a disk which is resized has always, and at most.
pub const LEAST_PAGES: u8 = 16;
/// See [`LEAST_PAGES`].
pub const MOST_PAGES: u8 = 64;
/// Most pages of a request there.
pub const SPAN: usize = 4;
/// More syncs than a user has workers.
pub const MANY_SYNCS: usize = 160;

/// The size of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// What is asked for.
    pub nr_events: u32,
    /// How many requests there can be in it at once, here.
    pub entries: u16,
    /// Requests go there by raio's own call, and what they are about is registered.
    pub native: bool,
    /// Who waits asks the devices that can be asked.
    pub polled: bool,
}

/// A request that will be refused, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// No such operation: `EINVAL`.
    Opcode,
    /// No such flag: `EINVAL`.
    Flag,
    /// A reserved field isn't zero: `EINVAL`.
    Reserved,
    /// A position before the beginning: `EINVAL`.
    Position,
    /// No such descriptor: `EBADF`.
    Descriptor,
    /// A write to what was opened to be read: `EBADF`.
    ReadOnly,
    /// A buffer in the kernel: `EFAULT`.
    Buffer,
    /// The request itself is nowhere: `EFAULT`.
    Pointer,
}

/// How a request is made, whatever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// With a vector of so many buffers, or fewer if there are fewer blocks;
    /// without one if it is 0.
    pub pieces: u8,
    /// By the eventfd that is polled, too.
    pub counted: bool,
}

/// What a file is to be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// To be read.
    In,
    /// To be written.
    Out,
    /// One of both.
    Both,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads what everybody knows.
    Read {
        /// From which device.
        device: u8,
        /// The first block.
        block: u16,
        /// How many.
        blocks: u8,
        /// See there.
        how: How,
    },
    /// Writes one of the thread's own pages.
    Write {
        /// On which device.
        device: u8,
        /// Which of them.
        page: u8,
        /// See there.
        how: How,
    },
    /// Reads one of the thread's own pages.
    ReadBack {
        /// From which device.
        device: u8,
        /// Which of them.
        page: u8,
        /// See there.
        how: How,
    },
    /// Reads into memory that isn't there.
    Nowhere {
        /// From which device.
        device: u8,
    },
    /// Makes last what was written.
    Sync {
        /// To which disk.
        disk: u8,
        /// Only the data.
        data_only: bool,
    },
    /// Waits until a file is ready.
    Poll {
        /// Where it is.
        place: u16,
        /// For what.
        events: Events,
        /// See [`How`].
        counted: bool,
    },
    /// Does nothing.
    Noop,
    /// Will be refused.
    Bad(Bad),
}

/// A request to a disk that is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// It writes, to all what everybody knows.
    pub write: bool,
    /// The first page.
    pub page: u8,
    /// How many.
    pub pages: u8,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Not at all.
    Zero,
    /// So many nanoseconds.
    Nanoseconds(u32),
    /// Until something ends it.
    Endless,
}

/// What a set-up that will be refused asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSetup {
    /// No requests: `EINVAL`.
    Zero,
    /// More than there may be: `EINVAL`.
    TooMany,
    /// There is a handle already: `EINVAL`.
    NotZero,
    /// A handle that can't be read: `EFAULT`.
    Nowhere,
    /// One that can't be written, which is only seen in the end: `EFAULT`.
    ReadOnly,
}

/// What a forked process does, apart from finding out that the contexts
/// aren't its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// It ends.
    Exit,
    /// It closes the file, all descriptors of it.
    Close,
    /// It runs another program that inherits the file.
    Exec,
    /// It makes a context of its own, and leaves it behind with requests in
    /// flight.
    Leave,
    /// The same, but destroys it.
    Destroy,
    /// It stays for so many milliseconds.
    Stay(u8),
    /// It destroys a context of its own, and is killed while it waits for the
    /// requests.
    Abandon,
}

/// What is done to a file that is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It can be read, and hardly written.
    Fill,
    /// It can't be read, but written.
    Drain,
    /// Both, one after the other.
    Pulse,
    /// It is closed, and another one is where it was.
    Replace {
        /// Those that poll the old one are woken.
        woken: bool,
    },
}

/// Who gets the events of a private context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reap {
    /// The kernel copies them.
    Call,
    /// They are read from the ring.
    Ring,
    /// Nobody: the context ends before.
    Nobody,
}

/// How a private context ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It is destroyed.
    Destroy,
    /// The last descriptor of its file is closed.
    Close,
    /// Its ring is unmapped.
    Unmap,
}

/// What others do with a context that ends under them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prey {
    /// Look it up all the time.
    LookUp,
    /// Submit all the time.
    Submit,
    /// Wait for ever.
    Wait,
    /// The same, and it is seen to wait before the context ends.
    Sleep,
    /// Destroy it, too.
    Destroy,
    /// End its requests when they begin to be cancelled.
    Complete,
    /// Submit polls and cancel them all the time.
    Cancel,
    /// Make files ready whose polls are cancelled at the same time; then it
    /// ends.
    Ring,
    /// The same when they begin to be cancelled by its end.
    Wake,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a context; the one that was in the slot is destroyed.
    Setup {
        /// Where to put it.
        slot: u8,
        /// Of which file.
        file: u8,
        /// How large.
        size: Size,
    },
    /// Makes none.
    BadSetup {
        /// Of which file.
        file: u8,
        /// What is wrong.
        bad: BadSetup,
    },
    /// Submits requests.
    Submit {
        /// To which context.
        slot: u8,
        /// By which descriptor.
        via: u8,
        /// Them.
        requests: Vec<Request>,
    },
    /// A call that is refused as a whole: a negative number, no array.
    BadSubmit {
        /// To which context.
        slot: u8,
        /// Whether the number is what is wrong.
        negative: bool,
    },
    /// Reads events.
    GetEvents {
        /// Of which context.
        slot: u8,
        /// By which descriptor.
        via: u8,
        /// At least so many.
        min: u8,
        /// At most so many.
        max: u8,
        /// For how long.
        timeout: Timeout,
        /// Into memory that isn't there.
        nowhere: bool,
    },
    /// Does something to a file that is polled.
    Touch {
        /// Where it is.
        place: u16,
        /// What.
        touch: Touch,
    },
    /// Registers what requests are about anew, while they may be in flight.
    Replace {
        /// Of which context.
        slot: u8,
        /// By which descriptor.
        via: u8,
        /// Besides the buffer, by a descriptor that is closed at once.
        device: u8,
    },
    /// Reads from a disk that goes and comes with another size.
    Fleeting {
        /// It is asked for what has ended.
        polled: bool,
        /// So many requests.
        requests: u8,
    },
    /// Reads and writes a disk, and changes its size meanwhile.
    Resized {
        /// All is about what is registered.
        registered: bool,
        /// It is as large as it gets before.
        grows: bool,
        /// So large is the disk then.
        pages: u8,
        /// What is submitted.
        spans: Vec<Span>,
    },
    /// Cancels requests, whatever they are just now.
    Cancel {
        /// Of which context.
        slot: u8,
        /// By which descriptor.
        via: u8,
        /// From which on, modulo how many there are.
        first: u8,
        /// So many.
        times: u8,
        /// Only such as are in flight, or seem to be.
        flying: bool,
    },
    /// Submits more syncs than there are workers, and cancels them.
    Withdraw,
    /// Polls a file which a worker has to look at, and makes it ready.
    Look,
    /// Destroys a context that others may use, or have destroyed.
    Destroy {
        /// Which.
        slot: u8,
        /// By which descriptor.
        via: u8,
        /// Whether it stays in its slot, for others to be used.
        stays: bool,
        /// Once more.
        again: bool,
    },
    /// Uses a context by another file.
    Stranger {
        /// Which.
        slot: u8,
        /// By which file.
        file: u8,
    },
    /// Unmaps the ring, or a page of it.
    Unmap {
        /// Of which context.
        slot: u8,
        /// Only the last page.
        part: bool,
    },
    /// Moves the ring.
    Remap {
        /// Of which context.
        slot: u8,
    },
    /// Makes a process.
    Fork {
        /// With which file.
        file: u8,
        /// What it does.
        what: Fork,
    },
    /// Closes a descriptor of a file that others use. If it was the last,
    /// another file is opened in its place.
    Close {
        /// Which file.
        file: u8,
        /// Which descriptor.
        which: u8,
    },
    /// Makes a context that nobody else knows, uses it and ends it.
    Private {
        /// How large.
        size: Size,
        /// Waits in it before there is anything to wait for.
        vain: bool,
        /// What is submitted.
        requests: Vec<Request>,
        /// Cancels it.
        cancel: bool,
        /// Who gets the events.
        reap: Reap,
        /// How it ends.
        finish: Finish,
    },
    /// Makes a context that another thread uses, and ends it at a moment
    /// that is right for that.
    Ambush {
        /// What the other does.
        prey: Prey,
        /// What is submitted before.
        requests: Vec<Request>,
        /// After so many nanoseconds.
        nap: u32,
        /// On the other's processor.
        close: bool,
        /// How the context ends.
        finish: Finish,
        /// While the other's processor is interrupted all the time.
        storm: bool,
        /// So many, one after the other: in most the moment isn't met.
        times: u8,
    },
    /// Makes a context whose requests are cancelled by its end while the
    /// device ends them.
    Race {
        /// What the device says when it is asked to cancel one.
        cancel: &'static str,
    },
    /// Reads from a device that is told not to do all of it.
    Told {
        /// To fail, not to move less.
        fails: bool,
    },
    /// Goes to a processor.
    Move {
        /// Which, modulo how many there are.
        to: u8,
    },
    /// Does nothing for so many microseconds.
    Rest {
        /// How many.
        microseconds: u16,
    },
    /// Asks the module what it can do and has done.
    Ask {
        /// By which file.
        file: u8,
    },
}

/// One of `list`, each with its weight.
fn weighted<T: Copy>(random: &mut Random, list: &[(u32, T)]) -> T {
    let sum = list.iter().map(|(weight, _)| weight).sum();
    let mut n: u32 = random.random_range(0..sum);
    for (weight, item) in list {
        match n.checked_sub(*weight) {
            Some(rest) => n = rest,
            None => return *item,
        }
    }
    unreachable!("`n` is less than the sum")
}

fn one_of<T: Copy>(random: &mut Random, list: &[T]) -> T {
    list[random.random_range(0..list.len())]
}

fn several<T>(random: &mut Random, most: usize, one: fn(&mut Random) -> T) -> Vec<T> {
    let n = random.random_range(1..=most);
    (0..n).map(|_| one(random)).collect()
}

impl Size {
    fn random(random: &mut Random) -> Self {
        Self {
            nr_events: one_of(random, &[1, 1, 8, 100, 126, 127, 500, 2000]),
            entries: one_of(random, &[8, 24, 24, 160]),
            native: random.random(),
            polled: random.random_range(0..3) == 0,
        }
    }
}

impl How {
    /// With one buffer.
    pub const PLAIN: Self = Self {
        pieces: 0,
        counted: false,
    };

    fn random(random: &mut Random) -> Self {
        Self {
            pieces: weighted(random, &[(4, 0), (1, 1), (1, 2), (1, PIECES as u8)]),
            counted: random.random_range(0..8) == 0,
        }
    }
}

impl Request {
    fn good(random: &mut Random) -> Self {
        let device = weighted(random, &[(4, 0), (4, 1), (1, 2), (1, 3), (2, 4)]);
        let page = random.random_range(0..OWN_PAGES);
        let block = random.random_range(0..READ_ONLY_BLOCKS - 8);
        let blocks = random.random_range(1..=8);
        let how = How::random(random);
        match random.random_range(0..16) {
            0..5 => Self::Read {
                device,
                block,
                blocks,
                how,
            },
            5..8 => Self::Write { device, page, how },
            8..10 => Self::ReadBack { device, page, how },
            10 => Self::Sync {
                disk: random.random_range(FIRST_DISK..DEVICES),
                data_only: random.random(),
            },
            11 => Self::Noop,
            _ => Self::Poll {
                place: random.random_range(0..PLACES),
                events: one_of(random, &[Events::In, Events::In, Events::Out, Events::Both]),
                counted: random.random_range(0..4) == 0,
            },
        }
    }

    fn random(random: &mut Random) -> Self {
        const BAD: [Bad; 8] = [
            Bad::Opcode,
            Bad::Flag,
            Bad::Reserved,
            Bad::Position,
            Bad::Descriptor,
            Bad::ReadOnly,
            Bad::Buffer,
            Bad::Pointer,
        ];
        match random.random_range(0..100) {
            0..90 => Self::good(random),
            90..92 => Self::Nowhere {
                device: random.random_range(0..DEVICES),
            },
            _ => Self::Bad(one_of(random, &BAD)),
        }
    }
}

impl Span {
    fn random(random: &mut Random) -> Self {
        let pages = random.random_range(1..=SPAN as u8);
        Self {
            write: random.random(),
            page: random.random_range(0..=MOST_PAGES - pages),
            pages,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Setup,
    BadSetup,
    Submit,
    BadSubmit,
    GetEvents,
    Touch,
    Replace,
    Fleeting,
    Resized,
    Cancel,
    Withdraw,
    Look,
    Destroy,
    Stranger,
    Unmap,
    Remap,
    Fork,
    Close,
    Private,
    Ambush,
    Race,
    Told,
    Move,
    Rest,
    Ask,
}

/// How often each is done. A context that lives too long hides the end of
/// contexts, one that lives too short the rest.
const KINDS: [(u32, Kind); 25] = [
    (12, Kind::Setup),
    (2, Kind::BadSetup),
    (26, Kind::Submit),
    (1, Kind::BadSubmit),
    (20, Kind::GetEvents),
    (10, Kind::Touch),
    (6, Kind::Replace),
    (8, Kind::Fleeting),
    (4, Kind::Resized),
    (8, Kind::Cancel),
    (1, Kind::Withdraw),
    (2, Kind::Look),
    (8, Kind::Destroy),
    (2, Kind::Stranger),
    (2, Kind::Unmap),
    (7, Kind::Remap),
    (8, Kind::Fork),
    (4, Kind::Close),
    (8, Kind::Private),
    (42, Kind::Ambush),
    (9, Kind::Race),
    (8, Kind::Told),
    (3, Kind::Move),
    (2, Kind::Rest),
    (1, Kind::Ask),
];

impl Op {
    fn setup(random: &mut Random, slot: u8) -> Self {
        Self::Setup {
            slot,
            file: random.random_range(0..FILES),
            size: Size::random(random),
        }
    }

    /// The next operation.
    pub fn random(random: &mut Random) -> Self {
        let kind = weighted(random, &KINDS);
        let slot = random.random_range(0..SLOTS);
        let file = random.random_range(0..FILES);
        let via = random.random();
        match kind {
            Kind::Setup => Self::setup(random, slot),
            Kind::BadSetup => Self::BadSetup {
                file,
                bad: one_of(
                    random,
                    &[
                        BadSetup::Zero,
                        BadSetup::TooMany,
                        BadSetup::NotZero,
                        BadSetup::Nowhere,
                        BadSetup::ReadOnly,
                    ],
                ),
            },
            Kind::Submit => Self::Submit {
                slot,
                via,
                requests: several(random, BATCH, Request::random),
            },
            Kind::BadSubmit => Self::BadSubmit {
                slot,
                negative: random.random(),
            },
            Kind::GetEvents => {
                let max = random.random_range(0..=32);
                Self::GetEvents {
                    slot,
                    via,
                    // Now and then more than the most, which is an error.
                    min: random.random_range(0..=max + u8::from(max == 9)),
                    max,
                    timeout: match random.random_range(0..10) {
                        0..3 => Timeout::Zero,
                        3..5 => Timeout::Nanoseconds(random.random_range(1..1000)),
                        5..8 => Timeout::Nanoseconds(random.random_range(1000..20_000_000)),
                        _ => Timeout::Endless,
                    },
                    nowhere: random.random_range(0..30) == 0,
                }
            }
            Kind::Touch => Self::Touch {
                place: random.random_range(0..PLACES),
                touch: match random.random_range(0..8) {
                    0..2 => Touch::Fill,
                    2..4 => Touch::Drain,
                    4..7 => Touch::Pulse,
                    _ => Touch::Replace {
                        woken: random.random(),
                    },
                },
            },
            Kind::Replace => Self::Replace {
                slot,
                via,
                device: random.random_range(0..DEVICES),
            },
            Kind::Fleeting => Self::Fleeting {
                polled: random.random(),
                requests: random.random_range(1..=BATCH as u8),
            },
            Kind::Resized => Self::Resized {
                registered: random.random(),
                grows: random.random(),
                pages: random.random_range(LEAST_PAGES..=MOST_PAGES),
                spans: several(random, BATCH, Span::random),
            },
            Kind::Cancel => Self::Cancel {
                slot,
                via,
                first: random.random(),
                times: random.random_range(1..=8),
                flying: random.random_range(0..4) > 0,
            },
            Kind::Withdraw => Self::Withdraw,
            Kind::Look => Self::Look,
            Kind::Destroy => Self::Destroy {
                slot,
                via,
                stays: random.random(),
                again: random.random_range(0..4) == 0,
            },
            Kind::Stranger => Self::Stranger { slot, file },
            Kind::Unmap => Self::Unmap {
                slot,
                part: random.random_range(0..4) == 0,
            },
            Kind::Remap => Self::Remap { slot },
            Kind::Fork => Self::Fork {
                file,
                what: match random.random_range(0..14) {
                    0 => Fork::Exit,
                    1 => Fork::Close,
                    2..6 => Fork::Exec,
                    6 => Fork::Leave,
                    7 => Fork::Destroy,
                    8..13 => Fork::Abandon,
                    _ => Fork::Stay(random.random_range(1..30)),
                },
            },
            Kind::Close => Self::Close {
                file,
                which: random.random(),
            },
            Kind::Private => Self::Private {
                size: Size::random(random),
                vain: random.random(),
                requests: several(random, BATCH, Request::good),
                cancel: random.random_range(0..3) == 0,
                reap: one_of(random, &[Reap::Call, Reap::Ring, Reap::Nobody]),
                finish: one_of(
                    random,
                    &[
                        Finish::Destroy,
                        Finish::Destroy,
                        Finish::Close,
                        Finish::Unmap,
                    ],
                ),
            },
            Kind::Ambush => {
                let prey = weighted(
                    random,
                    &[
                        (10, Prey::LookUp),
                        (3, Prey::Submit),
                        (2, Prey::Wait),
                        (4, Prey::Sleep),
                        (5, Prey::Destroy),
                        (2, Prey::Cancel),
                        (2, Prey::Ring),
                        (2, Prey::Wake),
                    ],
                );
                let storm = prey == Prey::LookUp && random.random();
                // They have polls of their own.
                let rings = matches!(prey, Prey::Ring | Prey::Wake);
                Self::Ambush {
                    prey,
                    requests: if !rings && random.random_range(0..3) == 0 {
                        several(random, 4, Request::good)
                    } else {
                        Vec::new()
                    },
                    nap: random.random_range(1000..LONGEST_NAP),
                    // Who shall look it up is interrupted; the others are
                    // run at the same time as well.
                    close: prey == Prey::LookUp && !storm
                        || prey != Prey::LookUp
                            && prey != Prey::Destroy
                            && !rings
                            && random.random_range(0..3) == 0,
                    finish: match prey {
                        Prey::LookUp | Prey::Destroy | Prey::Ring => Finish::Destroy,
                        Prey::Cancel | Prey::Wake => {
                            one_of(random, &[Finish::Destroy, Finish::Close, Finish::Unmap])
                        }
                        _ => weighted(random, &[(7, Finish::Destroy), (1, Finish::Unmap)]),
                    },
                    storm,
                    times: match prey {
                        Prey::Destroy => 8,
                        Prey::LookUp if !storm => 8,
                        Prey::Ring | Prey::Wake => 2,
                        _ => 1,
                    },
                }
            }
            Kind::Race => Self::Race {
                cancel: one_of(random, &["yes", "refuse", "late"]),
            },
            Kind::Told => Self::Told {
                fails: random.random(),
            },
            Kind::Move => Self::Move { to: via },
            Kind::Rest => Self::Rest {
                microseconds: random.random_range(0..5000),
            },
            Kind::Ask => Self::Ask { file },
        }
    }
}

/// How a process ends if nobody kills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is waited for and destroyed.
    Orderly,
    /// It closes its files, with all that is in flight.
    Close,
    /// One thread ends the process while others do something.
    Exit,
    /// One thread runs another program while others do something.
    Exec,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many threads follow each other in each place.
    pub generations: u32,
    /// Operations of a thread.
    pub operations: u32,
    /// How it ends.
    pub ending: Ending,
    /// After how many milliseconds, if not when all is done.
    pub after: u32,
}

/// A round of processes: how those end that aren't killed. What is drawn
/// without looking may not come in half a minute; in a round each comes.
pub const ROUND: [Option<Ending>; 8] = [
    Some(Ending::Orderly),
    Some(Ending::Close),
    Some(Ending::Exit),
    Some(Ending::Exec),
    None,
    None,
    None,
    None,
];

/// The seed of child `number` under `seed`, and whether it is killed.
pub fn child(seed: u64, number: u64) -> (u64, bool) {
    let size = ROUND.len() as u64;
    let mut round = ROUND;
    round.shuffle(&mut seed::random(seed, Role::Round(number / size)));
    let ending = round[(number % size) as usize];
    let mut random = seed::random(seed, Role::Child(number));
    loop {
        let seed = random.next_u64();
        if ending.is_none_or(|ending| Plan::new(seed).ending == ending) {
            return (seed, ending.is_none());
        }
    }
}

impl Plan {
    /// The plan of the child with that seed.
    pub fn new(seed: u64) -> Self {
        let random = &mut seed::random(seed, Role::Process);
        Self {
            generations: random.random_range(1..=2),
            operations: random.random_range(20..=60),
            ending: weighted(
                random,
                &[
                    (3, Ending::Orderly),
                    (4, Ending::Close),
                    (2, Ending::Exit),
                    (2, Ending::Exec),
                ],
            ),
            after: random.random_range(50..2000),
        }
    }

    /// The operations of a thread of the child with that seed.
    pub fn operations(
        self,
        seed: u64,
        thread: u32,
        generation: u32,
    ) -> impl Iterator<Item = (u32, Op)> {
        let mut random = seed::random(seed, Role::Thread(thread, generation));
        (0..self.operations).map(move |n| match n {
            // Not every process lives until there is something to be shared.
            0 => (n, Op::setup(&mut random, (thread % u32::from(SLOTS)) as u8)),
            _ => (n, Op::random(&mut random)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::discriminant;

    fn ops(seed: u64, n: usize) -> Vec<Op> {
        let mut random = seed::random(seed, Role::Thread(0, 0));
        (0..n).map(|_| Op::random(&mut random)).collect()
    }

    #[test]
    fn a_seed_makes_the_same_operations() {
        assert_eq!(ops(1, 2000), ops(1, 2000));
        assert_ne!(ops(1, 20), ops(2, 20));
        let plan = Plan::new(5);
        assert_eq!(plan, Plan::new(5));
        let list = |thread| plan.operations(5, thread, 0).collect::<Vec<_>>();
        assert_eq!(list(1), list(1));
        assert_ne!(list(1), list(2));
    }

    #[test]
    fn every_round_has_every_ending() {
        for round in 0..20 {
            let mut list: Vec<_> = (0..8).map(|n| child(7, round * 8 + n)).collect();
            assert_eq!(
                list,
                (0..8).map(|n| child(7, round * 8 + n)).collect::<Vec<_>>()
            );
            list.retain(|(_, killed)| !killed);
            for ending in [Ending::Orderly, Ending::Close, Ending::Exit, Ending::Exec] {
                let so = |(seed, _): &&(u64, bool)| Plan::new(*seed).ending == ending;
                assert_eq!(list.iter().filter(so).count(), 1);
            }
        }
    }

    #[test]
    fn every_kind_comes() {
        let seen: std::collections::HashSet<_> = ops(1, 5000).iter().map(discriminant).collect();
        assert_eq!(seen.len(), KINDS.len());
    }

    #[test]
    fn numbers_are_within_bounds() {
        let check = |request: &Request| match *request {
            Request::Read {
                device,
                block,
                blocks,
                how,
            } => {
                assert!(device < DEVICES && blocks > 0 && usize::from(blocks) * BLOCK <= 4096);
                assert!(block + u16::from(blocks) <= READ_ONLY_BLOCKS);
                assert!(usize::from(how.pieces) <= PIECES);
            }
            Request::Write { device, page, how } | Request::ReadBack { device, page, how } => {
                assert!(device < DEVICES && page < OWN_PAGES);
                assert!(usize::from(how.pieces) <= PIECES);
            }
            Request::Nowhere { device } => assert!(device < DEVICES),
            Request::Sync { disk, .. } => assert!((FIRST_DISK..DEVICES).contains(&disk)),
            Request::Poll { place, .. } => assert!(place < PLACES),
            Request::Noop | Request::Bad(_) => {}
        };
        for op in ops(3, 5000) {
            match op {
                Op::Submit { slot, requests, .. } => {
                    assert!(slot < SLOTS && requests.len() <= BATCH);
                    requests.iter().for_each(check);
                }
                Op::Touch { place, .. } => assert!(place < PLACES),
                Op::Resized { spans, .. } => {
                    let end = |span: &Span| span.page + span.pages;
                    assert!(spans.iter().all(|span| end(span) <= MOST_PAGES));
                }
                Op::Private { requests, .. } => requests.iter().for_each(check),
                Op::Setup { slot, file, size } => {
                    assert!(slot < SLOTS && file < FILES && size.nr_events > 0);
                }
                _ => {}
            }
        }
    }
}
