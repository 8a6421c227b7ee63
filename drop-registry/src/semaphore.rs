//! So many at once.
#![expect(unsafe_code, reason = "gives permits up, for the living and for the dead")]

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch;
use crate::owner_word::forget_listed;
use crate::wait_queue::Wake;
use crate::{
    Entry, Extent, Ledger, LedgerFull, Operations, Outcome, OwnLedger, Parker, ResourceKind,
    WaitQueue,
};

/// A number of permits, each of which is with the semaphore or in some task's ledger.
///
/// A dead task's permits come back, each once, and wake those who wait for them. Nobody is told of
/// the death: a semaphore guards no value.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger, LedgerFull, Parker, Semaphore};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// # // SAFETY: one task, which is never unparked.
/// # unsafe impl Parker for Kernel {
/// #     const TASKS: usize = 1;
/// #     fn index(_: &Ledger) -> usize { 0 }
/// #     fn park() { unreachable!() }
/// #     fn unpark(_: usize) {}
/// # }
/// static CHANNELS: Semaphore<Kernel> = Semaphore::new(2);
///
/// let first = CHANNELS.acquire()?;
/// let second = CHANNELS.acquire()?;
/// assert!(CHANNELS.try_acquire().is_err());
/// drop(first);
/// assert_eq!(CHANNELS.available(), 1);
/// # drop(second);
/// # Ok::<(), LedgerFull>(())
/// ```
#[repr(C)]
pub struct Semaphore<L: Parker, const WORDS: usize = 1> {
    /// How many permits are available, in the low half; how many are in ledgers, in the high half.
    permits: AtomicU64,
    waiters: WaitQueue<L, WORDS>,
}

/// One permit that is in a ledger.
///
/// Neither half overflows: each of these has an entry, and so many ledgers no memory holds.
const ISSUED: u64 = 1 << 32;

fn available(permits: u64) -> u64 {
    permits & (ISSUED - 1)
}

fn issued(permits: u64) -> u64 {
    permits / ISSUED
}

/// Why [`Semaphore::try_acquire`] gave no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryAcquireError {
    /// All are taken.
    WouldBlock,
    /// The task's ledger has no room to say that it has one.
    LedgerFull,
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("all permits are taken"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl core::error::Error for TryAcquireError {}

impl From<LedgerFull> for TryAcquireError {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

/// Why [`Semaphore::add_permits`] added none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddPermitsError {
    /// There would be more than [`Semaphore::MAX_PERMITS`].
    TooMany,
    /// The task's ledger has no room to say that it owes the waiters a wake-up.
    LedgerFull,
}

impl fmt::Display for AddPermitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("more permits than a semaphore counts"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl core::error::Error for AddPermitsError {}

impl From<LedgerFull> for AddPermitsError {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

impl<L: Parker, const WORDS: usize> Semaphore<L, WORDS> {
    /// The most permits that can be available. The count has room for those that are taken.
    pub const MAX_PERMITS: u64 = (ISSUED - 1) >> 1;

    /// A permit that its task has.
    const PERMIT: &'static Operations = &Operations::releasing(
        ResourceKind::Permit,
        Extent::of::<Self>(),
        release_permit::<L, WORDS>,
    );

    /// A permit that its task has given back; a waiter is to be woken for it.
    const GIVEN_BACK: &'static Operations = &Operations::releasing(
        ResourceKind::Permit,
        Extent::of::<Self>(),
        wake_for_dead::<L, WORDS>,
    );

    /// A semaphore with this many permits.
    ///
    /// # Panics
    /// If that is more than [`Semaphore::MAX_PERMITS`].
    pub const fn new(permits: u64) -> Self {
        // What an entry lists.
        const { assert!(core::mem::offset_of!(Self, permits) == 0) };
        assert!(permits <= Self::MAX_PERMITS, "more permits than a semaphore counts");
        Self { permits: AtomicU64::new(permits), waiters: WaitQueue::new() }
    }

    /// Takes a permit, sleeping until there is one if need be.
    ///
    /// # Errors
    /// If the task's ledger is full: a permit takes one entry, and waiting for it another.
    #[inline(always)]
    pub fn acquire(&self) -> Result<Permit<'_, L, WORDS>, LedgerFull> {
        self.acquire_from(arch::frame_address())
    }

    /// Takes a permit, if there is one.
    ///
    /// # Errors
    /// If there is none, or the task's ledger is full.
    #[inline(always)]
    pub fn try_acquire(&self) -> Result<Permit<'_, L, WORDS>, TryAcquireError> {
        self.attempt(arch::frame_address())
    }

    /// How many permits are not taken: of use to a check or a report, and stale at once.
    pub fn available(&self) -> u64 {
        available(self.permits.load(Ordering::Relaxed))
    }

    /// Adds permits, and wakes waiters for them.
    ///
    /// # Errors
    /// If there would be too many, or the task's ledger is full; none is added.
    pub fn add_permits(&self, permits: u64) -> Result<(), AddPermitsError> {
        let mut debt = self.waiters.owe(Wake::All, arch::frame_address())?;
        // From here to the end a death wakes all, who then look for themselves.
        debt.wake = None;
        let sum = |there: u64| {
            let most = Self::MAX_PERMITS.checked_sub(available(there))?;
            (permits <= most).then(|| there + permits)
        };
        // SeqCst: the waker's barrier (see `wait_queue`).
        self.permits
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, sum)
            .map_err(|_| AddPermitsError::TooMany)?;
        (0..permits).all(|_| self.waiters.notify_one());
        Ok(())
    }

    fn acquire_from(&self, frame: u64) -> Result<Permit<'_, L, WORDS>, LedgerFull> {
        let attempt = || match self.attempt(frame) {
            Ok(permit) => Some(Ok(permit)),
            Err(TryAcquireError::LedgerFull) => Some(Err(LedgerFull)),
            Err(TryAcquireError::WouldBlock) => None,
        };
        if let Some(result) = attempt() {
            return result;
        }
        let ledger = OwnLedger::<L>::current();
        let _waiting = ledger.wait_for(self.permits.as_ptr().cast());
        self.waiters.wait(frame, attempt)
    }

    fn attempt(&self, frame: u64) -> Result<Permit<'_, L, WORDS>, TryAcquireError> {
        let ledger = OwnLedger::<L>::current();
        loop {
            // Relaxed: the exchange is the Acquire, for what was done with the permit before.
            let there = self.permits.load(Ordering::Relaxed);
            if available(there) == 0 {
                return Err(TryAcquireError::WouldBlock);
            }
            let left = there.wrapping_add(ISSUED - 1);
            let word = self.permits.as_ptr().cast();
            // SAFETY: taking one from the count is to have a permit in the sense of `PERMIT`.
            let taken = unsafe {
                ledger.record_by(|place| {
                    arch::claim(&self.permits, there, left, word, Self::PERMIT, place, frame)
                })
            }?;
            if taken.is_some() {
                return Ok(Permit { semaphore: self, not_send: PhantomData });
            }
        }
    }

    /// Gives a permit back, in the window in which its entry becomes the duty to wake a waiter.
    ///
    /// # Safety
    /// `entry` lists a permit of this semaphore; nobody else changes it meanwhile.
    unsafe fn give_back(&self, entry: &Entry) {
        loop {
            let there = self.permits.load(Ordering::Relaxed);
            let sum = there.wrapping_sub(ISSUED - 1);
            // SAFETY: one more available is one permit less with the task of `entry`. The exchange
            // is the Release, and the waker's barrier.
            if unsafe { arch::exchange_owing(&self.permits, there, sum, entry, Self::GIVEN_BACK) }
                || planted!(GivenBackOnce)
            {
                return;
            }
        }
    }

    /// Takes a permit away for good, in the window in which its entry is erased.
    ///
    /// # Safety
    /// As [`Semaphore::give_back`].
    unsafe fn take_away(&self, entry: &Entry) {
        loop {
            let there = self.permits.load(Ordering::Relaxed);
            let left = there.wrapping_sub(ISSUED);
            // SAFETY: one less in ledgers is one permit less with the task of `entry`.
            if unsafe { arch::exchange(&self.permits, there, left, entry) } {
                return;
            }
        }
    }
}

/// Takes permits that were forgotten (by [`core::mem::forget`]) out of the ledger that lists them.
///
/// # Panics
/// If another task has such a permit, or this one does and the semaphore has been moved since. The
/// panic does not unwind: some ledger lists what is about to go.
impl<L: Parker, const WORDS: usize> Drop for Semaphore<L, WORDS> {
    fn drop(&mut self) {
        let issued = issued(*self.permits.get_mut());
        if issued > 0 {
            forget_listed::<L>(self.permits.as_ptr().cast(), issued);
        }
    }
}

impl<L: Parker, const WORDS: usize> fmt::Debug for Semaphore<L, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("available", &self.available())
            .field("waiters", &self.waiters)
            .finish()
    }
}

/// One permit of a [`Semaphore`]; dropping it gives it back.
///
/// Not `Send`: the ledger that lists it is its task's own.
#[must_use = "the permit is given back when this is dropped"]
pub struct Permit<'a, L: Parker, const WORDS: usize = 1> {
    semaphore: &'a Semaphore<L, WORDS>,
    not_send: PhantomData<*mut ()>,
}

impl<L: Parker, const WORDS: usize> Permit<'_, L, WORDS> {
    /// Takes the permit away for good: neither a drop nor a death gives it back any more.
    ///
    /// One instruction decides it. Whoever is to have the permit instead gets one by
    /// [`Semaphore::add_permits`].
    pub fn forget(self) {
        let permit = core::mem::ManuallyDrop::new(self);
        let ledger = OwnLedger::current();
        // SAFETY: the entry lists this permit.
        unsafe { permit.semaphore.take_away(permit.entry(ledger)) };
        ledger.trim();
    }

    /// An entry for a permit of this semaphore: if the task has several, one is as good as another.
    fn entry<'l>(&self, ledger: OwnLedger<'l, L>) -> &'l Entry {
        ledger.own(self.semaphore.permits.as_ptr().cast())
    }
}

impl<L: Parker, const WORDS: usize> Drop for Permit<'_, L, WORDS> {
    fn drop(&mut self) {
        let ledger = OwnLedger::current();
        // SAFETY: the entry lists this permit.
        unsafe { self.semaphore.give_back(self.entry(ledger)) };
        self.semaphore.waiters.notify_one();
        // Looked up again: to unpark may have moved it. It is still the innermost.
        self.entry(ledger).erase();
        ledger.trim();
    }
}

impl<L: Parker, const WORDS: usize> fmt::Debug for Permit<'_, L, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit(..)")
    }
}

unsafe fn release_permit<L: Parker, const WORDS: usize>(ledger: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists a permit of a live semaphore.
    let semaphore = unsafe { &*entry.resource().cast_const().cast::<Semaphore<L, WORDS>>() };
    if issued(semaphore.permits.load(Ordering::Relaxed)) == 0 {
        entry.erase();
        return Outcome::Disowned;
    }
    // SAFETY: the entry is the dead task's, and nobody else changes it now.
    unsafe { semaphore.give_back(entry) };
    // SAFETY: the entry has taken on these operations, under the same conditions.
    unsafe { wake_for_dead::<L, WORDS>(ledger, entry) }
}

unsafe fn wake_for_dead<L: Parker, const WORDS: usize>(_: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: as in `release_permit`.
    let semaphore = unsafe { &*entry.resource().cast_const().cast::<Semaphore<L, WORDS>>() };
    if !planted!(PermitForgetsWake) {
        semaphore.waiters.pass_on();
    }
    entry.erase();
    Outcome::Released
}
