//! To and from the locks of [`lock_api`] 0.4.
//!
//! | | |
//! | --- | --- |
//! | [`RawMutex`], [`RawRwLock`] | our locks, for whoever takes a raw lock as a type parameter |
//! | [`TrackedRawMutex`], [`TrackedRawRwLock`] | any other raw lock, with one of ours in front of it |
//! | [`lock()`], [`write()`], [`lock_tracked`], [`write_tracked`] | locking with the whole protocol of [`LockError`](crate::LockError) |
//!
//! `lock_api` has no way to say that an owner died: its `lock` returns a guard, and the guard gives
//! the value to safe code. So a lock whose owner died is refused there: `try_lock` says that it is
//! taken, and `lock` **panics** and says why. It does not wait, for nobody else would come to mend
//! the value. Whoever can mend it, locks by [`lock()`] or [`write()`], and `lock_api` gets the lock
//! again afterwards. The same panic is for a lock that the task holds already, and for a full
//! ledger. It does not unwind: in a kernel it ends the task, in a program that unwinds it ends
//! that.
//!
//! `lock_api` drops the value together with its lock, or gives it out by `into_inner`, without
//! asking. So to destroy a lock whose value nobody has recovered is the same panic: leak it, or
//! recover it first. **Nothing can stop `lock_api::Mutex::get_mut`** (nor `RwLock`'s, nor
//! `data_ptr`), which does not ask the raw lock: whoever calls it after a death gets a value that
//! may be torn. So [`CurrentLedger`](crate::CurrentLedger) asks that nobody does.
//!
//! `lock_api::ReentrantMutex` remembers its owner's thread id by itself, and a death does not change
//! that: ids that it is given must not come again.
//!
//! A lock that `lock_api`'s functions took is reported as escaped where they are not inlined, in a
//! build without optimisation: see [`Settled::escaped`](crate::Settled::escaped).
//!
//! ```
//! # use core::ptr::NonNull;
//! # use drop_registry::{CurrentLedger, Ledger, LockError};
//! # struct Kernel;
//! # static LEDGER: Ledger = Ledger::new();
//! # // SAFETY: one task, one ledger.
//! # unsafe impl CurrentLedger for Kernel {
//! #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
//! # }
//! use drop_registry::lock_api::RawMutex;
//!
//! static BALANCE: lock_api::Mutex<RawMutex<Kernel>, u64> = lock_api::Mutex::new(100);
//!
//! *BALANCE.lock() += 1;
//! // With what a death means:
//! match drop_registry::lock_api::lock(&BALANCE) {
//!     Ok(balance) => assert_eq!(*balance, 101),
//!     Err(LockError::OwnerDied(died)) => drop(died.replace(100)),
//!     Err(error) => panic!("{error}"),
//! }
//! ```

mod raw_mutex;
mod raw_rwlock;
mod tracked_mutex;
mod tracked_rwlock;

pub use raw_mutex::{RawMutex, lock};
pub use raw_rwlock::{RawRwLock, write};
pub use tracked_mutex::{Inherit, TrackedRawMutex, lock_tracked};
pub use tracked_rwlock::{Clear, TrackedRawRwLock, write_tracked};

/// `extern "C"`, so that the panic cannot be caught, and the value is not dropped.
#[cold]
extern "C" fn destroyed_while_torn() -> ! {
    panic!("a lock was destroyed whose value may be torn, and would be dropped: an owner died")
}
