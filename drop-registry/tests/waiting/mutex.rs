//! A lock that sleeps: holders, waiters, and those who wake them.

use drop_registry::hosted::{Hosted, Stop, yield_now};
use drop_registry::{LockError, Mutex, Park, TryLockError};

use crate::machine;

type Lock<T> = Mutex<T, Hosted, Park>;

#[test]
fn a_waiter_sleeps_until_the_unlock_and_is_woken_by_it() {
    static LOCK: Lock<u32> = Mutex::new(0);
    let machine = machine();
    let holder = machine.spawn(|| {
        let mut value = LOCK.lock().unwrap();
        *value = 1;
        yield_now();
    });
    let waiter = machine.spawn(|| assert_eq!(*LOCK.lock().unwrap(), 1));
    assert_eq!(machine.run(holder, None), Stop::Yielded);
    assert_eq!(machine.run(waiter, None), Stop::Parked);
    assert_eq!(machine.run(waiter, None), Stop::Parked);
    assert_eq!(machine.run(holder, None), Stop::Finished);
    assert_eq!(machine.run(waiter, None), Stop::Finished);
}

#[test]
fn guards_of_locks_that_sleep_may_be_dropped_in_any_order() {
    static LOCKS: [Lock<u32>; 3] = [const { Mutex::new(0) }; 3];
    let machine = machine();
    machine.spawn(|| {
        let [a, b, c] = LOCKS.each_ref().map(|lock| lock.lock().unwrap());
        drop(b);
        assert!(LOCKS[0].is_locked() && !LOCKS[1].is_locked() && LOCKS[2].is_locked());
        drop(a);
        assert!(matches!(LOCKS[2].try_lock(), Err(TryLockError::Lock(LockError::Recursive))));
        drop(c);
        assert!(LOCKS.iter().all(|lock| !lock.is_locked()));
    });
    machine.run_all().unwrap();
}

#[test]
fn a_full_ledger_refuses_to_wait_and_the_lock_is_as_it_was() {
    const MANY: usize = drop_registry::Ledger::CAPACITY - 1;
    static LOCK: Lock<u32> = Mutex::new(0);
    static OTHERS: [Lock<u32>; MANY] = [const { Mutex::new(0) }; MANY];
    let machine = machine();
    let holder = machine.spawn(|| {
        let _held = LOCK.lock().unwrap();
        yield_now();
    });
    let full = machine.spawn(|| {
        let held = OTHERS.each_ref().map(|lock| lock.lock().unwrap());
        // There is room to wait, but then none for what is waited for.
        assert!(matches!(LOCK.lock(), Err(LockError::LedgerFull)));
        drop(held);
        assert_eq!(*LOCK.lock().unwrap(), 0);
    });
    assert_eq!(machine.run(holder, None), Stop::Yielded);
    assert_eq!(machine.run(full, None), Stop::Parked);
    assert_eq!(machine.run(holder, None), Stop::Finished);
    assert_eq!(machine.run(full, None), Stop::Finished);
}
