//! Somebody else's mutex, behind one of ours: spin's, and one that may refuse.

use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::LockError;
use drop_registry::hosted::{Hosted, Stop};
use drop_registry::lock_api::{TrackedRawMutex, lock_tracked};
use lock_api::{GuardSend, Mutex};

use crate::{Spin, die_with, ends_the_program, machine, run};

type Tracked<T> = Mutex<TrackedRawMutex<Spin, Hosted>, T>;

#[test]
fn a_dead_owner_s_spin_lock_is_left_to_whoever_recovers_the_value() {
    static LOCK: Tracked<u64> = Tracked::new(1);
    let mut machine = machine();
    assert_eq!(run(&mut machine, || *LOCK.lock() += 1), Stop::Finished);
    die_with(&mut machine, || LOCK.lock());
    assert_eq!(run(&mut machine, || assert!(LOCK.try_lock().is_none())), Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.lock())));
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = lock_tracked(&LOCK) else {
            panic!("not told");
        };
        drop(died.replace(7));
        assert_eq!(*LOCK.lock(), 7);
    });
    assert_eq!(recovered, Stop::Finished);
}

#[test]
fn what_nobody_recovered_is_refused_for_good() {
    static LOCK: Tracked<u64> = Tracked::new(1);
    let mut machine = machine();
    die_with(&mut machine, || LOCK.lock());
    let given_up = run(&mut machine, || {
        drop(lock_tracked(&LOCK));
        assert!(matches!(lock_tracked(&LOCK), Err(LockError::NotRecoverable)));
        assert!(LOCK.try_lock().is_none());
    });
    assert_eq!(given_up, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.lock())));
}

/// A lock that refuses every other attempt, though it is free.
struct Moody {
    attempts: AtomicU64,
    lock: spin::mutex::SpinMutex<()>,
}

#[expect(unsafe_code, reason = "implements a lock")]
// SAFETY: a lock that excludes, and takes fewer in than it could.
unsafe impl lock_api::RawMutex for Moody {
    const INIT: Self = Self { attempts: AtomicU64::new(0), lock: lock_api::RawMutex::INIT };
    type GuardMarker = GuardSend;

    fn lock(&self) {
        lock_api::RawMutex::lock(&self.lock);
    }

    fn try_lock(&self) -> bool {
        let odd = self.attempts.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        odd && lock_api::RawMutex::try_lock(&self.lock)
    }

    unsafe fn unlock(&self) {
        // SAFETY: this function's contract.
        unsafe { lock_api::RawMutex::unlock(&self.lock) };
    }
}

#[test]
fn a_foreign_lock_that_refuses_leaves_ours_free() {
    static LOCK: Mutex<TrackedRawMutex<Moody, Hosted>, u64> = Mutex::new(1);
    let done = run(&mut machine(), || {
        assert!(LOCK.try_lock().is_none());
        assert!(!LOCK.is_locked());
        *LOCK.try_lock().expect("it is free, and theirs is willing") += 1;
        assert_eq!(*LOCK.lock(), 2);
    });
    assert_eq!(done, Stop::Finished);
}
