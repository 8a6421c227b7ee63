//! What is measured: taking one resource and giving it back, with a touch of the value between.
//!
//! Ours and each peer do the same to the same type of value, and each stands on cache lines of its
//! own ([`Line`]).

use core::hint::black_box;
use std::sync::Arc;

use drop_registry::{CurrentLedger, Mutex, RollbackMutex, RwLock, Shared, Slot, TrackedHeap};

/// One resource, taken and given back.
pub(crate) trait Operation {
    /// Does it once. `inline(always)` in every implementation; [`Called`] is for the other case.
    fn run(&self);
}

/// What takes no time.
pub(crate) struct Nothing;

impl Operation for Nothing {
    #[inline(always)]
    fn run(&self) {}
}

/// An operation behind a call.
pub(crate) struct Called<'a, O>(pub(crate) &'a O);

impl<O: Operation> Operation for Called<'_, O> {
    #[inline(always)]
    fn run(&self) {
        #[inline(never)]
        fn call(operation: &impl Operation) {
            operation.run();
        }
        call(self.0);
    }
}

/// Shares its cache lines with nothing: two, for processors that fetch them in pairs.
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);

impl<O: Operation> Operation for Line<O> {
    #[inline(always)]
    fn run(&self) {
        self.0.run();
    }
}

impl<L: CurrentLedger> Operation for Mutex<u64, L> {
    #[inline(always)]
    fn run(&self) {
        *self.lock().unwrap() += 1;
    }
}

/// One word of several is changed.
impl<const WORDS: usize, L: CurrentLedger> Operation for Mutex<[u64; WORDS], L> {
    #[inline(always)]
    fn run(&self) {
        self.lock().unwrap()[0] += 1;
    }
}

/// One word of several is changed, and all are copied.
impl<const WORDS: usize, L: CurrentLedger> Operation for RollbackMutex<[u64; WORDS], L> {
    #[inline(always)]
    fn run(&self) {
        self.lock().unwrap()[0] += 1;
    }
}

impl Operation for spin::Mutex<u64> {
    #[inline(always)]
    fn run(&self) {
        *self.lock() += 1;
    }
}

impl Operation for std::sync::Mutex<u64> {
    #[inline(always)]
    fn run(&self) {
        *self.lock().unwrap() += 1;
    }
}

impl Operation for parking_lot::Mutex<u64> {
    #[inline(always)]
    fn run(&self) {
        *self.lock() += 1;
    }
}

impl<L: CurrentLedger> Operation for RwLock<u64, L> {
    #[inline(always)]
    fn run(&self) {
        black_box(*self.read().unwrap());
    }
}

impl Operation for spin::RwLock<u64> {
    #[inline(always)]
    fn run(&self) {
        black_box(*self.read());
    }
}

impl<L: TrackedHeap> Operation for Shared<u64, L> {
    #[inline(always)]
    fn run(&self) {
        black_box(*self.try_clone().unwrap());
    }
}

/// A share that is counted, because the task has no other: taken from what a slot owns.
pub(crate) struct FromSlot<L: TrackedHeap>(Slot<Shared<u64, L>>);

impl<L: TrackedHeap> FromSlot<L> {
    pub(crate) fn new() -> Self {
        let slot = Slot::new();
        slot.put(Shared::new(1).unwrap()).unwrap();
        Self(slot)
    }
}

impl<L: TrackedHeap> Operation for FromSlot<L> {
    #[inline(always)]
    fn run(&self) {
        black_box(*self.0.share().unwrap().unwrap());
    }
}

impl Operation for Arc<u64> {
    #[inline(always)]
    fn run(&self) {
        black_box(*Self::clone(self));
    }
}
