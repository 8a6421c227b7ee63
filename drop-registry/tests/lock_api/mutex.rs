//! Our mutex in `lock_api`'s hands.

use drop_registry::LockError;
use drop_registry::hosted::{Hosted, Stop, yield_now};
use drop_registry::lock_api::{RawMutex, RawRwLock};
use lock_api::{Mutex, RwLock};
use spin::relax::RelaxStrategy;

use crate::{Ours, die_with, ends_the_program, is_refused, kill, machine, run};

#[test]
fn a_lock_of_ours_works_for_users_of_lock_api() {
    static COUNTER: Ours<u64> = Ours::new(0);
    let mut machine = machine();
    let done = run(&mut machine, || {
        *COUNTER.lock() += 1;
        let held = COUNTER.lock();
        assert!(COUNTER.is_locked() && COUNTER.try_lock().is_none());
        drop(held);
        *COUNTER.try_lock().expect("it is free") += 1;
    });
    assert_eq!(done, Stop::Finished);
    assert!(!COUNTER.is_locked());
}

#[test]
fn after_a_death_lock_api_is_refused_until_somebody_has_recovered_the_value() {
    static LOCK: Ours<u64> = Ours::new(1);
    let mut machine = machine();
    let settled = kill(&mut machine, || {
        let mut held = LOCK.lock();
        *held = 2;
        yield_now();
        drop(held);
    });
    assert_eq!(settled, 1);
    for _ in 0..2 {
        assert_eq!(run(&mut machine, || assert!(LOCK.try_lock().is_none())), Stop::Finished);
        let left_as_it_was = || !LOCK.is_locked() && LOCK.try_lock().is_none();
        assert!(is_refused(&mut machine, || drop(LOCK.lock()), left_as_it_was));
    }
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = drop_registry::lock_api::lock(&LOCK) else {
            panic!("not told");
        };
        assert_eq!(*died.peek(), 2);
        drop(died.replace(5));
        assert_eq!(*LOCK.lock(), 5);
    });
    assert_eq!(recovered, Stop::Finished);
}

#[test]
fn what_nobody_recovered_is_refused_for_good() {
    static LOCK: Ours<u64> = Ours::new(1);
    let mut machine = machine();
    die_with(&mut machine, || LOCK.lock());
    let given_up = run(&mut machine, || {
        drop(drop_registry::lock_api::lock(&LOCK));
        assert!(matches!(drop_registry::lock_api::lock(&LOCK), Err(LockError::NotRecoverable)));
    });
    assert_eq!(given_up, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.lock())));
}

#[test]
fn a_second_lock_by_the_same_task_is_a_panic_and_not_a_deadlock() {
    static LOCK: Ours<u64> = Ours::new(1);
    let mut machine = machine();
    assert!(ends_the_program(&mut machine, || {
        let _held = LOCK.lock();
        drop(LOCK.lock());
    }));
}

/// Waits by panicking.
pub(crate) struct Panics;

impl RelaxStrategy for Panics {
    fn relax() {
        panic!("tired of waiting");
    }
}

#[test]
fn nothing_unwinds_out_of_a_lock_that_a_guard_of_lock_api_s_waits_for() {
    static LOCK: Mutex<RawMutex<Hosted, Panics>, u64> = Mutex::new(1);
    static READ_WRITE: RwLock<RawRwLock<Hosted, Panics>, u64> = RwLock::new(1);
    let mut machine = machine();
    let holds = machine.spawn(|| {
        let _held = (LOCK.lock(), READ_WRITE.write());
        yield_now();
    });
    assert_eq!(machine.run(holds, None), Stop::Yielded);
    assert!(ends_the_program(&mut machine, || drop(LOCK.lock())));
    assert!(ends_the_program(&mut machine, || drop(READ_WRITE.read())));
    assert!(ends_the_program(&mut machine, || drop(READ_WRITE.write())));
}
