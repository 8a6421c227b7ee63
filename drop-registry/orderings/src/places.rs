//! Where something is put, and found.

use crate::{Locked, Strength};

/// A word that keeps a pointer: 0, or something to be used by who finds it.
#[derive(Debug)]
pub struct Place(Locked);

impl Place {
    /// Empty.
    pub fn new(strength: Strength) -> Self {
        Self(Locked::new(0, strength))
    }

    /// `Slot::put`.
    pub fn put(&self, word: u64) -> bool {
        self.0.cmpxchg(0, word)
    }

    /// `Slot::share`: what is there.
    pub fn look(&self) -> u64 {
        self.0.load()
    }
}

/// One word of a chunk with two blocks.
#[derive(Debug)]
pub struct Blocks(Locked);

impl Blocks {
    /// None is taken.
    pub fn new(strength: Strength) -> Self {
        Self(Locked::new(0, strength))
    }

    /// `Heap::claim`: a block's number.
    pub fn claim(&self) -> Option<usize> {
        loop {
            let taken = self.0.load_relaxed();
            let free = !taken & 0b11;
            let bit = free & free.wrapping_neg();
            if bit == 0 {
                return None;
            }
            if self.0.cmpxchg(taken, taken | bit) {
                return Some(bit.trailing_zeros() as usize);
            }
        }
    }

    /// `Heap::release`, by the owner or its settler.
    pub fn release(&self, block: usize) {
        loop {
            let taken = self.0.load_relaxed();
            if self.0.cmpxchg(taken, taken & !(1 << block)) {
                return;
            }
        }
    }
}
