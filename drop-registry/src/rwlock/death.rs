//! What becomes of a read-write lock whose reader or writer died.

use core::mem::offset_of;
use core::sync::atomic::Ordering;

use super::RwLock;
use crate::arch;
use crate::owner_word::{OWNER, OWNER_DIED, owner};
use crate::{
    CurrentLedger, Entry, Extent, Ledger, Operations, Outcome, OwnLedger, Place, ResourceKind,
    WaitStrategy,
};

/// What the settlement sees of a lock: its value is of another type, but `repr(C)` puts what comes
/// before that in the same place for all.
type AnyLock<L, R> = RwLock<(), L, R>;

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> RwLock<T, L, R> {
    /// A lock, whose count is what a reader's entry lists.
    const READER: Extent = Extent::around::<AnyLock<L, R>>(offset_of!(AnyLock<L, R>, readers));

    /// A task that reads.
    pub(super) const READS: &'static Operations = &Operations::releasing(
        ResourceKind::ReadLock,
        AnyLock::<L, R>::READER,
        release_reader::<L, R>,
    );

    /// A task that has stopped reading, and may have to wake a writer.
    const OWES: &'static Operations = &Operations::releasing(
        ResourceKind::ReadLock,
        AnyLock::<L, R>::READER,
        wake_for_dead::<L, R, false>,
    );

    /// The same, of a task that died while it read, so that the next writer is told.
    const OWES_DEAD: &'static Operations = &Operations::releasing(
        ResourceKind::ReadLock,
        AnyLock::<L, R>::READER,
        wake_for_dead::<L, R, true>,
    );

    /// A task that waits for the readers to leave, and has not written yet.
    pub(super) const DRAINS: &'static Operations = &Operations::releasing(
        ResourceKind::WriteLock,
        Extent::of::<AnyLock<L, R>>(),
        release_writer::<L, R, false>,
    );

    /// A task that writes.
    pub(super) const WRITES: &'static Operations = &Operations::releasing(
        ResourceKind::WriteLock,
        Extent::of::<AnyLock<L, R>>(),
        release_writer::<L, R, true>,
    );

    /// Takes the calling task off the count, for waiters that sleep.
    pub(super) fn stop_reading(&self, ledger: OwnLedger<'_, L>) {
        let entry = ledger.own(self.as_read_resource());
        // SAFETY: the entry lists one reader, and is the calling task's. The decrement is the
        // waker's barrier.
        unsafe { arch::decrement_owing(self.readers.get(), entry, Self::OWES) };
        // Nobody but a writer that owns the word waits for readers to leave.
        if self.word.is_owned() {
            R::wake_all(&self.waiters);
        }
        // Looked up again: to unpark may have moved it. It is still the innermost.
        ledger.own(self.as_read_resource()).erase();
        ledger.trim();
    }

    /// Takes the calling task off the count, if its entry is not the last one of its ledger.
    #[cold]
    #[inline(never)]
    pub(super) fn stop_reading_out_of_order(&self, ledger: OwnLedger<'_, L>, place: Place) {
        let entry = ledger.own_at(place, self.as_read_resource());
        // SAFETY: the entry lists one reader, and is the calling task's.
        unsafe { arch::decrement_erasing(self.readers.get(), entry) };
        ledger.trim();
    }
}

/// # Safety
/// The entry lists a reader of a live lock of this strategy.
unsafe fn lock_read<L: CurrentLedger, R: WaitStrategy<L>>(entry: &Entry) -> *const AnyLock<L, R> {
    entry.resource().wrapping_byte_sub(offset_of!(AnyLock<L, R>, readers)).cast_const().cast()
}

/// Takes a dead reader off the count, and sees to it that the next writer is told, unless the value
/// is one that no reader can tear.
unsafe fn release_reader<L: CurrentLedger, R: WaitStrategy<L>>(
    ledger: &Ledger,
    entry: &Entry,
) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists a reader of a live lock.
    let lock = unsafe { &*lock_read::<L, R>(entry) };
    let readers = &lock.readers;
    if readers.count() == 0 {
        entry.erase();
        return Outcome::Disowned;
    }
    let tells = lock.tells_of_readers != 0;
    let marked_late = planted!(ReaderMarkedLate);
    // Before the decrement: so whoever finds the reader gone finds the mark; and a settler that
    // dies in between, or its successor, sets it once more, which changes nothing.
    if tells && !marked_late {
        readers.mark();
    }
    let outcome = if R::SLEEPS {
        let owes = if tells { AnyLock::<L, R>::OWES_DEAD } else { AnyLock::<L, R>::OWES };
        // SAFETY: the entry lists one reader, and nobody else changes it now. It has taken on these
        // operations then.
        unsafe {
            arch::decrement_owing(readers.get(), entry, owes);
            (owes.release)(ledger, entry)
        }
    } else {
        // SAFETY: the entry lists one reader, and nobody else changes it now.
        unsafe { arch::decrement_erasing(readers.get(), entry) };
        dead_reader(tells)
    };
    if tells && marked_late {
        readers.mark();
    }
    outcome
}

/// Wakes whoever waited for a reader to leave, which has died since, or before.
unsafe fn wake_for_dead<L: CurrentLedger, R: WaitStrategy<L>, const READING: bool>(
    _: &Ledger,
    entry: &Entry,
) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists what was a reader of a live lock.
    let lock = unsafe { &*lock_read::<L, R>(entry) };
    if !planted!(ReaderForgetsWake) {
        R::wake_all(&lock.waiters);
    }
    entry.erase();
    dead_reader(READING)
}

/// What is reported of a dead reader whose death is told of, or is not.
fn dead_reader(told: bool) -> Outcome {
    if told { Outcome::OwnerDied } else { Outcome::Released }
}

/// Frees a dead writer's lock, if it still held it; with the mark, if it may have written.
///
/// The word names the owner, so that this is right however often it runs: a word that does not
/// name the dead task is not touched.
unsafe fn release_writer<L: CurrentLedger, R: WaitStrategy<L>, const WROTE: bool>(
    ledger: &Ledger,
    entry: &Entry,
) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists the word of a live lock, which it begins with.
    let lock = unsafe { &*entry.resource().cast_const().cast::<AnyLock<L, R>>() };
    let word = lock.word.get();
    let held = word.load(Ordering::Relaxed);
    let mark = if WROTE { OWNER_DIED } else { held & OWNER_DIED };
    let released = if WROTE { Outcome::OwnerDied } else { Outcome::Released };
    let is_dead_ones = held & OWNER == owner(ledger);
    if R::SLEEPS {
        // SeqCst: Release for whoever comes in next, and the waker's barrier.
        let freed = is_dead_ones
            && word.compare_exchange(held, mark, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if freed || !planted!(WriterForgetsWake) {
            R::wake_all(&lock.waiters);
        }
        entry.erase();
        return if freed { released } else { Outcome::Released };
    }
    // SAFETY: the word names the dead task, and the entry is what says so in its ledger. The
    // exchange is a full barrier: Release for whoever comes in next.
    if is_dead_ones && unsafe { arch::exchange(word, held, mark, entry) } {
        return released;
    }
    entry.erase();
    Outcome::Disowned
}
