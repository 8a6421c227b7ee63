//! Calls that a panic must not leave, because whoever made them has no way to hear of it.

use core::{fmt, mem};

/// Ends the program over a lock that is refused to somebody who can only be given it.
///
/// `extern "C"`, so that the panic cannot be caught. `lock_api` has guards that are there while
/// their lock is taken again (`MutexGuard::unlocked`), and they would be left without it; and
/// nothing may unwind out of a global allocator.
#[cold]
pub(crate) extern "C" fn refuse(why: &fmt::Arguments<'_>) -> ! {
    panic!("a lock was refused: {why}")
}

/// Waits for a lock by `lock`, out of which no panic unwinds, for the reason that [`refuse`] has:
/// what waits calls code of others, a strategy's or a foreign lock's.
#[inline(always)]
pub(crate) fn without_unwinding<R>(lock: impl FnOnce() -> R) -> R {
    struct Unwinds;
    impl Drop for Unwinds {
        fn drop(&mut self) {
            refuse(&format_args!("what waited for it panicked"));
        }
    }
    let unwinds = Unwinds;
    let result = lock();
    mem::forget(unwinds);
    result
}
