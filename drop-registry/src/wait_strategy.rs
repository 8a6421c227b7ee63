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
use crate::owner_word::{FREE, OWNER, OWNER_DIED, owner};
use crate::{
    CurrentLedger, Entry, Ledger, LedgerFull, Mutex, Operations, Outcome, Parker, ResourceKind,
    WaitQueue,
};

/// How waiters for a [`Mutex`] or a [`RwLock`](crate::RwLock) wait: by one of spin's relax strategies ([`Spin`](spin::Spin), the
/// default), or asleep by [`Park`]. Not for implementing.
pub trait WaitStrategy<L: CurrentLedger>: sealed::Sealed {
    /// Who waits, as far as the lock has to know.
    type Waiters: fmt::Debug + Send + Sync;
    /// Nobody.
    const NOBODY: Self::Waiters;
    /// Whether waiters sleep, and so are to be told when it is worth looking again.
    const SLEEPS: bool;
    /// What the entry of a held lock says.
    const HELD: &'static Operations;

    /// Calls `attempt` until it returns something. `frame` is the stack pointer of whose wait it is.
    ///
    /// # Errors
    /// What `attempt` returns; or if waiting takes an entry, and the task's ledger is full.
    fn wait_until<T, E: From<LedgerFull>>(
        waiters: &Self::Waiters,
        frame: u64,
        attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E>;

    /// Wakes all who wait, and unparks again those who were woken already: any number of times.
    fn wake_all(waiters: &Self::Waiters);

    /// Stores `value` into the word of a lock, which gives it up, and erases its entry.
    ///
    /// # Safety
    /// `ledger` is the calling task's own; the task holds the lock of `word` and `waiters`, and the
    /// ledger lists it with [`HELD`](Self::HELD).
    unsafe fn unlock(word: &AtomicU64, value: u64, waiters: &Self::Waiters, ledger: &Ledger);
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
    const HELD: &'static Operations = &Operations {
        kind: ResourceKind::Mutex,
        bytes: 0,
        release: release_spinning,
        reclaim: nothing,
    };

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

    fn wake_all((): &()) {}

    #[inline(always)]
    unsafe fn unlock(word: &AtomicU64, value: u64, (): &(), ledger: &Ledger) {
        match ledger.top(word.as_ptr().cast()) {
            // SAFETY: the task holds the lock, and the last entry lists it.
            Some(_) => unsafe { arch::release_top(word, value, ledger) },
            None => unlock_out_of_order(word, value, ledger),
        }
    }
}

#[cold]
#[inline(never)]
fn unlock_out_of_order(word: &AtomicU64, value: u64, ledger: &Ledger) {
    let entry =
        ledger.find(word.as_ptr().cast()).expect("a guard is dropped by the task that locked it");
    let held = word.load(Ordering::Relaxed);
    // SAFETY: the task holds the lock, and `entry` lists it.
    let released = unsafe { arch::exchange(word, held, value, entry) };
    debug_assert!(released, "nobody else changes the word of a held lock");
    ledger.trim();
}

/// Frees a dead task's lock and leaves the mark.
///
/// The word names the owner, so that this is right however often it runs: a word that does not
/// name the dead task is not touched.
unsafe fn release_spinning(ledger: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists a live mutex, so its word.
    let word = unsafe { AtomicU64::from_ptr(entry.resource().cast()) };
    let held = word.load(Ordering::Relaxed);
    if planted!(EraseFirst) {
        entry.erase();
    }
    let mark = if planted!(SilentRelease) { FREE } else { OWNER_DIED };
    // SAFETY: the word names the dead task as its owner, and `entry` is what says so in its
    // ledger. The exchange is a full barrier: Release for the next locker's Acquire, so that what
    // the dead task wrote before its freeze was acknowledged is visible to the one who is told.
    if held & OWNER == owner(ledger) && unsafe { arch::exchange(word, held, mark, entry) } {
        return Outcome::OwnerDied;
    }
    entry.erase();
    Outcome::Disowned
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
    const HELD: &'static Operations = &Operations {
        kind: ResourceKind::Mutex,
        bytes: 0,
        release: release_parking::<L, WORDS>,
        reclaim: nothing,
    };

    fn wait_until<T, E: From<LedgerFull>>(
        waiters: &Self::Waiters,
        frame: u64,
        attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E> {
        waiters.wait(frame, attempt)
    }

    fn wake_all(waiters: &Self::Waiters) {
        waiters.notify_all();
    }

    /// Not a window: until the wake-up has been given, the entry stands. Whether its task, should
    /// it die in between, still held the lock, is what the word says.
    #[inline]
    unsafe fn unlock(word: &AtomicU64, value: u64, waiters: &Self::Waiters, ledger: &Ledger) {
        let entry = ledger.own(word.as_ptr().cast());
        // Release for the next owner's Acquire; and the waker's barrier (see `wait_queue`).
        word.swap(value, Ordering::SeqCst);
        waiters.notify_one();
        entry.erase();
        ledger.trim();
    }
}

/// Frees a dead task's lock, if it still held it, leaves the mark, and wakes a waiter.
unsafe fn release_parking<L: Parker, const WORDS: usize>(
    ledger: &Ledger,
    entry: &Entry,
) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists a live mutex of this strategy. Its value is of
    // another type, but `repr(C)` puts what comes before that in the same place for all.
    let lock = unsafe { &*entry.resource().cast_const().cast::<Mutex<(), L, Park<WORDS>>>() };
    let held = lock.word.get().load(Ordering::Relaxed);
    let mut outcome = Outcome::Released;
    // SeqCst as in `unlock`. A word that does not name the dead task is not touched, so this is
    // right however often it runs.
    if held & OWNER == owner(ledger)
        && lock
            .word
            .get()
            .compare_exchange(held, OWNER_DIED, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    {
        outcome = Outcome::OwnerDied;
    }
    lock.waiters.pass_on();
    entry.erase();
    outcome
}

unsafe fn nothing(_: &Entry) -> Outcome {
    Outcome::Released
}
