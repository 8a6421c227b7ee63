//! Locks of this crate in `lock_api`'s hands, and locks of others in this crate's: with spin and
//! talc for peers.

mod allocators;
mod destroyed;
mod mutex;
mod rwlock;
mod tracked_mutex;
mod tracked_rwlock;

use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::lock_api::{RawMutex, RawRwLock};
use lock_api::{Mutex, RwLock};

type Ours<T> = Mutex<RawMutex<Hosted>, T>;
type ReadWrite = RwLock<RawRwLock<Hosted>, u64>;
type Spin = spin::Mutex<()>;

/// A machine for this thread.
#[expect(unsafe_code, reason = "makes a machine")]
fn machine() -> Machine {
    // SAFETY: tasks here keep nothing in thread-locals, and none is stopped by the instruction. What
    // they share is static, or leaked.
    unsafe { Machine::new() }
}

/// Runs a task to its end.
fn run(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> Stop {
    let task = machine.spawn(body);
    machine.run(task, None)
}

/// Runs a task until it yields, and kills it there.
fn kill(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> usize {
    let task = machine.spawn(body);
    assert_eq!(machine.run(task, None), Stop::Yielded);
    machine.kill(task).len()
}

/// The same of a task that stands there with what it has taken.
fn die_with<G>(machine: &mut Machine, take: impl FnOnce() -> G + Send + 'static) -> usize {
    kill(machine, || {
        let _held = take();
        yield_now();
    })
}

/// Whether a task ends in a panic that does not unwind; in a child process.
fn ends_the_program(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> bool {
    is_refused(machine, body, || true)
}

/// The same, of a task that is refused a lock, and by then has left that as `is_left` says.
#[expect(unsafe_code, reason = "forks")]
fn is_refused(
    machine: &mut Machine,
    body: impl FnOnce() + Send + 'static,
    is_left: fn() -> bool,
) -> bool {
    // SAFETY: the child has this thread alone, and takes no lock that another one may hold but the
    // allocator's, which `fork` looks after.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            std::panic::set_hook(Box::new(move |_| {
                if !is_left() {
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(1) }
                }
            }));
            run(machine, body);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT
        }
    }
}
