//! How a task sleeps, and how it is woken.
#![expect(unsafe_code, reason = "declares an unsafe trait")]

use crate::{CurrentLedger, Ledger};

/// Puts tasks to sleep, for the locks and queues that do not spin.
///
/// Each task has one *token*, as in `std::thread::park`: [`unpark`](Self::unpark) sets it, and
/// [`park`](Self::park) returns as soon as it is set, and takes it. So an unpark that comes before
/// the park is not lost, and several before one park count as one.
///
/// The tokens belong to this crate's primitives. A token may be left over from a wait that is
/// over, and a wait may take one that was meant for somebody's own use of `park`; so whoever else
/// parks must look again at what it waits for, as the primitives themselves do.
///
/// ```
/// # use core::ptr::NonNull;
/// # use core::sync::atomic::{AtomicBool, Ordering};
/// # use drop_registry::{CurrentLedger, Ledger};
/// use drop_registry::{Park, Parker, Mutex};
///
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// # struct Sleeping { token: AtomicBool }
/// # static TASKS: [Sleeping; 1] = [Sleeping { token: AtomicBool::new(false) }];
/// # fn leave_the_processor() {}
/// // A kernel with a table of tasks.
/// //
/// // SAFETY: each task has its place in the table until its death is settled; a token is one
/// // atomic word, and setting it neither waits nor fails.
/// unsafe impl Parker for Kernel {
///     const TASKS: usize = TASKS.len();
///
///     fn index(ledger: &Ledger) -> usize {
///         # let _ = ledger;
///         0 // where `ledger` stands in the table
///     }
///
///     fn park() {
///         while !TASKS[0].token.swap(false, Ordering::Acquire) {
///             leave_the_processor();
///         }
///     }
///
///     fn unpark(index: usize) {
///         TASKS[index].token.store(true, Ordering::Release);
///         // and make it ready to run
///     }
/// }
///
/// static LOCK: Mutex<u32, Kernel, Park> = Mutex::new(0);
/// *LOCK.lock().expect("nobody died") += 1;
/// ```
///
/// # Safety
/// - No two tasks that are alive, or dead and not yet settled, have the same number.
/// - `unpark` may be called in the fault path, for any number below `TASKS`, be it a living task's
///   or not: it allocates nothing, takes no lock that its caller's death could leave held, waits
///   for nothing and does not panic.
/// - A task that dies in `park` or `unpark`, at any instruction, leaves nothing behind that keeps
///   others from using them. `unpark` is called again then.
/// - What a task wrote before it called `unpark` is visible to the task whose `park` takes that
///   token.
pub unsafe trait Parker: CurrentLedger {
    /// How many numbers there are: each task's is below it.
    const TASKS: usize;

    /// The number of the task whose ledger this is; [`TASKS`](Self::TASKS) or more if it has none,
    /// because it is not one that may wait. Also called in the fault path, for the ledger of a dead
    /// task that waited, or that seems to have: it does not panic.
    fn index(ledger: &Ledger) -> usize;

    /// Sleeps until the calling task's token is set, and takes it. It may also return without.
    fn park();

    /// Sets the token of task number `index`, and wakes the task if it sleeps.
    fn unpark(index: usize);
}
