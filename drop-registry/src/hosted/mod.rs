//! Kernel tasks in an ordinary Linux process, for tests.
//!
//! A [`Machine`] runs *green* tasks on one thread. Each has its own stack with a guard page and its
//! own ledger, and the machine's exceptions are the signals that Linux makes of them: SIGSEGV,
//! SIGBUS, SIGILL, SIGFPE, SIGTRAP. Besides, a task can be stopped by a timer (SIGVTALRM), or run
//! by the instruction. A task that stops, for whatever reason and at whatever instruction, has all
//! its registers in a [`RegisterFile`](task_model::RegisterFile), as it would have in a kernel, and
//! can be looked at as a [`FrozenTask`](task_model::FrozenTask).
//!
//! So a policy, a lock or a settlement is tested with plain `cargo test`, natively, and at *every*
//! instruction:
//!
//! ```
//! use drop_registry::hosted::{Hosted, Machine, Stop};
//! use drop_registry::{LockError, Mutex};
//!
//! static LOCK: Mutex<u32, Hosted> = Mutex::new(0);
//!
//! // SAFETY: the tasks allocate nothing, keep nothing in thread-locals, and their lock is static.
//! let mut machine = unsafe { Machine::new() };
//! let task = machine.spawn(|| {
//!     let mut guard = LOCK.lock().unwrap();
//!     *guard = 1;
//!     loop {}
//! });
//! // Never comes back by itself: it is stopped after a thousand instructions, and killed.
//! assert_eq!(machine.run(task, Some(1000)), Stop::BudgetSpent);
//! assert!(LOCK.is_locked());
//! let settled = machine.kill(task);
//! assert_eq!(settled.len(), 1);
//!
//! let next = machine.spawn(|| assert!(matches!(LOCK.lock(), Err(LockError::OwnerDied(_)))));
//! assert_eq!(machine.run(next, None), Stop::Finished);
//! ```
//!
//! # How
//! Every switch goes through a signal handler, which exchanges the interrupted context for another
//! one and returns: the kernel's own `sigreturn` then loads all registers at once, so that nothing
//! is ever written on a task's stack below its stack pointer. Single steps are the trap flag.
//!
//! What the process itself must not do meanwhile: install other handlers for these signals, or
//! handle them on the same thread.
//!
//! # What a test answers for
//! A process has more that tasks can share, or be stopped in the middle of, than a kernel written
//! for this crate. [`Machine::new`] is unsafe for that, and has the list. A test keeps to all of it
//! if its tasks use statics of its own, keep nothing in thread-locals, leak no guard, and call
//! nothing of a library (to allocate, to print) where they are stopped by the instruction; and if
//! nobody changes their registers.

mod current;
mod domain;
mod image;
mod machine;
mod panic_note;
mod parking;
mod signals;
mod stack;
mod switch;
mod task;
#[cfg(test)]
mod tests;
mod timer;

pub(crate) use current::stop_at_panic;
pub use current::{Hosted, Stop, yield_now};
pub use domain::domain;
pub use image::Image;
pub use machine::Machine;
