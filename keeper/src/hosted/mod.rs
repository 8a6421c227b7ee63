//! A kernel in an ordinary Linux process, to test policies in.
//!
//! Tasks run on stacks of their own, on the thread that made the [`Kernel`]. They fault as they
//! would in a kernel: SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP stop the task, and go to its
//! keeper. That is the same [`Keepers`](crate::Keepers) as in a kernel, with the same settlement,
//! the same walk through the program's own unwind tables, and the same policies. So a policy is
//! tested with plain `cargo test`. Turn on the feature `hosted` under `[dev-dependencies]`:
//!
//! ```toml
//! keeper = { version = "0.1", features = ["hosted"] }
//! ```
//!
//! Write tasks that do what the policy is for, run them, and look at what is left:
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use drop_registry::{LockError, Mutex};
//! use keeper::hosted::{Current, Kernel};
//! use keeper::{Case, Policy, Verdict};
//! use task_model::FaultKind;
//!
//! /// The policy to be tested: who went astray once may try again.
//! #[derive(Debug)]
//! struct SecondChance;
//!
//! impl Policy for SecondChance {
//!     fn rule(&self, case: &mut Case<'_>) -> Verdict {
//!         match case.fault().kind {
//!             FaultKind::PageFault if case.restarts() == 0 => Verdict::Restart,
//!             _ => Verdict::Exit,
//!         }
//!     }
//! }
//!
//! static BALANCE: Mutex<u64, Current> = Mutex::new(100);
//! static LIVES: AtomicU32 = AtomicU32::new(0);
//!
//! // SAFETY: the tasks allocate nothing, keep nothing in thread-locals, and their lock is static.
//! let kernel = unsafe { Kernel::new() };
//! kernel.spawn_with_policy(&SecondChance, || {
//!     LIVES.fetch_add(1, Ordering::Relaxed);
//!     match BALANCE.lock() {
//!         // The first life: dies in the middle of its work.
//!         Ok(mut balance) => {
//!             *balance = 7;
//!             // SAFETY: it is not; nothing is mapped there.
//!             unsafe { std::ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
//!         }
//!         // The second is told of that.
//!         Err(LockError::OwnerDied(died)) => drop(died.replace(100)),
//!         Err(error) => panic!("{error}"),
//!     }
//! });
//! let reports = kernel.run();
//!
//! // What the policy ruled:
//! assert_eq!(reports.len(), 1);
//! assert_eq!(reports[0].verdict, Some(Verdict::Restart));
//! // And what became of the task and its lock:
//! assert_eq!(LIVES.load(Ordering::Relaxed), 2);
//! kernel.spawn(|| assert_eq!(*BALANCE.lock().unwrap(), 100));
//! assert!(kernel.run().is_empty(), "nobody died of that");
//! ```
//!
//! `examples/own_policy.rs` is a whole test to copy.
//!
//! # Death at any instruction
//! [`Kernel::run`] gives each task a slice of CPU time in turn, so that a task that never stops
//! does not keep the others from running; [`Kernel::run_turns`] comes back from it.
//! [`Kernel::step`] runs one task for so many instructions and no more. [`Kernel::kill`] ends a
//! task wherever it has come to. [`Kernel::with_wait_for_graph`] says who waits for whom, and who
//! waits for ever.
//!
//! # Keepers that die
//! The kernel's owner serves for the root, and for keepers that are [registered](Kernel::register)
//! with the kernel. One that is registered with its [keepers](Kernel::keepers) is served by a task
//! of its own ([`Kernel::spawn_keeper`]), which is stepped, killed, restarted and kept like any
//! other.
//!
//! # What is not as in a kernel
//! - There is one CPU, the thread. Tasks that share a lock of `std`'s share it as one thread does.
//! - A task that is ended in the middle of a library's function takes that with it: if it was the
//!   allocator's, nobody may allocate any more. `run` stops tasks in the program's own code alone;
//!   `step` does not look. Let what is killed by the instruction allocate from its [`Current`] heap.
//! - Only the program's own frames have names, until its [libraries' tables](library_tables) are
//!   added to the [keeper's images](crate::Keepers::images). Before that, a walk ends, partial, at
//!   a frame of a library.
//! - The program must not handle those signals, nor SIGVTALRM, in another way.

mod kernel;
mod tables;
mod tasks;

pub use drop_registry::hosted::{Hosted as Current, Stop, yield_now};
pub use kernel::Kernel;
pub use tables::{library_tables, unwind_tables};
pub use tasks::Tasks;
