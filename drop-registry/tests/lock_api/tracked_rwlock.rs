//! Somebody else's read-write lock, behind one of ours: spin's, and one that keeps a lock inside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drop_registry::LockError;
use drop_registry::hosted::{Hosted, Stop, yield_now};
use drop_registry::lock_api::{TrackedRawRwLock, write_tracked};
use lock_api::{GuardSend, RwLock};

use crate::{die_with, ends_the_program, is_refused, kill, machine, run};

type TrackedReadWrite = RwLock<TrackedRawRwLock<spin::RwLock<()>, Hosted>, u64>;

/// How many readers and writers spin's lock counts, behind the lock of ours.
#[expect(unsafe_code, reason = "looks at a foreign lock")]
fn counted(lock: &TrackedReadWrite) -> (usize, usize) {
    // SAFETY: it is looked at, and neither locked nor unlocked.
    let theirs = unsafe { lock.raw().theirs() };
    (theirs.reader_count(), theirs.writer_count())
}

#[expect(unsafe_code, reason = "promises that readers do not tear a number")]
#[test]
fn a_dead_reader_is_left_to_the_next_writer_and_a_living_one_is_not_touched() {
    // SAFETY: no shared reference changes a number.
    static LOCK: TrackedReadWrite =
        TrackedReadWrite::from_raw(unsafe { TrackedRawRwLock::new_untorn() }, 1);
    let mut machine = machine();
    let living = machine.spawn(|| {
        let held = LOCK.read();
        yield_now();
        drop(held);
    });
    assert_eq!(machine.run(living, None), Stop::Yielded);
    let settled = kill(&mut machine, || {
        let (_one, _another) = (LOCK.read(), LOCK.read());
        yield_now();
    });
    assert_eq!(settled, 2);
    assert_eq!(counted(&LOCK), (3, 0));
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 1)), Stop::Finished);
    assert_eq!(run(&mut machine, || assert!(LOCK.try_write().is_none())), Stop::Finished);
    assert_eq!(counted(&LOCK), (3, 0), "a writer released a lock of somebody who lives");
    assert_eq!(machine.run(living, None), Stop::Finished);
    assert_eq!(counted(&LOCK), (2, 0));
    let written = run(&mut machine, || {
        let mut held = LOCK.write();
        assert_eq!(counted(&LOCK), (0, 1));
        *held += 1;
    });
    assert_eq!(written, Stop::Finished);
    assert_eq!(counted(&LOCK), (0, 0));
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 2)), Stop::Finished);
}

#[test]
fn a_dead_reader_s_foreign_lock_is_left_to_whoever_recovers_the_value() {
    static LOCK: TrackedReadWrite = TrackedReadWrite::new(1);
    let mut machine = machine();
    die_with(&mut machine, || LOCK.read());
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 1)), Stop::Finished);
    assert_eq!(run(&mut machine, || assert!(LOCK.try_write().is_none())), Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    assert_eq!(counted(&LOCK), (1, 0));
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = write_tracked(&LOCK) else { panic!("not told") };
        drop(died.replace(7));
        *LOCK.write() += 1;
        assert_eq!(*LOCK.read(), 8);
    });
    assert_eq!(recovered, Stop::Finished);
    assert_eq!(counted(&LOCK), (0, 0));
}

#[test]
fn a_dead_writer_s_read_write_lock_is_left_to_whoever_recovers_the_value() {
    static LOCK: TrackedReadWrite = TrackedReadWrite::new(1);
    let mut machine = machine();
    die_with(&mut machine, || LOCK.write());
    assert_eq!(counted(&LOCK), (0, 1));
    let refused = run(&mut machine, || {
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(refused, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.read())));
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = write_tracked(&LOCK) else { panic!("not told") };
        drop(died.replace(7));
        assert_eq!(counted(&LOCK), (0, 0));
        assert_eq!(*LOCK.read(), 7);
    });
    assert_eq!(recovered, Stop::Finished);
    die_with(&mut machine, || LOCK.write());
    let given_up = run(&mut machine, || {
        drop(write_tracked(&LOCK));
        assert!(matches!(write_tracked(&LOCK), Err(LockError::NotRecoverable)));
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(given_up, Stop::Finished);
}

/// A lock with a lock inside, as those have that keep a queue: who dies with that held, leaves a
/// lock that lets nobody in.
struct Queued {
    busy: AtomicBool,
    readers: AtomicU64,
}

impl Queued {
    const WRITER: u64 = u64::MAX;

    /// Changes the readers under the lock inside; another task gets a turn meanwhile.
    fn change(&self, change: impl FnOnce(u64) -> Option<u64>) -> bool {
        if self.busy.swap(true, Ordering::Acquire) {
            return false;
        }
        yield_now();
        let readers = self.readers.load(Ordering::Relaxed);
        let changed = change(readers);
        self.readers.store(changed.unwrap_or(readers), Ordering::Relaxed);
        self.busy.store(false, Ordering::Release);
        changed.is_some()
    }
}

#[expect(unsafe_code, reason = "implements a lock")]
// SAFETY: one writer, or readers: their number is changed under the lock inside.
unsafe impl lock_api::RawRwLock for Queued {
    const INIT: Self = Self { busy: AtomicBool::new(false), readers: AtomicU64::new(0) };
    type GuardMarker = GuardSend;

    fn lock_shared(&self) {
        panic!("waits");
    }

    fn try_lock_shared(&self) -> bool {
        self.change(|readers| (readers != Self::WRITER).then(|| readers + 1))
    }

    unsafe fn unlock_shared(&self) {
        assert!(self.change(|readers| Some(readers - 1)));
    }

    fn lock_exclusive(&self) {
        panic!("waits");
    }

    fn try_lock_exclusive(&self) -> bool {
        self.change(|readers| (readers == 0).then_some(Self::WRITER))
    }

    unsafe fn unlock_exclusive(&self) {
        assert!(self.change(|_| Some(0)));
    }
}

#[test]
fn who_dies_in_a_foreign_lock_s_own_lock_keeps_others_out_and_nobody_waiting() {
    type Untrusted = RwLock<TrackedRawRwLock<Queued, Hosted>, u64>;
    static LOCK: Untrusted = Untrusted::new(1);
    let mut machine = machine();
    let reader = machine.spawn(|| assert_eq!(*LOCK.read(), 1));
    for _ in 0..2 {
        assert_eq!(machine.run(reader, None), Stop::Yielded);
    }
    assert_eq!(machine.run(reader, None), Stop::Finished);
    let settled = kill(&mut machine, || drop(LOCK.read()));
    assert_eq!(settled, 1);
    let refused = run(&mut machine, || {
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(refused, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.read())));
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    assert!(!LOCK.is_locked());
}

/// A lock that lets nobody in, as one does in which a task has died unseen.
struct Shut;

#[expect(unsafe_code, reason = "implements a lock")]
// SAFETY: nobody is let in.
unsafe impl lock_api::RawRwLock for Shut {
    const INIT: Self = Self;
    type GuardMarker = GuardSend;

    fn lock_shared(&self) {
        panic!("waits");
    }

    fn try_lock_shared(&self) -> bool {
        false
    }

    unsafe fn unlock_shared(&self) {}

    fn lock_exclusive(&self) {
        panic!("waits");
    }

    fn try_lock_exclusive(&self) -> bool {
        false
    }

    unsafe fn unlock_exclusive(&self) {}
}

#[test]
fn a_foreign_lock_that_refuses_leaves_ours_free() {
    static LOCK: RwLock<TrackedRawRwLock<Shut, Hosted>, u64> = RwLock::new(1);
    let mut machine = machine();
    let refused = run(&mut machine, || {
        assert!(LOCK.try_read().is_none());
        assert!(!LOCK.is_locked());
        assert!(LOCK.try_write().is_none());
        assert!(!LOCK.is_locked());
    });
    assert_eq!(refused, Stop::Finished);
    assert!(is_refused(&mut machine, || drop(LOCK.read()), || !LOCK.is_locked()));
    assert!(is_refused(&mut machine, || drop(LOCK.write()), || !LOCK.is_locked()));
}
