//! Two tasks and a settler, in every order; and each ordering weakened, to see that it is missed.
#![expect(unsafe_code, reason = "values behind locks that are a model")]

mod counts;
mod locks;
mod places;
mod queue;
mod ring;

use loom::cell::UnsafeCell;

/// A value that one thread at a time may change. loom complains if two do.
struct Value(UnsafeCell<u64>);

// SAFETY: loom watches every access.
unsafe impl Sync for Value {}

impl Value {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn change(&self) {
        // SAFETY: loom watches it.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn read(&self) -> u64 {
        // SAFETY: loom watches it.
        self.0.with(|value| unsafe { *value })
    }
}

const ONE: u64 = 64;
const TWO: u64 = 128;
