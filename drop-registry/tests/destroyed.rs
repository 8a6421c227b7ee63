//! Semaphores and locks that are destroyed while some ledger lists them. (A program of its own: the
//! children that it forks panic, and so no other thread may.)
#![expect(unsafe_code, reason = "forks, and destroys what others list")]

use std::mem::forget;

use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::{Mutex, Once, Park, RepairMutex, RollbackMutex, RwLock, Semaphore};

/// A machine for this thread.
fn machine() -> Machine {
    // SAFETY: tasks here keep nothing in thread-locals, and none is stopped by the instruction.
    // Those that destroy what is listed never get to be killed while it is.
    unsafe { Machine::new() }
}

#[test]
fn a_destroyed_semaphore_whose_permits_were_forgotten_is_not_listed_any_more() {
    let mut machine = machine();
    let task = machine.spawn(|| {
        let semaphore = Box::new(Semaphore::<Hosted>::new(4));
        let kept = semaphore.acquire().unwrap();
        forget((semaphore.acquire().unwrap(), semaphore.acquire().unwrap()));
        semaphore.acquire().unwrap().forget();
        drop(kept);
        assert_eq!(semaphore.available(), 1);
        drop(semaphore);
        yield_now();
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    assert_eq!(machine.kill(task).len(), 0);
}

/// Whether a task can destroy what another one has done `hold` with, for ever.
fn is_destroyed<R: Send + Sync>(resource: R, hold: fn(&'static R)) -> bool {
    does_not_abort(|| {
        let machine = machine();
        let resource: &'static mut R = Box::leak(Box::new(resource));
        let place = &raw mut *resource as usize;
        let holder = machine.spawn(move || {
            hold(resource);
            yield_now();
        });
        assert_eq!(machine.run(holder, None), Stop::Yielded);
        let destroyer = machine.spawn(move || {
            // SAFETY: it has been leaked, and is used no more.
            drop(unsafe { Box::from_raw(place as *mut R) });
        });
        assert_eq!(machine.run(destroyer, None), Stop::Finished);
    })
}

/// Whether a task can destroy what it has done `hold` with itself; `moved` somewhere else, or where
/// it was.
fn is_destroyed_by_itself<R: Send + 'static>(
    resource: R,
    hold: for<'a> fn(&'a R),
    moved: bool,
) -> bool {
    does_not_abort(|| {
        let machine = machine();
        let task = machine.spawn(move || {
            let resource = Box::new(resource);
            hold(&resource);
            if moved { drop(Box::new(*resource)) } else { drop(resource) }
        });
        assert_eq!(machine.run(task, None), Stop::Finished);
    })
}

#[test]
fn a_semaphore_whose_permit_another_task_has_is_not_destroyed() {
    let semaphore = || Semaphore::<Hosted>::new(2);
    assert!(!is_destroyed(semaphore(), |it| forget(it.acquire().unwrap())));
    assert!(is_destroyed(semaphore(), |it| it.acquire().unwrap().forget()));
    assert!(is_destroyed(semaphore(), |it| drop(it.acquire().unwrap())));
}

#[test]
fn a_lock_that_another_task_holds_is_not_destroyed() {
    type Repaired = RepairMutex<u32, Hosted>;
    assert!(!is_destroyed(Mutex::<_, Hosted>::new(1), |it| forget(it.lock().unwrap())));
    assert!(!is_destroyed(Mutex::<_, Hosted, Park>::new(1), |it| forget(it.lock().unwrap())));
    assert!(!is_destroyed(RollbackMutex::<_, Hosted>::new(1), |it| forget(it.lock().unwrap())));
    assert!(!is_destroyed(Repaired::new(1, |_| None), |it| forget(it.lock().unwrap())));
    assert!(!is_destroyed(RwLock::<_, Hosted>::new(1), |it| forget(it.write().unwrap())));
    assert!(!is_destroyed(RwLock::<_, Hosted>::new(1), |it| forget(it.read().unwrap())));
    assert!(!is_destroyed(Once::<u32, Hosted>::new(), |it| {
        let _ = it.call_once(|| {
            yield_now();
            1
        });
    }));

    assert!(is_destroyed(Mutex::<_, Hosted>::new(1), |it| drop(it.lock().unwrap())));
    assert!(is_destroyed(RwLock::<_, Hosted>::new(1), |it| drop(it.read().unwrap())));
    assert!(is_destroyed(Once::<u32, Hosted>::new(), |it| _ = it.call_once(|| 1)));
}

#[test]
fn a_lock_whose_guard_was_forgotten_is_destroyed_where_it_was_locked_and_nowhere_else() {
    for moved in [false, true] {
        let mutex = Mutex::<_, Hosted>::new(1);
        let rollback = RollbackMutex::<_, Hosted>::new(1);
        let read_write = || RwLock::<_, Hosted>::new(1);
        let destroyed = [
            is_destroyed_by_itself(mutex, |it| forget(it.lock().unwrap()), moved),
            is_destroyed_by_itself(rollback, |it| forget(it.lock().unwrap()), moved),
            is_destroyed_by_itself(read_write(), |it| forget(it.write().unwrap()), moved),
            is_destroyed_by_itself(read_write(), |it| forget(it.read().unwrap()), moved),
        ];
        assert_eq!(destroyed, [!moved; 4]);
    }
}

/// Whether a child process does `body` and does not end by `SIGABRT`. One child at a time.
fn does_not_abort(body: impl FnOnce()) -> bool {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock();
    // SAFETY: the child has this thread alone, and takes no lock that another one may hold but the
    // allocator's, which `fork` looks after.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            std::panic::set_hook(Box::new(|_| ()));
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
            // SAFETY: ends the child.
            unsafe { libc::_exit(if passed { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            let aborted = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT;
            assert!(aborted || status == 0, "the child failed in another way: {status}");
            !aborted
        }
    }
}
