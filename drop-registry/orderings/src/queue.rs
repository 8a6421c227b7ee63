//! Who sleeps, and who is woken.

use loom::sync::atomic::{AtomicU64, Ordering, fence};

use crate::Strength;

/// A task's two bits in one word of a queue; here there is one waiter, task 0.
#[derive(Debug)]
pub struct Queue {
    word: AtomicU64,
    strength: Strength,
}

const WAITING: u64 = 1;
const WOKEN: u64 = 1 << 32;

impl Queue {
    /// Nobody waits.
    pub fn new(strength: Strength) -> Self {
        Self { word: AtomicU64::new(0), strength }
    }

    /// `WaitQueue::enrol`.
    pub fn enrol(&self) {
        self.word.fetch_or(WAITING, Ordering::AcqRel);
        if self.strength.waiter_fence {
            fence(Ordering::SeqCst);
        }
    }

    /// `Enrolled::take_wake_up`.
    pub fn take_wake_up(&self) -> bool {
        let before = self.word.fetch_and(!WOKEN, Ordering::AcqRel);
        if self.strength.waiter_fence {
            fence(Ordering::SeqCst);
        }
        before & WOKEN != 0
    }

    /// The end of `Enrolled`.
    pub fn leave(&self) {
        self.word.fetch_and(!(WAITING | WOKEN), Ordering::AcqRel);
    }

    /// The end of `Debt`: the waker's barrier, and `notify_one`. Returns whom to unpark.
    pub fn notify_one(&self) -> bool {
        if self.strength.waker_fence {
            fence(Ordering::SeqCst);
        }
        let mut bits = self.word.load(Ordering::Acquire);
        while bits & WAITING != 0 && bits & WOKEN == 0 {
            match self.word.compare_exchange(
                bits,
                bits | WOKEN,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => bits = now,
            }
        }
        false
    }

    /// `pass_on`, by the settler of a waker. Returns whether to unpark: also who was woken already.
    pub fn pass_on(&self) -> bool {
        let woken = self.word.load(Ordering::Acquire) & WOKEN != 0;
        self.notify_one() || woken
    }
}
