//! The C library's mutexes.
#![expect(unsafe_code, reason = "calls the C library")]

use core::cell::UnsafeCell;

use crate::operation::Operation;

/// A value behind a `pthread_mutex_t`.
pub(crate) struct Pthread {
    /// In a box, for it must not move.
    mutex: Box<UnsafeCell<libc::pthread_mutex_t>>,
    value: UnsafeCell<u64>,
}

impl Pthread {
    /// With default attributes.
    pub(crate) fn new() -> Self {
        Self::with_robustness(libc::PTHREAD_MUTEX_STALLED)
    }

    /// One whose next owner is told if its owner died (`pthread_mutexattr_setrobust(3)`).
    pub(crate) fn robust() -> Self {
        Self::with_robustness(libc::PTHREAD_MUTEX_ROBUST)
    }

    fn with_robustness(robustness: libc::c_int) -> Self {
        // SAFETY: all zero is a value of both types; each is initialised before it is used.
        unsafe {
            let mutex = Box::new(UnsafeCell::new(core::mem::zeroed()));
            let mut attributes = core::mem::zeroed();
            assert_eq!(libc::pthread_mutexattr_init(&raw mut attributes), 0);
            assert_eq!(libc::pthread_mutexattr_setrobust(&raw mut attributes, robustness), 0);
            assert_eq!(libc::pthread_mutex_init(mutex.get(), &raw const attributes), 0);
            Self { mutex, value: UnsafeCell::new(0) }
        }
    }
}

impl Operation for Pthread {
    #[inline(always)]
    fn run(&self) {
        // SAFETY: the mutex is initialised and does not move; its holder alone touches the value.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(self.mutex.get()), 0);
            *self.value.get() += 1;
            assert_eq!(libc::pthread_mutex_unlock(self.mutex.get()), 0);
        }
    }
}
