//! A kernel whose `unpark` takes tracked locks itself, and so moves the caller's entries.
#![expect(unsafe_code, reason = "implements a context")]

use std::ptr::NonNull;

use drop_registry::hosted::{Hosted, Stop, yield_now};
use drop_registry::{CurrentLedger, Cursor, Ledger, Mutex, Park, Parker, RwLock, Semaphore};

use crate::machine;

/// The hosted machine; but its `unpark` takes a lock.
struct Locking;

// SAFETY: as `Hosted`.
unsafe impl CurrentLedger for Locking {
    fn current() -> NonNull<Ledger> {
        Hosted::current()
    }

    fn cursor() -> Cursor {
        Hosted::cursor()
    }

    unsafe fn set_cursor(cursor: Cursor) {
        // SAFETY: this function's contract.
        unsafe { Hosted::set_cursor(cursor) };
    }
}

// SAFETY: as `Hosted`.
unsafe impl Parker for Locking {
    const TASKS: usize = Hosted::TASKS;

    fn index(ledger: &Ledger) -> usize {
        Hosted::index(ledger)
    }

    fn park() {
        Hosted::park();
    }

    fn unpark(index: usize) {
        static RUN_QUEUE: Mutex<(), Hosted> = Mutex::new(());
        let _held = RUN_QUEUE.lock().expect("a gap in the ledger");
        Hosted::unpark(index);
    }
}

/// A task gives up what another sleeps for, with its ledger full but for a gap below, which
/// `unpark` closes; and has afterwards what it had before.
fn gives_up<G: 'static>(take: fn() -> G, wait: fn()) {
    let machine = machine();
    let holder = machine.spawn(move || {
        let locks = [const { Mutex::<(), Hosted>::new(()) }; Ledger::CAPACITY];
        let gap = locks[0].lock().unwrap();
        let given_up = take();
        let others = locks[1..Ledger::CAPACITY - 1].iter().map(|lock| lock.lock().unwrap());
        let others: Vec<_> = others.collect();
        drop(gap);
        yield_now();
        drop(given_up);
        // SAFETY: this task's own ledger.
        let ledger = unsafe { Hosted::current().as_ref() };
        assert_eq!(ledger.len(), others.len());
        drop(others);
        assert!(ledger.is_empty() && locks.iter().all(|lock| !lock.is_locked()));
    });
    let waiter = machine.spawn(wait);
    assert_eq!(machine.run(holder, None), Stop::Yielded);
    assert_eq!(machine.run(waiter, None), Stop::Parked);
    assert_eq!(machine.run(holder, None), Stop::Finished);
    assert_eq!(machine.run(waiter, None), Stop::Finished);
}

#[test]
fn a_mutex() {
    static LOCK: Mutex<(), Locking, Park> = Mutex::new(());
    gives_up(|| LOCK.lock().unwrap(), || drop(LOCK.lock().unwrap()));
}

#[test]
fn a_permit() {
    static PERMITS: Semaphore<Locking> = Semaphore::new(1);
    gives_up(|| PERMITS.acquire().unwrap(), || drop(PERMITS.acquire().unwrap()));
}

#[test]
fn a_rwlock_read() {
    static LOCK: RwLock<(), Locking, Park> = RwLock::new(());
    gives_up(|| LOCK.read().unwrap(), || drop(LOCK.write().unwrap()));
}

#[test]
fn a_rwlock_written() {
    static LOCK: RwLock<(), Locking, Park> = RwLock::new(());
    gives_up(|| LOCK.write().unwrap(), || drop(LOCK.read().unwrap()));
}
