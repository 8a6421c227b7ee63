//! How a guard finds the ledger of the task that it runs in.
#![expect(unsafe_code, reason = "declares an unsafe trait")]

use core::ptr::NonNull;

use crate::{Heap, Ledger};

/// Finds the ledger of the current task.
///
/// Locks and handles take the implementor as a type parameter, so that the call is static and
/// inlines: on a kernel to one `gs:`-relative load.
///
/// ```
/// use core::ptr::NonNull;
/// use drop_registry::{CurrentLedger, Ledger, Mutex};
///
/// // A program of one task, which also serves as the boot ledger of a kernel.
/// struct OnlyTask;
///
/// static LEDGER: Ledger = Ledger::new();
///
/// // SAFETY: there is one task and one ledger, and nothing ends the task.
/// unsafe impl CurrentLedger for OnlyTask {
///     fn current() -> NonNull<Ledger> {
///         NonNull::from(&LEDGER)
///     }
/// }
///
/// static COUNTER: Mutex<u32, OnlyTask> = Mutex::new(0);
///
/// *COUNTER.lock().expect("nobody died") += 1;
/// ```
///
/// # Safety
/// - `current` returns the same ledger for as long as the calling task lives, and no other task
///   gets that ledger meanwhile. A task that is preempted inside `current` and goes on on another
///   CPU still gets its own.
/// - The ledger stays valid until nothing it lists can be reached any more: until the task's death
///   has been settled, or for ever.
/// - Before there are tasks, `current` returns a boot ledger. Contexts that are no task and may
///   interrupt one (trap handlers) must not take tracked resources with the ledger of the task
///   that they interrupted. Let `current` return a [`Ledger::forbidden`] there, and they panic.
/// - A task's death ends what it holds while its frames are cut without running. So the
///   implementor also answers for what the types cannot see: that no reference that a task got
///   through a guard or handle of this crate (by leaking the guard, or by lending it to a scoped
///   task) is used by another task after the first one's death; and that no task forgets a guard
///   and then moves or frees what it guards, which a ledger lists by its address. (A lock that is
///   dropped where it was locked takes itself out of the ledger.)
pub unsafe trait CurrentLedger {
    /// The ledger of the task that calls.
    fn current() -> NonNull<Ledger>;
}

/// Finds the heap that tracked boxes and shares are allocated from.
///
/// It is one for all tasks, and for ever: a block may outlive the task that took it.
pub trait TrackedHeap: CurrentLedger {
    /// The heap.
    fn heap() -> &'static Heap;
}
