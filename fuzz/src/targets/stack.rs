//! A small stack, any read of which is checked and counted.

use std::cell::Cell;

use task_model::{ReadError, StackBounds, StackMemory};

/// Where every [`Stack`] begins.
pub(super) const STACK: u64 = 0xffff_c900_0001_0000;

/// The words of every [`Stack`].
pub(super) const WORDS: usize = 64;

/// A stack at [`STACK`], with a guard page.
#[derive(Debug)]
pub(super) struct Stack {
    words: [u64; WORDS],
    reads: Cell<usize>,
}

impl Stack {
    /// A stack of these words, the first at its base.
    pub(super) const fn new(words: [u64; WORDS]) -> Self {
        Self { words, reads: Cell::new(0) }
    }

    /// How often it was read.
    pub(super) const fn reads(&self) -> usize {
        self.reads.get()
    }
}

impl StackMemory for Stack {
    fn bounds(&self) -> StackBounds {
        const BOUNDS: StackBounds =
            StackBounds::new(STACK, STACK + 8 * WORDS as u64, 0x1000).expect("it is not empty");
        BOUNDS
    }

    fn read_u64(&self, address: u64) -> Result<u64, ReadError> {
        self.reads.set(self.reads.get() + 1);
        if !self.bounds().contains(address, 8) {
            return Err(ReadError::OutOfStack(address));
        }
        if !address.is_multiple_of(8) {
            return Err(ReadError::Misaligned(address));
        }
        Ok(self.words[(address - STACK) as usize / 8])
    }
}
