//! What waits asleep, and how it is woken, where that needs no killing: that no death and no
//! preemption loses a wake-up is proved by `cargo boundaries`.

mod condvar;
mod mutex;
mod semaphore;
mod unpark;
mod wait_queue;

use drop_registry::hosted::Machine;

/// A machine for this thread.
#[expect(unsafe_code, reason = "makes a machine")]
fn machine() -> Machine {
    // SAFETY: tasks here keep nothing in thread-locals, and none is stopped by the instruction. What
    // they share is static, and each test has its own.
    unsafe { Machine::new() }
}
