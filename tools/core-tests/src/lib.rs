// SPDX-License-Identifier: GPL-2.0
//! Host tests of the module's pure logic: the files of `rust/` that have
//! nothing of the kernel in them are compiled here a second time and tested
//! against models that are too slow or too simple for the kernel.

#[cfg(test)]
#[path = "../../../rust/abi/layout.rs"]
mod abi;
/// The plugin can't be linked without QEMU, so its tests are run here.
#[cfg(test)]
#[path = "../../count/src/decode.rs"]
mod decode;
#[cfg(test)]
#[path = "../../../rust/ring/layout.rs"]
mod ring;

#[cfg(test)]
mod tests {
    use crate::{
        abi::Plan,
        ring::{reaped, Layout, EVENT, PAGE},
    };
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const MAX: u32 = 1 << 20;

    #[test]
    fn no_ring_for_none_or_too_many() {
        assert_eq!(Layout::for_events(0, MAX), None);
        assert_eq!(Layout::for_events(MAX + 1, MAX), None);
        assert_eq!(Layout::for_events(u32::MAX, MAX), None);
        assert_eq!(Layout::for_events(u32::MAX, u32::MAX), None);
    }

    #[test]
    fn smallest_and_largest_ring() {
        let least = Layout::for_events(1, MAX).unwrap();
        assert_eq!((least.pages(), least.nr()), (1, 127));
        let most = Layout::for_events(MAX, MAX).unwrap();
        assert_eq!(most.pages(), 8193);
        assert!(most.capacity() >= MAX);
        let limit = (1 << 30) - 1;
        assert!(Layout::for_events(limit, limit).unwrap().capacity() >= limit);
    }

    #[test]
    fn a_ring_grows_by_a_page_when_it_must() {
        // 128 places in a page: the header, the events, the empty slot.
        assert_eq!(Layout::for_events(126, MAX).unwrap().pages(), 1);
        assert_eq!(Layout::for_events(127, MAX).unwrap().pages(), 2);
    }

    #[test]
    fn structures_grow_at_their_end() {
        let plan = |user| Plan::new(user, 16, 40).map(|plan| (plan.copy, plan.beyond));
        assert_eq!(plan(0), None);
        assert_eq!(plan(15), None);
        assert_eq!(plan(16), Some((16, 0)));
        assert_eq!(plan(40), Some((40, 0)));
        assert_eq!(plan(16383), Some((40, 16343)));
    }

    proptest! {
        #[test]
        fn every_slot_has_a_place_of_its_own(events in 1..5000u32) {
            let layout = Layout::for_events(events, MAX).unwrap();
            prop_assert!(layout.capacity() >= events);
            prop_assert_eq!(layout.bytes() % PAGE, 0);
            // Behind the header, one after the other, up to the end.
            let mut at = EVENT;
            for index in 0..layout.nr() {
                let (page, offset) = layout.slot(index);
                prop_assert_eq!(page * PAGE + offset, at);
                prop_assert!(offset + EVENT <= PAGE);
                at += EVENT;
            }
            prop_assert_eq!(at, layout.bytes());
        }

        #[test]
        fn indices_stay_in_the_ring(events in 1..=MAX, index: u32, by: u32) {
            let layout = Layout::for_events(events, MAX).unwrap();
            let nr = layout.nr();
            prop_assert_eq!(layout.clamp(index), index % nr);
            let (index, by) = (index % nr, by % (nr + 1));
            prop_assert_eq!(layout.advance(index, by), (index + by) % nr);
            prop_assert_eq!(layout.used(index, layout.advance(index, by)), by % nr);
        }

        #[test]
        fn runs_cover_what_is_there(events in 1..700u32, head: u32, used: u32, max: u32) {
            let layout = Layout::for_events(events, MAX).unwrap();
            let mut head = head % layout.nr();
            let tail = layout.advance(head, used % layout.nr());
            let max = max % (layout.nr() + 2);
            let mut left = layout.used(head, tail).min(max);
            while left > 0 {
                let run = layout.run(head, tail, left);
                prop_assert!(run.len > 0 && run.len <= left);
                prop_assert_eq!((run.page, run.offset), layout.slot(head));
                prop_assert!(run.offset + run.len as usize * EVENT <= PAGE);
                prop_assert!(run.page < layout.pages());
                head = layout.advance(head, run.len);
                left -= run.len;
            }
            prop_assert_eq!(layout.run(tail, tail, max).len, 0);
        }

        // The accounting of free slots against a queue: requests are claimed, posted and read, in
        // any order that user space may choose, over many laps.
        #[test]
        fn slots_are_neither_lost_nor_given_twice(
            events in 1..200u32,
            steps in prop::collection::vec((0..3u8, 1..300u32), 1..400),
        ) {
            let layout = Layout::for_events(events, MAX).unwrap();
            let mut ring = VecDeque::new();
            let (mut head, mut tail) = (0, 0);
            let (mut available, mut claimed, mut unread) = (layout.capacity(), 0, 0);
            for (what, n) in steps {
                match what {
                    0 => {
                        if available < n {
                            let seen = reaped(unread, layout.used(head, tail));
                            unread -= seen;
                            available += seen;
                        }
                        let take = n.min(available);
                        available -= take;
                        claimed += take;
                    }
                    1 => {
                        for _ in 0..n.min(claimed) {
                            ring.push_back(tail);
                            tail = layout.advance(tail, 1);
                            claimed -= 1;
                            unread += 1;
                        }
                    }
                    _ => {
                        for _ in 0..n.min(ring.len() as u32) {
                            prop_assert_eq!(ring.pop_front(), Some(head));
                            head = layout.advance(head, 1);
                        }
                    }
                }
                prop_assert_eq!(layout.used(head, tail) as usize, ring.len());
                prop_assert_eq!(available + claimed + unread, layout.capacity());
            }
        }

        // User space lies about where it is: the count never goes wrong by more than what the
        // kernel put there.
        #[test]
        fn a_lie_frees_no_more_than_was_posted(events in 1..200u32, unread: u32, head: u32, tail: u32) {
            let layout = Layout::for_events(events, MAX).unwrap();
            let unread = unread % layout.nr();
            let used = layout.used(layout.clamp(head), tail % layout.nr());
            prop_assert!(used <= layout.capacity());
            prop_assert!(reaped(unread, used) <= unread);
        }
    }
}
