//! A value that makes itself when it is first used.

use core::fmt;
use core::ops::Deref;

use spin::relax::Spin;

use crate::{CurrentLedger, Once, WaitError, WaitStrategy};

/// A [`Once`] that knows how to make its value.
///
/// `F` is [`Fn`], and not `FnOnce` as elsewhere: if the task that makes the value dies, another one
/// makes it anew.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Lazy, Ledger};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// static SQUARES: Lazy<[usize; 4], Kernel> = Lazy::new(|| core::array::from_fn(|n| n * n));
///
/// assert_eq!(SQUARES[3], 9);
/// ```
pub struct Lazy<T, L: CurrentLedger, R: WaitStrategy<L> = Spin, F = fn() -> T> {
    once: Once<T, L, R>,
    make: F,
}

impl<T, L: CurrentLedger, R: WaitStrategy<L>, F: Fn() -> T> Lazy<T, L, R, F> {
    /// A value that `make` is to make.
    pub const fn new(make: F) -> Self {
        Self { once: Once::new(), make }
    }

    /// The value, made if there is none yet.
    ///
    /// # Errors
    /// As [`Once::call_once`].
    #[inline(always)]
    pub fn force(this: &Self) -> Result<&T, WaitError> {
        this.once.call_once(&this.make)
    }

    /// The value, if there is one.
    #[inline]
    pub fn get(this: &Self) -> Option<&T> {
        this.once.get()
    }
}

/// # Panics
/// Where [`Lazy::force`] returns an error.
impl<T, L: CurrentLedger, R: WaitStrategy<L>, F: Fn() -> T> Deref for Lazy<T, L, R, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match Self::force(self) {
            Ok(value) => value,
            Err(error) => refused(error),
        }
    }
}

#[cold]
fn refused(error: WaitError) -> ! {
    panic!("a lazy value was not made: {error}")
}

impl<T: fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>, F> fmt::Debug for Lazy<T, L, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lazy").field(&self.once).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, on_fresh_ledger};
    use core::cell::Cell;

    #[test]
    fn it_is_made_when_it_is_first_used() {
        let ledger = on_fresh_ledger(|_| {
            let made = Cell::new(0);
            let lazy = Lazy::<_, TestTask, Spin, _>::new(|| {
                made.set(made.get() + 1);
                made.get()
            });
            assert!(Lazy::get(&lazy).is_none());
            assert_eq!((*lazy, *lazy), (1, 1));
            assert_eq!((Lazy::force(&lazy), Lazy::get(&lazy)), (Ok(&1), Some(&1)));
        });
        assert!(ledger.is_empty());
    }

    #[test]
    #[should_panic(expected = "a lazy value was not made: the task would wait for itself")]
    fn one_that_needs_itself_is_a_panic() {
        static LAZY: Lazy<u8, TestTask> = Lazy::new(|| *LAZY + 1);
        on_fresh_ledger(|_| assert_eq!(*LAZY, 0));
    }
}
