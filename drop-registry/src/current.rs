//! How a guard finds the ledger of the task that it runs in.
#![expect(unsafe_code, reason = "declares an unsafe trait")]

use core::ptr::NonNull;

use crate::{Cursor, Heap, Ledger};

/// Finds the ledger of the current task.
///
/// Locks and handles take the implementor as a type parameter, so that the calls are static and
/// inline: on a kernel to one `gs:`-relative instruction each.
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
/// # Where the cursor is
/// The ledger itself keeps its cursor, unless the context overrides [`cursor`](Self::cursor) and
/// [`set_cursor`](Self::set_cursor), which a kernel does better to do. With the cursor of the task
/// that runs in the block of its CPU, a lock knows where its entry goes after one load; else it
/// follows a pointer to the ledger first, and that is most of what tracking costs. The scheduler
/// then switches cursors with the tasks, as it does ledgers; a life begins with
/// [`Cursor::first`]. The keeper does not look at it.
///
/// # Safety
/// - `current` returns the same ledger for as long as the calling task lives, and no other task
///   gets that ledger meanwhile. A task that is preempted inside any of these functions and goes
///   on on another CPU still gets its own, and sets its own.
/// - `cursor` returns what the calling task has set last, or [`Cursor::first`] of its ledger if it
///   has set none since that was new, or [reset](Ledger::reset). All contexts that return one
///   ledger have one cursor between them: a context that is made from another one passes on all
///   three functions.
/// - The ledger stays valid until nothing it lists can be reached any more: until the task's death
///   has been settled, or for ever.
/// - Before there are tasks, `current` returns a boot ledger. Contexts that are no task and may
///   interrupt one (trap handlers) must not take tracked resources with the ledger of the task
///   that they interrupted. Let `current` return a [`Ledger::forbidden`] there, and they panic.
/// - A task's death ends what it holds while its frames are cut without running. So the
///   implementor also answers for what the types cannot see: that no reference that a task got
///   through a guard or handle of this crate (by leaking the guard, or by lending it to a scoped
///   task) is used by another task after the first one's death; that no task forgets a guard
///   and then moves or frees what it guards, which a ledger lists by its address (a lock that is
///   dropped where it was locked takes itself out of the ledger); and that nobody gets what a dead
///   task may have torn by functions of `lock_api` that do not ask the raw lock (`get_mut` and
///   `data_ptr`).
pub unsafe trait CurrentLedger {
    /// The ledger of the task that calls.
    fn current() -> NonNull<Ledger>;

    /// Where the next entry of the task that calls goes, which is in that ledger.
    #[inline(always)]
    fn cursor() -> Cursor {
        // SAFETY: the ledger is there as long as its task.
        unsafe { Self::current().as_ref() }.cursor()
    }

    /// Sets that. Whoever overrides one of the two overrides both.
    ///
    /// # Safety
    /// For this crate to call: the cursor is in that ledger, and everything from it on is null.
    #[inline(always)]
    unsafe fn set_cursor(cursor: Cursor) {
        // SAFETY: as in `cursor`.
        unsafe { Self::current().as_ref() }.set_cursor(cursor);
    }
}

/// Finds the heap that tracked boxes and shares are allocated from.
///
/// It is one for all tasks, and for ever: a block may outlive the task that took it.
pub trait TrackedHeap: CurrentLedger {
    /// The heap.
    fn heap() -> &'static Heap;
}
