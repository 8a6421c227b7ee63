//! How many read, and whether one of them died.

use core::sync::atomic::{AtomicU64, Ordering};

/// The number of readers, and a mark in a high bit: one died, and no writer has been told yet.
///
/// The mark is in the same word as the count, so that nobody pays for it: who comes in or leaves
/// adds or takes one, and a writer that finds nothing at all in the word has looked at both. It is
/// set before the dead reader is taken off, by another change of this word; so whoever sees that
/// the reader has gone sees the mark, whatever the CPU.
#[repr(transparent)]
pub(super) struct Readers(AtomicU64);

impl Readers {
    /// The mark. Each reader is an entry of 24 bytes in some ledger, so their number does not come
    /// up to it; and it is not the sign, by which the windows see an overflow.
    const DIED: u64 = 1 << 62;

    /// Nobody reads, and nobody died.
    pub(super) const fn none() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The word, for the windows.
    pub(super) const fn get(&self) -> &AtomicU64 {
        &self.0
    }

    /// How many read, or have come in to see whether they may: stale at once.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & !Self::DIED
    }

    /// Whether nobody reads, and nobody died who did.
    #[inline(always)]
    pub(super) fn are_none(&self) -> bool {
        // Acquire pairs with the readers' decrements.
        self.0.load(Ordering::Acquire) == 0
    }

    /// `None` while somebody reads; then whether one died.
    pub(super) fn have_left(&self) -> Option<bool> {
        // Acquire as in `are_none`.
        let word = self.0.load(Ordering::Acquire);
        (word & !Self::DIED == 0).then_some(word != 0)
    }

    /// Sets the mark, before a dead reader is taken off: any number of times.
    pub(super) fn mark(&self) {
        // Relaxed: what it has to be ordered with is the decrement of the same word.
        self.0.fetch_or(Self::DIED, Ordering::Relaxed);
    }

    /// Takes the mark off, for a writer that has put the value right.
    ///
    /// A reader that is marked meanwhile came in after the writer, and has seen nothing but that it
    /// may not read.
    pub(super) fn clear_mark(&self) {
        // Relaxed: the next writer's window on the other word comes after this one's unlock.
        self.0.fetch_and(!Self::DIED, Ordering::Relaxed);
    }

    /// Whether the mark is set: stale at once.
    pub(super) fn are_marked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::DIED != 0
    }
}
