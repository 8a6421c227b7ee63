//! Our read-write lock in `lock_api`'s hands.

use drop_registry::LockError;
use drop_registry::hosted::{Stop, yield_now};
use drop_registry::lock_api::{RawRwLock, write};

use crate::{ReadWrite, die_with, ends_the_program, is_refused, kill, machine, run};

#[test]
fn after_a_reader_s_death_the_lock_is_refused_to_writers_alone() {
    static LOCK: ReadWrite = ReadWrite::new(1);
    let mut machine = machine();
    die_with(&mut machine, || LOCK.read());
    for _ in 0..2 {
        assert_eq!(run(&mut machine, || assert!(LOCK.try_write().is_none())), Stop::Finished);
        let left_as_it_was = || !LOCK.is_locked() && LOCK.try_write().is_none();
        assert!(is_refused(&mut machine, || drop(LOCK.write()), left_as_it_was));
        assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 1)), Stop::Finished);
    }
    assert!(!LOCK.is_locked());
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = write(&LOCK) else { panic!("not told") };
        drop(died.mark_consistent());
        *LOCK.write() += 1;
        assert_eq!(*LOCK.read(), 2);
    });
    assert_eq!(recovered, Stop::Finished);
}

#[expect(unsafe_code, reason = "promises that readers do not tear a number")]
#[test]
fn a_dead_reader_is_taken_off_and_a_dead_writer_s_lock_refused() {
    // SAFETY: no shared reference changes a number.
    static LOCK: ReadWrite = ReadWrite::from_raw(unsafe { RawRwLock::new_untorn() }, 1);
    let mut machine = machine();
    kill(&mut machine, || {
        let (_one, _another) = (LOCK.read(), LOCK.read());
        assert!(LOCK.is_locked() && !LOCK.is_locked_exclusive() && LOCK.try_write().is_none());
        yield_now();
    });
    assert_eq!(run(&mut machine, || *LOCK.write() += 1), Stop::Finished);
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 2)), Stop::Finished);
    kill(&mut machine, || {
        let _held = LOCK.write();
        assert!(LOCK.is_locked_exclusive() && LOCK.try_read().is_none());
        yield_now();
    });
    let refused = run(&mut machine, || {
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(refused, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.read())));
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    assert!(!LOCK.is_locked());
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(mut died)) = write(&LOCK) else { panic!("not told") };
        assert_eq!(*died.peek(), 2);
        *died.update() = 5;
        drop(died.mark_consistent());
        assert!(write(&LOCK).is_ok());
        assert_eq!(*LOCK.read(), 5);
    });
    assert_eq!(recovered, Stop::Finished);
}

#[test]
fn a_dead_writer_s_lock_that_nobody_recovered_is_refused_for_good() {
    static LOCK: ReadWrite = ReadWrite::new(1);
    let mut machine = machine();
    die_with(&mut machine, || LOCK.write());
    let given_up = run(&mut machine, || {
        drop(write(&LOCK));
        assert!(matches!(write(&LOCK), Err(LockError::NotRecoverable)));
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(given_up, Stop::Finished);
}
