//! Semaphores that are destroyed while some ledger lists a permit of theirs. (A program of its own:
//! the children that it forks panic, and so no other thread may.)
#![expect(unsafe_code, reason = "forks, and destroys what others list")]

use drop_registry::Semaphore;
use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};

#[test]
fn a_destroyed_semaphore_whose_permits_were_forgotten_is_not_listed_any_more() {
    let mut machine = Machine::new();
    let task = machine.spawn(|| {
        let semaphore = Box::new(Semaphore::<Hosted>::new(4));
        let kept = semaphore.acquire().unwrap();
        std::mem::forget((semaphore.acquire().unwrap(), semaphore.acquire().unwrap()));
        semaphore.acquire().unwrap().forget();
        drop(kept);
        assert_eq!(semaphore.available(), 1);
        drop(semaphore);
        yield_now();
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    assert_eq!(machine.kill(task).len(), 0);
}

#[test]
fn a_semaphore_whose_permit_another_task_has_is_not_destroyed() {
    let destroyed_after = |take: fn(&'static Semaphore<Hosted>)| {
        does_not_abort(|| {
            let machine = Machine::new();
            let semaphore: &'static mut Semaphore<Hosted> = Box::leak(Box::new(Semaphore::new(2)));
            let place = &raw mut *semaphore as usize;
            let holder = machine.spawn(move || take(semaphore));
            assert_eq!(machine.run(holder, None), Stop::Finished);
            let destroyer = machine.spawn(move || {
                // SAFETY: it has been leaked, and is used no more.
                drop(unsafe { Box::from_raw(place as *mut Semaphore<Hosted>) });
            });
            assert_eq!(machine.run(destroyer, None), Stop::Finished);
        })
    };
    assert!(!destroyed_after(|semaphore| std::mem::forget(semaphore.acquire().unwrap())));
    assert!(destroyed_after(|semaphore| semaphore.acquire().unwrap().forget()));
    assert!(destroyed_after(|semaphore| drop(semaphore.acquire().unwrap())));
}

/// Whether a child process does `body` and does not end by `SIGABRT`.
fn does_not_abort(body: impl FnOnce()) -> bool {
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
