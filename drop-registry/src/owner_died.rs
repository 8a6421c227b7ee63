//! A lock that is held, with a value that may be torn.
#![expect(unsafe_code, reason = "replaces and reads values that may not be valid")]

use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr;

use zerocopy::FromBytes;

/// A guard that has its lock for itself: [`MutexGuard`](crate::MutexGuard) or
/// [`WriteGuard`](crate::WriteGuard). Not for implementing.
pub trait Exclusive: sealed::Sealed {}

pub(crate) mod sealed {
    /// What a lock does with a value that may be torn.
    pub trait Sealed {
        /// What the lock protects.
        type Value: ?Sized;
        /// The value, valid or not.
        fn value_ptr(&self) -> *mut Self::Value;
        /// Takes the mark of a death off the lock.
        fn clear_mark(&self);
        /// Unlocks for good: nobody will get the lock any more.
        fn give_up(self);
    }
}

impl<G: sealed::Sealed> Exclusive for G {}

/// A held lock whose last owner died holding it.
///
/// The value may be *torn*: a store of several instructions may have stopped between two of them.
/// So there is no way from here to a reference, but these:
/// - [`replace`](Self::replace) it, whatever its type: the old value is forgotten, not dropped;
/// - [`mark_consistent`](Self::mark_consistent), if every bit pattern of its type is valid
///   ([`FromBytes`]), after [`peek`](Self::peek) and [`update`](Self::update) as you like;
/// - [`assume_consistent`](Self::assume_consistent), which is unsafe, if you know better.
///
/// Dropping it gives the value up: the lock becomes
/// [`NotRecoverable`](crate::LockError::NotRecoverable).
#[must_use = "dropping it makes the lock not recoverable"]
pub struct OwnerDied<G: Exclusive> {
    guard: ManuallyDrop<G>,
}

impl<G: Exclusive> OwnerDied<G> {
    pub(crate) fn new(guard: G) -> Self {
        Self { guard: ManuallyDrop::new(guard) }
    }

    /// Declares the value whole, and holds the lock as usual.
    ///
    /// # Safety
    /// The value is valid for its type, although its last owner may have died in the middle of
    /// writing it.
    pub unsafe fn assume_consistent(self) -> G {
        let guard = self.into_guard();
        guard.clear_mark();
        guard
    }

    /// The value, valid or not; the lock is held, so nobody else uses it.
    pub fn as_mut_ptr(&mut self) -> *mut G::Value {
        self.guard.value_ptr()
    }

    fn into_guard(self) -> G {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used again and never dropped, so the guard has one owner.
        unsafe { ptr::read(&*this.guard) }
    }
}

impl<T, G: Exclusive<Value = T>> OwnerDied<G> {
    /// Puts a new value in the place of the old one, which is forgotten, and holds the lock as
    /// usual.
    ///
    /// What the old value owned is leaked: dropping it could follow a torn pointer.
    pub fn replace(self, value: T) -> G {
        let guard = self.into_guard();
        // SAFETY: the lock is held, so the place is ours; `write` does not look at what was there.
        unsafe { guard.value_ptr().write(value) };
        guard.clear_mark();
        guard
    }
}

impl<T: FromBytes, G: Exclusive<Value = T>> OwnerDied<G> {
    /// The value: valid, since every bit pattern of its type is, but perhaps half new, half old.
    pub fn peek(&self) -> &T {
        // SAFETY: the lock is held, and `FromBytes` makes any initialised bytes a valid `T`.
        unsafe { &*self.guard.value_ptr() }
    }

    /// The value, to be mended.
    pub fn update(&mut self) -> &mut T {
        // SAFETY: as in `peek`, and `&mut self` makes it exclusive.
        unsafe { &mut *self.guard.value_ptr() }
    }

    /// Declares the value consistent, and holds the lock as usual.
    pub fn mark_consistent(self) -> G {
        let guard = self.into_guard();
        guard.clear_mark();
        guard
    }
}

impl<G: Exclusive> Drop for OwnerDied<G> {
    fn drop(&mut self) {
        // SAFETY: `drop` runs once, and `into_guard` keeps it from running at all.
        unsafe { ManuallyDrop::take(&mut self.guard) }.give_up();
    }
}

impl<G: Exclusive> fmt::Debug for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerDied(..)")
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use crate::{LockError, Mutex};
    use std::boxed::Box;

    #[test]
    fn a_value_of_plain_bytes_can_be_read_mended_and_marked() {
        let lock = Mutex::<[u32; 2], TestTask>::new([1, 1]);
        kill(|| {
            let mut guard = lock.lock().unwrap();
            guard[0] = 2;
            core::mem::forget(guard);
        });
        on_fresh_ledger(|_| {
            let Err(LockError::OwnerDied(mut died)) = lock.lock() else { panic!("not told") };
            assert_eq!(died.peek(), &[2, 1]);
            died.update()[1] = 2;
            drop(died.mark_consistent());
            assert_eq!(*lock.lock().unwrap(), [2, 2]);
        });
    }

    #[test]
    fn the_old_value_is_not_dropped_when_it_is_replaced() {
        struct Torn(bool);
        impl Drop for Torn {
            fn drop(&mut self) {
                assert!(!self.0, "a torn value was dropped");
            }
        }
        let lock = Mutex::<Torn, TestTask>::new(Torn(false));
        kill(|| {
            let mut guard = lock.lock().unwrap();
            guard.0 = true;
            core::mem::forget(guard);
        });
        on_fresh_ledger(|_| {
            let Err(LockError::OwnerDied(died)) = lock.lock() else { panic!("not told") };
            drop(died.replace(Torn(false)));
            assert!(lock.lock().is_ok());
        });
    }

    #[test]
    fn who_knows_better_may_assume() {
        let lock = Mutex::<Box<u32>, TestTask>::new(Box::new(3));
        kill(|| core::mem::forget(lock.lock().unwrap()));
        on_fresh_ledger(|_| {
            let Err(LockError::OwnerDied(died)) = lock.lock() else { panic!("not told") };
            // SAFETY: the "dead" closure above wrote nothing.
            assert_eq!(**unsafe { died.assume_consistent() }, 3);
            assert!(lock.lock().is_ok());
        });
    }
}
