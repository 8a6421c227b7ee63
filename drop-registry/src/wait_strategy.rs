//! How those who want a lock wait for it: spinning, or asleep.
//!
//! The lock word says the same in both cases, and it names the owner. They differ in what comes
//! after the word has changed: a spinning waiter sees that by itself, a sleeping one is owed a
//! wake-up.
#![expect(unsafe_code, reason = "gives locks up, for the living and for the dead")]

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::relax::RelaxStrategy;

use crate::arch;
use crate::owner_word::{OWNER, owner};
use crate::raw_lock::{OnDeath, RawLock};
use crate::wait_queue::Wake;
use crate::{
    CurrentLedger, Entry, Ledger, LedgerFull, Outcome, OwnLedger, Parker, Place, WaitQueue,
};

/// How waiters for a [`Mutex`](crate::Mutex), a [`RwLock`](crate::RwLock) or a
/// [`Channel`](crate::Channel) wait: by one of spin's relax strategies ([`Spin`](spin::Spin), the
/// default), or asleep by [`Park`]. Not for implementing.
pub trait WaitStrategy<L: CurrentLedger>: sealed::Sealed {
    /// Who waits, as far as the lock has to know.
    type Waiters: fmt::Debug + Send + Sync;
    /// Nobody.
    const NOBODY: Self::Waiters;
    /// Whether waiters sleep, and so are to be told when it is worth looking again.
    const SLEEPS: bool;

    /// Calls `attempt` until it returns something. `frame` is the stack pointer of whose wait it
    /// is.
    ///
    /// # Errors
    /// What `attempt` returns; or if waiting takes an entry, and the task's ledger is full.
    fn wait_until<T, E: From<LedgerFull>>(
        waiters: &Self::Waiters,
        frame: u64,
        attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E>;

    /// Makes a change that one of those who wait may wait for, and wakes one: also if the task dies
    /// as soon as it has made it. Returns what `change` does: whether it made it.
    ///
    /// # Errors
    /// If saying what is owed to the waiters takes an entry, and the task's ledger is full. Nothing
    /// has happened then.
    fn wake_one_after(
        waiters: &Self::Waiters,
        frame: u64,
        change: impl FnOnce() -> bool,
    ) -> Result<bool, LedgerFull>;

    /// Wakes all who wait, and unparks again those who were woken already: any number of times.
    fn wake_all(waiters: &Self::Waiters);

    /// Stores `value` into the word of a lock, which gives it up, and erases its entry.
    ///
    /// # Safety
    /// The task holds the lock of `word` and `waiters`, and its ledger lists it: at `place`, unless
    /// the entry has been moved.
    unsafe fn unlock(
        word: &AtomicU64,
        value: u64,
        waiters: &Self::Waiters,
        ledger: OwnLedger<'_, L>,
        place: Place,
    );

    /// Gives up a dead task's lock, and erases its entry, unless there is something to reclaim:
    /// [`Operations::release`](crate::Operations::release).
    ///
    /// The word names the owner, so that this is right however often it runs: a word that does not
    /// name the dead task is not touched.
    ///
    /// # Safety
    /// As [`Operations::release`](crate::Operations::release); the entry lists the word of a lock
    /// of this strategy.
    unsafe fn release<D: OnDeath>(ledger: &Ledger, entry: &Entry) -> Outcome;
}

mod sealed {
    pub trait Sealed {}
    impl<R: spin::relax::RelaxStrategy> Sealed for R {}
    impl<const WORDS: usize> Sealed for super::Park<WORDS> {}
}

impl<L: CurrentLedger, R: RelaxStrategy> WaitStrategy<L> for R {
    type Waiters = ();
    const NOBODY: () = ();
    const SLEEPS: bool = false;

    fn wait_until<T, E: From<LedgerFull>>(
        (): &(),
        _: u64,
        mut attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E> {
        loop {
            if let Some(result) = attempt() {
                return result;
            }
            R::relax();
        }
    }

    #[inline(always)]
    fn wake_one_after((): &(), _: u64, change: impl FnOnce() -> bool) -> Result<bool, LedgerFull> {
        Ok(change())
    }

    fn wake_all((): &()) {}

    #[inline(always)]
    unsafe fn unlock(
        word: &AtomicU64,
        value: u64,
        (): &(),
        ledger: OwnLedger<'_, L>,
        place: Place,
    ) {
        // SAFETY: this function's contract: the place is in the ledger of the task that locked.
        let Some(entry) = (unsafe { ledger.last_at(place, word.as_ptr().cast()) }) else {
            return unlock_out_of_order(word, value, ledger);
        };
        // SAFETY: the task holds the lock, and the last entry lists it; and that is null then.
        unsafe {
            arch::release_last(word, value, entry);
            ledger.drop_last(place);
        }
    }

    unsafe fn release<D: OnDeath>(ledger: &Ledger, entry: &Entry) -> Outcome {
        // SAFETY: this function's contract: the entry lists a live lock, so its word.
        let word = unsafe { AtomicU64::from_ptr(entry.resource().cast()) };
        let held = word.load(Ordering::Relaxed);
        if planted!(EraseFirst) {
            entry.erase();
        }
        let (left, is_dead_ones) = (D::word_after(held), held & OWNER == owner(ledger));
        // SAFETY: the word names the dead task as its owner, and `entry` is what says so in its
        // ledger. The exchange is a full barrier: Release for the next locker's Acquire, so that
        // what the dead task wrote before its freeze was acknowledged is visible to that one.
        let freed = is_dead_ones
            && unsafe {
                match D::RECLAIM {
                    None => arch::exchange(word, held, left, entry),
                    Some(_) => {
                        arch::exchange_owing(word, held, left, entry, RawLock::<L, R>::owed::<D>())
                    }
                }
            };
        if freed {
            return if D::RECLAIM.is_some() { Outcome::Orphaned } else { D::OUTCOME };
        }
        entry.erase();
        Outcome::Disowned
    }
}

#[cold]
#[inline(never)]
fn unlock_out_of_order<L: CurrentLedger>(word: &AtomicU64, value: u64, ledger: OwnLedger<'_, L>) {
    let entry =
        ledger.find(word.as_ptr().cast()).expect("a guard is dropped by the task that locked it");
    let held = word.load(Ordering::Relaxed);
    // SAFETY: the task holds the lock, and `entry` lists it.
    let released = unsafe { arch::exchange(word, held, value, entry) };
    assert!(released, "nobody else changes the word of a held lock");
    ledger.trim();
}

/// Waiters sleep, by the context's [`Parker`]: `Mutex<T, L, Park>`.
///
/// `WORDS` is that of the lock's [`WaitQueue`].
#[derive(Debug)]
pub struct Park<const WORDS: usize = 1>;

impl<L: Parker, const WORDS: usize> WaitStrategy<L> for Park<WORDS> {
    type Waiters = WaitQueue<L, WORDS>;
    #[expect(clippy::declare_interior_mutable_const, reason = "what every new lock begins with")]
    const NOBODY: Self::Waiters = WaitQueue::new();
    const SLEEPS: bool = true;

    fn wait_until<T, E: From<LedgerFull>>(
        waiters: &Self::Waiters,
        frame: u64,
        attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E> {
        waiters.wait(frame, attempt)
    }

    fn wake_one_after(
        waiters: &Self::Waiters,
        frame: u64,
        change: impl FnOnce() -> bool,
    ) -> Result<bool, LedgerFull> {
        let mut debt = waiters.owe(Wake::One, frame)?;
        let changed = change();
        if !changed {
            debt.wake = None;
        }
        Ok(changed)
    }

    fn wake_all(waiters: &Self::Waiters) {
        waiters.notify_all();
    }

    /// Not a window: until the wake-up has been given, the entry stands. Whether its task, should
    /// it die in between, still held the lock, is what the word says.
    #[inline]
    unsafe fn unlock(
        word: &AtomicU64,
        value: u64,
        waiters: &Self::Waiters,
        ledger: OwnLedger<'_, L>,
        _: Place,
    ) {
        // Who is not the owner is told so before it has done any harm.
        ledger.own(word.as_ptr().cast());
        // Release for the next owner's Acquire; and the waker's barrier (see `wait_queue`).
        word.swap(value, Ordering::SeqCst);
        waiters.notify_one();
        // Looked up again: to unpark may have moved it.
        ledger.own(word.as_ptr().cast()).erase();
        ledger.trim();
    }

    unsafe fn release<D: OnDeath>(ledger: &Ledger, entry: &Entry) -> Outcome {
        // SAFETY: this function's contract: the entry lists the word that a live lock of this
        // strategy begins with.
        let lock = unsafe { &*entry.resource().cast_const().cast::<RawLock<L, Self>>() };
        let word = lock.word.get();
        let held = word.load(Ordering::Relaxed);
        let left = D::word_after(held);
        // SeqCst as in `unlock`. It may have been given up before the task died, and the wake-up
        // not: the entry stood for that.
        let is_dead_ones = held & OWNER == owner(ledger);
        if D::RECLAIM.is_some() && is_dead_ones {
            let owed = RawLock::<L, Self>::owed::<D>();
            // SAFETY: the word names the dead task as its owner, and `entry` is what says so in its
            // ledger.
            if unsafe { arch::exchange_owing(word, held, left, entry, owed) } {
                // Who waits is woken under the operations that the entry has now.
                return Outcome::Orphaned;
            }
        }
        let freed = is_dead_ones
            && word.compare_exchange(held, left, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if freed || !planted!(UnlockForgetsWake) {
            lock.waiters.pass_on();
        }
        entry.erase();
        if freed { D::OUTCOME } else { Outcome::Released }
    }
}
