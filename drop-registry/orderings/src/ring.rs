//! A channel's ring.

use loom::sync::atomic::{AtomicU64, Ordering};

use crate::{Locked, Strength};

/// A cell of a ring: a word, and the number of its turn, which one instruction changes together.
///
/// loom has no exchange of two words. So both are in one here; and the number is once more beside
/// it, written a moment later, for whoever loads the two halves one after the other. That it may be
/// late is more than can happen there: what holds here holds there.
#[derive(Debug)]
struct Turn {
    both: Locked,
    number: AtomicU64,
    strength: Strength,
}

/// Where a cell's number is, beside its word.
const NUMBER: u32 = 32;

impl Turn {
    fn new(number: u64, strength: Strength) -> Self {
        let both = Locked::new(number << NUMBER, strength);
        Self { both, number: AtomicU64::new(number), strength }
    }

    /// `lock cmpxchg16b`: the windows `give` and `receive`.
    fn cmpxchg(&self, from: (u64, u64), to: (u64, u64)) -> bool {
        let done = self.both.cmpxchg(from.0 << NUMBER | from.1, to.0 << NUMBER | to.1);
        if done && to.0 != from.0 {
            self.number.store(to.0, Ordering::Release);
        }
        done
    }

    fn load_number(&self) -> u64 {
        self.number.load(self.strength.number)
    }

    fn load_word(&self) -> u64 {
        self.both.load() & ((1 << NUMBER) - 1)
    }
}

/// A ring of `CAPACITY` cells, whose items are words other than 0.
#[derive(Debug)]
pub struct Ring<const CAPACITY: usize> {
    cells: [Turn; CAPACITY],
    head: AtomicU64,
    tail: AtomicU64,
    strength: Strength,
}

impl<const CAPACITY: usize> Ring<CAPACITY> {
    /// Empty.
    pub fn new(strength: Strength) -> Self {
        let cells = core::array::from_fn(|n| Turn::new(n as u64, strength));
        Self { cells, head: AtomicU64::new(0), tail: AtomicU64::new(0), strength }
    }

    fn cell(&self, number: u64) -> &Turn {
        &self.cells[(number % CAPACITY as u64) as usize]
    }

    /// `Ring::put`. Who `dies` does so right after its window. Returns whether there was room.
    pub fn put(&self, item: u64, dies: bool) -> bool {
        loop {
            let tail = self.tail.load(self.strength.end);
            let cell = self.cell(tail);
            let number = cell.load_number();
            match cell.load_word() {
                _ if number < tail => return false,
                0 if number == tail => {
                    if cell.cmpxchg((tail, 0), (tail, item)) {
                        if !dies {
                            self.advance(&self.tail, tail);
                        }
                        return true;
                    }
                }
                _ => self.advance(&self.tail, tail),
            }
        }
    }

    /// `Ring::pull`. Who `dies` does so right after its window, and has the item.
    pub fn pull(&self, dies: bool) -> Option<u64> {
        loop {
            let head = self.head.load(self.strength.end);
            let cell = self.cell(head);
            let word = cell.load_word();
            if cell.load_number() != head {
                self.advance(&self.head, head);
                continue;
            }
            if word == 0 {
                return None;
            }
            if cell.cmpxchg((head, word), (head + CAPACITY as u64, 0)) {
                if !dies {
                    self.advance(&self.head, head);
                }
                return Some(word);
            }
        }
    }

    fn advance(&self, end: &AtomicU64, number: u64) {
        let next = number + 1;
        let _ = end.compare_exchange(number, next, self.strength.advance, Ordering::Relaxed);
    }
}
