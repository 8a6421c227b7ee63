//! A value that is made once, by whoever comes first and lives to finish it.
//!
//! The lock word of the one who makes it is all that there is: free before, an owner while it is
//! made, and closed for good when it is done. The store that closes it is what makes the value one
//! that can be seen. So a death on the way leaves a free word and some memory that nobody looks at.
#![expect(unsafe_code, reason = "hands out references to a value that may not be there yet")]

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;

use spin::relax::Spin;

use crate::arch;
use crate::owner_word::{DONE, FREE, Refused};
use crate::raw_lock::{OnDeath, RawLock};
use crate::{CurrentLedger, Outcome, OwnLedger, ResourceKind, WaitError, WaitStrategy};

/// A place for a value that is made when it is first asked for.
///
/// Those who come while it is made wait, by `R`, as for a [`Mutex`](crate::Mutex). If the task that
/// makes it dies, or panics, the next one makes it anew. What had been made of the value until then
/// is forgotten: nobody looks at it, and what it owned is leaked, unless a ledger lists it.
///
/// Of the death of a task that *used* the value nobody is told here, and nobody need be. For the
/// others it is one that stands still in the middle of what it does, which a `Sync` value has to
/// bear; and no death gives anybody the value for himself, since nothing counts who uses it.
/// Whatever has the `Once` in it and does count ([`Shared`](crate::Shared),
/// [`RwLock`](crate::RwLock)) tells of the death before it gives out a `&mut`, or drops it.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger, Once};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// static DEVICES: Once<[u32; 2], Kernel> = Once::new();
///
/// assert!(DEVICES.get().is_none());
/// assert_eq!(DEVICES.call_once(|| [3, 4]), Ok(&[3, 4]));
/// assert_eq!(DEVICES.call_once(|| unreachable!("it is done")), Ok(&[3, 4]));
/// ```
pub struct Once<T, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    raw: RawLock<L, R>,
    /// Initialised if the word says [`DONE`].
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: one task makes the value, which another may drop, and all share it.
unsafe impl<T: Send + Sync, L: CurrentLedger, R: WaitStrategy<L>> Sync for Once<T, L, R> {}
// SAFETY: it owns the value.
unsafe impl<T: Send, L: CurrentLedger, R: WaitStrategy<L>> Send for Once<T, L, R> {}

/// The value has yet to be made, as if nobody had begun.
enum BeginAgain {}

impl OnDeath for BeginAgain {
    const KIND: ResourceKind = ResourceKind::Once;
    const OUTCOME: Outcome = Outcome::Released;

    fn word_after(_: u64) -> u64 {
        if planted!(DeathCompletes) { DONE } else { FREE }
    }
}

impl<T, L: CurrentLedger, R: WaitStrategy<L>> Once<T, L, R> {
    /// No value yet.
    pub const fn new() -> Self {
        Self { raw: RawLock::new(), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// The value, made by `make` if there is none yet, and nobody else lives to finish one.
    ///
    /// # Errors
    /// [`WaitError::Recursive`] inside `make` itself, for the same value; [`WaitError::LedgerFull`]
    /// if it takes an entry that there is no room for: to make the value takes one, and to wait
    /// asleep does. `make` is not called then.
    #[inline(always)]
    pub fn call_once(&self, make: impl FnOnce() -> T) -> Result<&T, WaitError> {
        match self.get() {
            Some(value) => Ok(value),
            None => self.make(make, arch::frame_address()),
        }
    }

    #[cold]
    #[inline(never)]
    fn make(&self, make: impl FnOnce() -> T, frame: u64) -> Result<&T, WaitError> {
        let ledger = OwnLedger::<L>::current();
        // Who has waited in vain, since it is done, hands the wake-up on: to the end of the queue.
        // SAFETY: the ledger is this task's; until the value is whole, nothing is lost if it dies.
        match unsafe { self.raw.take::<BeginAgain>(ledger, frame) } {
            Ok(_) => {}
            // SAFETY: nobody closes the word but below, once the value is there. The load that saw
            // it was an Acquire.
            Err(Refused::Closed) => return Ok(unsafe { self.value() }),
            Err(refused) => return Err(refused.into()),
        }
        let making = Making(self);
        let value = make();
        if planted!(DoneBeforeWhole) {
            // SAFETY: as below, but for what this is about.
            unsafe { self.raw.release_found(DONE) };
        }
        // SAFETY: the task holds the word, and nobody has a reference to a value that is not done.
        unsafe { (*self.value.get()).write(value) };
        core::mem::forget(making);
        if !planted!(DoneBeforeWhole) {
            // SAFETY: the task holds the word. The store is a Release, for whoever sees it.
            unsafe { self.raw.release_found(DONE) };
        }
        // SAFETY: the value is there.
        Ok(unsafe { self.value() })
    }

    /// The value, if there is one.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: it is done, so it is there.
        self.is_completed().then(|| unsafe { self.value() })
    }

    /// The value, if there is one, through an exclusive reference.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: it is done, so it is there, and borrowed exclusively.
        self.is_completed().then(|| unsafe { self.value.get_mut().assume_init_mut() })
    }

    /// Whether there is a value: if so, for ever.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.raw.word.is_done()
    }

    /// # Safety
    /// The word has said [`DONE`], to an Acquire of this task.
    unsafe fn value(&self) -> &T {
        // SAFETY: the value was there before the store that said so, and is never changed but
        // through an exclusive reference.
        unsafe { (*self.value.get()).assume_init_ref() }
    }
}

/// The calling task makes the value; dropping this, when a panic unwinds, lets the next one do it.
struct Making<'a, T, L: CurrentLedger, R: WaitStrategy<L>>(&'a Once<T, L, R>);

impl<T, L: CurrentLedger, R: WaitStrategy<L>> Drop for Making<'_, T, L, R> {
    fn drop(&mut self) {
        // SAFETY: the task holds the word, for this does not leave the function that took it.
        unsafe { self.0.raw.release_found(FREE) };
    }
}

/// # Panics
/// If another task is making the value, or this one is and the `Once` has been moved since. The panic
/// does not unwind.
impl<T, L: CurrentLedger, R: WaitStrategy<L>> Drop for Once<T, L, R> {
    fn drop(&mut self) {
        if self.is_completed() {
            // SAFETY: it is done, so it is there; dropped once, here.
            unsafe { self.value.get_mut().assume_init_drop() };
        } else {
            self.raw.word.retire::<L>();
        }
    }
}

impl<T, L: CurrentLedger, R: WaitStrategy<L>> Default for Once<T, L, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for Once<T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.describe_in(f.debug_struct("Once").field("value", &self.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use crate::{Ledger, Mutex};
    use core::cell::Cell;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    type TestOnce<T> = Once<T, TestTask>;

    /// Dies, as far as the ledger can tell: the frames below it are left as they are.
    fn die() -> ! {
        resume_unwind(std::boxed::Box::new(()))
    }

    #[test]
    fn the_first_makes_the_value_and_all_others_get_that() {
        let ledger = on_fresh_ledger(|_| {
            let mut once = TestOnce::new();
            assert!(once.get().is_none() && once.get_mut().is_none());
            assert_eq!(once.call_once(|| 1), Ok(&1));
            assert_eq!(once.call_once(|| 2), Ok(&1));
            *once.get_mut().unwrap() = 3;
            assert_eq!(once.get(), Some(&3));
        });
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_death_while_it_is_made_leaves_it_to_the_next() {
        let once = TestOnce::new();
        let outcomes = kill(|| {
            // SAFETY: this task's own ledger.
            let taken = unsafe { once.raw.take::<BeginAgain>(OwnLedger::current(), 0) };
            assert!(taken.is_ok());
            // SAFETY: the word is this task's.
            unsafe { (*once.value.get()).write([1, 2]) };
        });
        assert_eq!(outcomes, [Outcome::Released]);
        on_fresh_ledger(|_| {
            assert!(once.get().is_none());
            assert_eq!(once.call_once(|| [3, 3]), Ok(&[3, 3]));
        });
    }

    #[test]
    fn a_panic_while_it_is_made_leaves_it_to_the_next() {
        on_fresh_ledger(|ledger| {
            let once = TestOnce::<u8>::new();
            assert!(catch_unwind(AssertUnwindSafe(|| once.call_once(|| die()))).is_err());
            assert!(ledger.is_empty() && !once.is_completed());
            assert_eq!(once.call_once(|| 4), Ok(&4));
        });
    }

    #[test]
    fn asking_for_the_value_while_making_it_is_refused() {
        on_fresh_ledger(|_| {
            let once = TestOnce::new();
            let inner = Cell::new(None);
            assert_eq!(
                once.call_once(|| {
                    inner.set(Some(once.call_once(|| 1).copied()));
                    2
                }),
                Ok(&2)
            );
            assert_eq!(inner.get(), Some(Err(WaitError::Recursive)));
        });
    }

    #[test]
    fn a_full_ledger_refuses_to_make_it_but_not_to_get_it() {
        on_fresh_ledger(|_| {
            let (once, done) = (TestOnce::new(), TestOnce::new());
            done.call_once(|| 1).unwrap();
            let locks = [const { Mutex::<(), TestTask>::new(()) }; Ledger::CAPACITY];
            let guards = locks.each_ref().map(|lock| lock.lock().unwrap());
            assert_eq!(once.call_once(|| 1), Err(WaitError::LedgerFull));
            assert_eq!(done.call_once(|| 2), Ok(&1));
            drop(guards);
            assert_eq!(once.call_once(|| 3), Ok(&3));
        });
    }

    #[test]
    fn a_finished_value_is_dropped_once_and_a_half_made_one_never() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        struct Counts;
        impl Drop for Counts {
            fn drop(&mut self) {
                DROPS.fetch_add(1, Ordering::Relaxed);
            }
        }
        on_fresh_ledger(|_| {
            let once = TestOnce::new();
            once.call_once(|| Counts).unwrap();
            drop(once);
        });
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
        let once = TestOnce::<Counts>::new();
        kill(|| {
            // SAFETY: this task's own ledger.
            let taken = unsafe { once.raw.take::<BeginAgain>(OwnLedger::current(), 0) };
            assert!(taken.is_ok());
        });
        drop(once);
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }
}
