//! A bit for each pair of tasks.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

/// Rows of bits, by number of the task. Every bit is set and cleared by one instruction, so whoever
/// dies over it has done so or not.
///
/// SeqCst throughout: who sets a bit and looks whether a task has ended, and who notes an end and looks
/// for bits, must not miss each other.
pub(super) struct Bits {
    words: Box<[AtomicU64]>,
    words_in_row: usize,
}

impl Bits {
    /// As many rows as columns.
    pub(super) fn square(side: usize) -> Self {
        let words_in_row = side.div_ceil(64);
        Self { words: (0..side * words_in_row).map(|_| AtomicU64::new(0)).collect(), words_in_row }
    }

    fn at(&self, row: u32, column: u32) -> Option<(&AtomicU64, u64)> {
        let word = column as usize / 64;
        if word >= self.words_in_row {
            return None;
        }
        let word = row as usize * self.words_in_row + word;
        Some((self.words.get(word)?, 1 << (column % 64)))
    }

    pub(super) fn set(&self, row: u32, column: u32) {
        if let Some((word, bit)) = self.at(row, column) {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Clears a bit, and says whether it was set.
    pub(super) fn take(&self, row: u32, column: u32) -> bool {
        let clear =
            |(word, bit): (&AtomicU64, u64)| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        self.at(row, column).is_some_and(clear)
    }

    /// The bits that are set in a row.
    pub(super) fn row(&self, row: u32) -> impl Iterator<Item = u32> {
        let first = row as usize * self.words_in_row;
        let words = self.words.iter().skip(first).take(self.words_in_row);
        words.zip((0..).step_by(64)).flat_map(|(word, base)| {
            let mut left = word.load(Ordering::SeqCst);
            core::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(base + bit)
            })
        })
    }
}
