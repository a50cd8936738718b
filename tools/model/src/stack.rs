// SPDX-License-Identifier: GPL-2.0
//! `rust/request/stack.rs` with objects that two threads put on a stack while a third takes
//! what is there: each is taken once, and has what was written to it before it was put there.
//! (loom fails if that is read while it is written.)

use crate::stack::{Stack, Stacked};
use kernel::{leave_out, Without};
use loom::{cell::UnsafeCell, model::Builder, thread};
use std::{cell::Cell, ptr, ptr::NonNull, sync::Arc};

struct Object {
    next: Cell<*mut Object>,
    /// Of who has it.
    what: UnsafeCell<usize>,
}

impl Stacked for Object {
    unsafe fn below<'a>(this: NonNull<Self>) -> &'a Cell<*mut Self> {
        // SAFETY: alive, as the caller says.
        unsafe { &(*this.as_ptr()).next }
    }
}

/// A stack, and the objects, which stay.
struct Scene {
    stack: Stack<Object>,
    objects: [Object; 3],
}

// SAFETY: loom looks whether two threads use the same at once.
unsafe impl Send for Scene {}
// SAFETY: as above.
unsafe impl Sync for Scene {}

impl Scene {
    fn new() -> Self {
        Self {
            stack: Stack::new(),
            objects: std::array::from_fn(|_| Object {
                next: Cell::new(ptr::null_mut()),
                what: UnsafeCell::new(0),
            }),
        }
    }

    /// Puts these on it, the first on top.
    fn push(&self, which: &[usize]) {
        let at = |i: usize| NonNull::from(&self.objects[i]);
        for i in which {
            // SAFETY: loom looks whether anybody else has it.
            self.objects[*i]
                .what
                .with_mut(|what| unsafe { *what = i + 1 });
        }
        for pair in which.windows(2) {
            self.objects[pair[0]].next.set(at(pair[1]).as_ptr());
        }
        // SAFETY: they are ours, and stay.
        unsafe {
            self.stack
                .push_all(at(which[0]), at(which[which.len() - 1]))
        }
    }

    /// Takes all that are there, and returns a bit for each.
    fn take(&self) -> usize {
        let mut taken = 0;
        let mut next = self.stack.take_all();
        while let Some(this) = NonNull::new(next) {
            // SAFETY: as above.
            let what = unsafe { this.as_ref() }
                .what
                .with_mut(|what| unsafe { std::mem::take(&mut *what) });
            assert_ne!(what, 0, "taken twice");
            taken |= 1 << (what - 1);
            // SAFETY: it is ours.
            next = unsafe { Object::below(this) }.get();
        }
        taken
    }
}

fn model() {
    Builder::new().check(|| {
        let scene = Arc::new(Scene::new());
        let push = |which: &'static [usize]| {
            let scene = scene.clone();
            thread::spawn(move || scene.push(which))
        };
        let others = [push(&[0, 1]), push(&[2])];
        let taker = scene.clone();
        let early = thread::spawn(move || taker.take()).join().unwrap();
        for other in others {
            other.join().unwrap();
        }
        let late = scene.take();
        assert_eq!(
            (early | late, early & late),
            (0b111, 0),
            "lost, or taken twice"
        );
    });
}

#[test]
fn each_is_taken_once() {
    model();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn release_is_needed() {
    leave_out(Without::Release);
    model();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn acquire_is_needed() {
    leave_out(Without::Acquire);
    model();
}
