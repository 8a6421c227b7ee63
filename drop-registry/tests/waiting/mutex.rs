//! A lock that sleeps: holders, waiters, and those who wake them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::{LockError, Mutex, Park, TryLockError};

use crate::sweep::{Scene, kill_everywhere};

type Lock<T> = Mutex<T, Hosted, Park>;

/// What three tasks share.
struct Shared {
    lock: Lock<[u32; 2]>,
    /// Whether somebody is in the critical section, or died there and nobody has been told.
    inside: AtomicBool,
    told: AtomicU32,
}

impl Shared {
    fn leaked() -> &'static Self {
        Box::leak(Box::new(Self {
            lock: Mutex::new([0, 0]),
            inside: AtomicBool::new(false),
            told: AtomicU32::new(0),
        }))
    }

    /// Changes the value in two steps, with the others' turn in between.
    fn change(&self) {
        let mut value = match self.lock.lock() {
            Ok(value) => {
                assert!(!self.inside.swap(true, Ordering::Relaxed), "two are inside");
                assert_eq!(value[0], value[1]);
                value
            }
            Err(LockError::OwnerDied(died)) => {
                self.inside.store(true, Ordering::Relaxed);
                self.told.fetch_add(1, Ordering::Relaxed);
                died.replace([0, 0])
            }
            Err(error) => panic!("{error}"),
        };
        value[0] += 1;
        yield_now();
        value[1] += 1;
        self.inside.store(false, Ordering::Relaxed);
        drop(value);
    }

    /// Nobody holds the lock or waits for it, and it can be had.
    fn assert_idle(&'static self, machine: &mut Machine) {
        let shown = format!("{:?}", self.lock);
        assert!(shown.contains("held: false") && shown.contains("waiters: {}"), "{shown}");
        let next = machine.spawn(|| self.change());
        while machine.run(next, None) == Stop::Yielded {}
        assert!(!machine.is_alive(next));
    }
}

#[test]
fn whoever_dies_the_others_get_the_lock_and_are_told_once() {
    let played = kill_everywhere(|machine| {
        let shared = Shared::leaked();
        let script = move || {
            yield_now();
            shared.change();
            shared.change();
        };
        Scene {
            tasks: (0..3).map(|_| machine.spawn(script)).collect(),
            died: Box::new(|_| ()),
            check: Box::new(move |machine, _, asleep| {
                assert_eq!(asleep, []);
                shared.assert_idle(machine);
                assert!(shared.told.load(Ordering::Relaxed) <= 1);
            }),
        }
    });
    assert!(played.killed > 100, "{played:?}");
}

#[test]
fn a_lock_that_is_given_up_tells_all_who_wait_whoever_dies() {
    kill_everywhere(|machine| {
        let shared = Shared::leaked();
        let gives_up = machine.spawn(|| {
            let value = shared.lock.lock().unwrap();
            yield_now();
            // Panics, and is caught, with the lock held: the value counts as torn.
            core::mem::forget(value);
        });
        machine.run(gives_up, None);
        machine.kill(gives_up);
        let script = move || {
            yield_now();
            match shared.lock.lock() {
                Err(LockError::OwnerDied(died)) => {
                    shared.told.fetch_add(1, Ordering::Relaxed);
                    yield_now();
                    drop(died);
                }
                Err(LockError::NotRecoverable) => {
                    shared.told.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("{other:?}"),
            }
        };
        Scene {
            tasks: (0..3).map(|_| machine.spawn(script)).collect(),
            died: Box::new(|_| ()),
            check: Box::new(move |machine, _, asleep| {
                assert_eq!(asleep, []);
                assert!(shared.told.load(Ordering::Relaxed) >= 2);
                let shown = format!("{:?}", shared.lock);
                assert!(shown.contains("held: false") && shown.contains("waiters: {}"), "{shown}");
                let next = machine.spawn(|| {
                    assert!(matches!(shared.lock.lock(), Err(LockError::NotRecoverable)));
                });
                assert_eq!(machine.run(next, None), Stop::Finished);
            }),
        }
    });
}

#[test]
fn a_waiter_sleeps_until_the_unlock_and_is_woken_by_it() {
    static LOCK: Lock<u32> = Mutex::new(0);
    let mut machine = Machine::new();
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
    let mut machine = Machine::new();
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
    let mut machine = Machine::new();
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
