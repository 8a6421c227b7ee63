//! Locks that are destroyed after a death.

use drop_registry::LockError;
use drop_registry::hosted::yield_now;

use crate::{Ours, ReadWrite, ends_the_program, kill, machine, run};

/// Destroys a lock, after a task has died with it, in a program of its own.
fn is_destroyed<M: Send + Sync + 'static>(
    lock: M,
    hold: fn(&'static M),
    after: fn(&'static M),
    destroy: fn(M),
) -> bool {
    let mut machine = machine();
    let shared: &'static M = Box::leak(Box::new(lock));
    kill(&mut machine, move || hold(shared));
    run(&mut machine, move || after(shared));
    #[expect(unsafe_code, reason = "takes a leaked lock back")]
    // SAFETY: nobody uses it any more, and what it is moved from is leaked.
    !ends_the_program(&mut machine, move || destroy(unsafe { std::ptr::read(shared) }))
}

#[test]
fn a_lock_whose_value_may_be_torn_is_not_destroyed() {
    let hold = |lock: &'static Ours<u64>| {
        let _held = lock.lock();
        yield_now();
    };
    let recover = |lock: &'static Ours<u64>| {
        let Err(LockError::OwnerDied(died)) = drop_registry::lock_api::lock(lock) else { return };
        drop(died.replace(5));
    };
    let give_up = |lock: &'static Ours<u64>| drop(drop_registry::lock_api::lock(lock));
    let give_out = |lock: Ours<u64>| _ = lock.into_inner();
    assert!(!is_destroyed(Ours::new(1), hold, |_| (), drop));
    assert!(!is_destroyed(Ours::new(1), hold, |_| (), give_out));
    assert!(!is_destroyed(Ours::new(1), hold, give_up, drop));
    assert!(is_destroyed(Ours::new(1), hold, recover, drop));
    assert!(is_destroyed(Ours::new(1), |_| yield_now(), |_| (), give_out));

    let write = |lock: &'static ReadWrite| {
        let _held = lock.write();
        yield_now();
    };
    let read = |lock: &'static ReadWrite| {
        let _held = lock.read();
        yield_now();
    };
    assert!(!is_destroyed(ReadWrite::new(1), write, |_| (), drop));
    assert!(!is_destroyed(ReadWrite::new(1), read, |_| (), drop));
    assert!(is_destroyed(ReadWrite::new(1), |_| yield_now(), |_| (), drop));
}
