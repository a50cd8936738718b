// SPDX-License-Identifier: GPL-2.0
//! The differences between kernel AIO and raio that are intended. They are
//! listed in Documentation/testing.rst, too. Everything else is a failure.

use crate::{
    files::Handle,
    plan::{flag, op, Request, Step},
    run::{Fact, Outcome},
};
use libc::{EAGAIN, ECANCELED, EINPROGRESS, EINVAL};

/// Something that is different.
pub enum Case<'a> {
    /// What a step has returned.
    Fact {
        /// The step,
        step: &'a Step,
        /// and its request, if it has one.
        request: Option<&'a Request>,
        /// The answer of kernel AIO,
        kernel: Fact,
        /// and of raio.
        raio: Fact,
    },
    /// What a request has come to.
    Request {
        /// The request.
        request: &'a Request,
        /// Whether it was a [`Step::Alone`].
        alone: bool,
        /// With kernel AIO,
        kernel: &'a Outcome,
        /// and with raio.
        raio: &'a Outcome,
        /// Whether as many events were left unread on both sides, and some were.
        unread: bool,
        /// Whether its file counts the event of another that raio has cancelled.
        counts_cancelled: bool,
    },
}

/// A difference that is intended.
pub struct Intended {
    /// What it is called.
    pub name: &'static str,
    /// Why it is.
    pub reason: &'static str,
    /// How it is told from others.
    pub is: fn(&Case<'_>) -> bool,
}

const INVALID: i64 = -(EINVAL as i64);
const AGAIN: i64 = -(EAGAIN as i64);
const CANCELED: i64 = -(ECANCELED as i64);
const IN_PROGRESS: i64 = -(EINPROGRESS as i64);

/// `/proc/sys/fs/aio-max-nr`, where nobody has changed it.
const AIO_MAX_NR: u32 = 65_536;

/// All of them.
pub const INTENDED: [Intended; 13] = [
    Intended {
        name: "flags",
        reason: "a bit of aio_flags that means nothing is refused, not ignored, \
                 so that it can mean something one day",
        is: |case| {
            let (request, refused) = match alone(case) {
                Some(both) => both,
                None => return false,
            };
            request.flags & !(flag::RESFD | flag::IOPRIO) != 0 && refused == Refused::ByRaio
        },
    },
    Intended {
        name: "noop",
        reason: "IOCB_CMD_NOOP does nothing and ends with 0; kernel AIO doesn't know it",
        is: |case| {
            let (request, refused) = match alone(case) {
                Some(both) => both,
                None => return false,
            };
            request.opcode == op::NOOP
                && refused == Refused::ByKernel
                && ends_with(case, |r| r == 0)
        },
    },
    Intended {
        name: "queues",
        reason: "IOCB_CMD_POLL works on files with several wait queues; kernel AIO refuses those",
        is: |case| {
            let (request, refused) = match alone(case) {
                Some(both) => both,
                None => return false,
            };
            let ready = |res| res == CANCELED || res > 0 && res & !asked_for(request) == 0;
            request.polls() && refused == Refused::ByKernel && ends_with(case, ready)
        },
    },
    Intended {
        name: "vectors",
        reason: "more than 2^32 vectors are refused; kernel AIO drops the upper bits of their \
                 number",
        is: |case| {
            let (request, refused) = match alone(case) {
                Some(both) => both,
                None => return false,
            };
            let told = request.vectors.map_or(0, |vectors| vectors.told);
            told > u32::MAX.into() && refused == Refused::ByRaio
        },
    },
    Intended {
        name: "cancelled",
        reason: "a poll that is cancelled ends with ECANCELED, with kernel AIO as if it had \
                 nothing to tell",
        is: |case| match polled(case) {
            Some((kernel, raio, cancelled)) => cancelled > 0 && kernel == raio,
            None => false,
        },
    },
    Intended {
        name: "woken",
        reason: "a poll ends with what was asked for, not with all that it was woken for",
        is: |case| match polled(case) {
            Some((kernel, raio, cancelled)) => cancelled == 0 && kernel == raio,
            None => false,
        },
    },
    Intended {
        name: "asked",
        reason:
            "an epoll is asked by a worker what it is ready for; kernel AIO has what has woken it",
        is: |case| {
            let (kernel, raio) = match (case, polled(case)) {
                (Case::Request { request, .. }, Some((kernel, raio, 0)))
                    if polls_epoll(request) =>
                {
                    (kernel, raio)
                }
                _ => return false,
            };
            // It is ready to be read, which is two bits, of which one may have woken it.
            let more = i64::from(libc::POLLIN | libc::POLLRDNORM);
            let same = |(kernel, raio): (&(i64, i64), &(i64, i64))| {
                kernel.0 > 0 && kernel.0 & !raio.0 == 0 && raio.0 & !(kernel.0 | more) == 0
            };
            kernel.len() == raio.len() && kernel.iter().zip(&raio).all(same)
        },
    },
    Intended {
        name: "busy",
        reason: "io_cancel(2) of a request that goes on is EAGAIN, as its man page says; kernel \
                 AIO finds only what it can cancel",
        is: |case| match case {
            Case::Fact {
                step: Step::Cancel { .. },
                request: Some(request),
                kernel: (_, INVALID),
                raio: (_, AGAIN),
            } => !request.polls() || polls_epoll(request),
            _ => false,
        },
    },
    Intended {
        name: "waits",
        reason: "a read or an fsync that waits can be cancelled, and a poll that a worker asks for",
        is: |case| match case {
            Case::Fact {
                step: Step::Cancel { .. },
                request: Some(request),
                kernel: (_, INVALID),
                raio: (_, IN_PROGRESS),
            } => may_wait(request),
            Case::Request {
                request,
                kernel,
                raio,
                unread: some,
                ..
            } => {
                // Or it has read a part.
                let part =
                    |res| request.reads() && kernel.events.iter().any(|k| 0 < res && res < k.0);
                let others = only_raios(kernel, raio);
                let cancelled = others
                    .iter()
                    .filter(|event| event.0 == CANCELED || part(event.0))
                    .count();
                // Its event may be among those that nobody reads any more, and what is
                // another may be one that kernel AIO has left there.
                let left = |one: &Outcome| one.events.len() < one.taken as usize;
                let as_many = raio.events.len() == kernel.events.len();
                may_wait(request)
                    && raio.cancelled > 0
                    && (raio.cancelled as usize == cancelled || left(raio) && cancelled == 0)
                    && (others.len() == cancelled || left(kernel))
                    && kernel.cancelled == 0
                    && raio.taken == kernel.taken
                    && (as_many || *some)
            }
            Case::Fact { .. } => false,
        },
    },
    Intended {
        name: "counted",
        reason:
            "an eventfd has counted what was cancelled when that call returns, of which a poll \
                 is told; kernel AIO leaves it to a worker",
        is: |case| match case {
            Case::Request {
                request,
                kernel,
                raio,
                counts_cancelled,
                ..
            } => {
                let readable = |event: &(i64, i64)| event.0 & i64::from(libc::POLLIN) != 0;
                request.polls()
                    && *counts_cancelled
                    && kernel.taken == raio.taken
                    && kernel.cancelled > raio.cancelled
                    && kernel.events.len() == raio.events.len()
                    && raio.events.iter().any(readable)
            }
            Case::Fact { .. } => false,
        },
    },
    Intended {
        name: "order",
        reason: "requests end in any order, and so it is any of their events that are left \
                 unread when their context ends",
        is: |case| match case {
            Case::Request {
                kernel,
                raio,
                unread,
                ..
            } => {
                // One that was taken twice may have one of its events read.
                let (few, many) = match kernel.events.len() < raio.events.len() {
                    true => (&kernel.events, &raio.events),
                    false => (&raio.events, &kernel.events),
                };
                *unread
                    && kernel.taken == raio.taken
                    && kernel.cancelled == raio.cancelled
                    && few.len() < many.len()
                    && few.iter().all(|event| many.contains(event))
            }
            Case::Fact { .. } => false,
        },
    },
    Intended {
        name: "limit",
        reason: "a context may be as large as 2^20 requests, and there is a limit for each user \
                 instead of aio-max-nr",
        is: |case| match case {
            Case::Fact {
                step: Step::Setup { nr_events, .. },
                kernel: (_, AGAIN),
                raio: (_, raio),
                ..
            } => {
                let possible = *nr_events <= 1 << 20;
                *nr_events > AIO_MAX_NR && *raio == if possible { 0 } else { INVALID }
            }
            _ => false,
        },
    },
    Intended {
        name: "slots",
        reason: "how many more requests there is room for than nr_events; with kernel AIO that \
                 also depends on the processor",
        is: |case| match case {
            // That it is enough is a fact of its own.
            Case::Fact {
                kernel: ("slots", _),
                raio: ("slots", _),
                ..
            } => true,
            _ => false,
        },
    },
];

/// Is it a poll that a worker asks for?
fn polls_epoll(request: &Request) -> bool {
    request.polls() && request.handle == Handle::Epoll
}

/// Can it be cancelled while it waits, where kernel AIO is done with it in submit?
fn may_wait(request: &Request) -> bool {
    request.syncs() || request.reads() || polls_epoll(request)
}

/// The events of raio that kernel AIO hasn't.
fn only_raios(kernel: &Outcome, raio: &Outcome) -> Vec<(i64, i64)> {
    let mut kernel = kernel.events.clone();
    let is_one = |event: &&(i64, i64)| match kernel.iter().position(|k| k == *event) {
        Some(i) => {
            kernel.swap_remove(i);
            false
        }
        None => true,
    };
    raio.events.iter().filter(is_one).copied().collect()
}

#[derive(PartialEq, Eq)]
enum Refused {
    ByKernel,
    ByRaio,
}

/// A request that was made alone, and who has refused it.
fn alone<'a>(case: &Case<'a>) -> Option<(&'a Request, Refused)> {
    let (request, taken) = match *case {
        Case::Fact {
            step: Step::Alone(_),
            request: Some(request),
            kernel: (_, kernel),
            raio: (_, raio),
        } => match (kernel, raio) {
            (INVALID, 1) => (request, (0, 1)),
            // The kernel may have something else to say of it.
            (_, INVALID) => (request, (1, 0)),
            _ => return None,
        },
        Case::Request {
            request,
            alone: true,
            kernel,
            raio,
            ..
        } => (request, (kernel.taken, raio.taken)),
        _ => return None,
    };
    match taken {
        (0, 1) => Some((request, Refused::ByKernel)),
        (1, 0) => Some((request, Refused::ByRaio)),
        _ => None,
    }
}

/// What a poll may end with.
fn asked_for(request: &Request) -> i64 {
    request.len as i64 | i64::from(libc::POLLERR | libc::POLLHUP)
}

/// What the events of a poll come to if these differences are taken out, with
/// kernel AIO and with raio, and how many of them were cancelled. Nothing if
/// anything else is different.
#[allow(clippy::type_complexity)]
fn polled(case: &Case<'_>) -> Option<(Vec<(i64, i64)>, Vec<(i64, i64)>, u32)> {
    let Case::Request {
        request,
        kernel,
        raio,
        ..
    } = case
    else {
        return None;
    };
    let cancelled = raio
        .events
        .iter()
        .filter(|event| event.0 == CANCELED)
        .count() as u32;
    let same = (kernel.taken, kernel.cancelled, kernel.key) == (raio.taken, cancelled, raio.key);
    if !request.polls() || !same || raio.cancelled != cancelled {
        return None;
    }
    let plain = |events: &[(i64, i64)], f: fn(i64, i64) -> i64| {
        let mut events: Vec<_> = events
            .iter()
            .map(|(res, res2)| (f(*res, asked_for(request)), *res2))
            .collect();
        events.sort_unstable();
        events
    };
    let masked = plain(
        &kernel.events,
        |res, asked| if res > 0 { res & asked } else { res },
    );
    let plain = plain(&raio.events, |res, _| if res == CANCELED { 0 } else { res });
    Some((masked, plain, cancelled))
}

/// Whether raio's one event, if this is about it, is like that.
fn ends_with(case: &Case<'_>, is: impl Fn(i64) -> bool) -> bool {
    match case {
        Case::Fact { .. } => true,
        Case::Request { raio, .. } => match raio.events[..] {
            [(res, 0)] => is(res),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name() {
        for (i, one) in INTENDED.iter().enumerate() {
            assert!(!one.reason.is_empty());
            assert!(INTENDED[..i].iter().all(|other| other.name != one.name));
        }
    }

    /// Whether a read that came to these results, some of them once `cancelled`, is
    /// among what waits.
    fn waits(kernel: &[i64], raio: &[i64], cancelled: u32) -> bool {
        let outcome = |results: &[i64], cancelled| Outcome {
            taken: results.len() as u32,
            cancelled,
            events: results.iter().map(|res| (*res, 0)).collect(),
            ..Outcome::default()
        };
        let case = Case::Request {
            request: &Request::new(op::PREAD, Handle::Empty),
            alone: false,
            kernel: &outcome(kernel, 0),
            raio: &outcome(raio, cancelled),
            unread: false,
            counts_cancelled: false,
        };
        let one = INTENDED.iter().find(|one| (one.is)(&case));
        one.is_some_and(|one| one.name == "waits")
    }

    #[test]
    fn a_read_that_waits_is_cancelled() {
        assert!(waits(&[4096], &[CANCELED], 1));
        // It has read a part,
        assert!(waits(&[4096], &[1], 1));
        // and what it was the other time is not that,
        assert!(waits(&[1, 4096], &[CANCELED, 1], 1));
        assert!(waits(&[1, 4096], &[1, 1], 1));
        // but nobody has cancelled these.
        assert!(!waits(&[4096], &[-5], 0));
        assert!(!waits(&[4096], &[8192], 0));
        assert!(!waits(&[4096], &[1], 0));
        assert!(!waits(&[1, 4096], &[CANCELED, CANCELED], 1));
        assert!(!waits(&[1, 4096], &[1, 8192], 1));
    }

    #[test]
    fn nothing_else_is_intended() {
        let step = Step::Fill;
        let case = Case::Fact {
            step: &step,
            request: None,
            kernel: ("full", AGAIN),
            raio: ("full", INVALID),
        };
        assert!(INTENDED.iter().all(|one| !(one.is)(&case)));
    }
}
