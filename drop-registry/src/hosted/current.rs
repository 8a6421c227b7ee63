//! The task that runs, from inside: its ledger, its heap, and how it stops.
#![expect(unsafe_code, reason = "says which ledger is the current task's")]

use core::cell::Cell;
use core::panic::AssertUnwindSafe;
use core::ptr::NonNull;
use std::boxed::Box;
use std::panic::{catch_unwind, resume_unwind};
use std::thread_local;

use task_model::FaultInfo;

use super::signals;
use crate::{CurrentLedger, Cursor, Heap, HeapMemory, KillSwitch, Ledger, TrackedHeap};

thread_local! {
    /// The ledger of whoever runs on this thread.
    pub(super) static LEDGER: Cell<*const Ledger> = const { Cell::new(core::ptr::null()) };
    /// Its cursor; none as long as the driver has used none.
    pub(super) static CURSOR: Cell<Option<Cursor>> = const { Cell::new(None) };
    /// What the driver's own code holds, outside of all tasks.
    static BOOT_LEDGER: &'static Ledger = Box::leak(Box::default());
    /// Why the running task is about to stop by itself, if not to yield.
    pub(super) static END: Cell<Option<Stop>> = const { Cell::new(None) };
    /// Whether the running task is wanted dead.
    pub(super) static WANTED_DEAD: Cell<bool> = const { Cell::new(false) };
}

/// The current task of this thread's [`Machine`](super::Machine), for the `L` of locks and handles.
/// Outside of tasks, the thread itself.
///
/// A context that is made from this one, to park in another way, say, passes on all three functions
/// of [`CurrentLedger`]: it has the same cursor.
#[derive(Debug)]
pub struct Hosted;

// SAFETY: each task has a ledger of its own for ever. Before it runs, `Machine::run` sets `LEDGER` to
// that, and `CURSOR` to what it was when the task stopped; and both back afterwards. The driver has one
// for the thread. There is no trap handler that takes anything. That nobody leaks a guard and lets
// another use what it gave, or frees its lock, is promised by whoever makes a machine.
unsafe impl CurrentLedger for Hosted {
    #[inline(always)]
    fn current() -> NonNull<Ledger> {
        NonNull::new(LEDGER.get().cast_mut()).unwrap_or_else(boot_ledger)
    }

    #[inline(always)]
    fn cursor() -> Cursor {
        CURSOR.get().unwrap_or_else(boot_cursor)
    }

    #[inline(always)]
    unsafe fn set_cursor(cursor: Cursor) {
        CURSOR.set(Some(cursor));
    }
}

impl KillSwitch for Hosted {
    #[inline(always)]
    fn is_pulled() -> bool {
        WANTED_DEAD.get()
    }

    fn stop() {
        if signals::in_task() {
            stop_running(Stop::Killed);
        }
    }
}

impl TrackedHeap for Hosted {
    fn heap() -> &'static Heap {
        static MEMORY: HeapMemory<256> = HeapMemory::new();
        static HEAP: Heap = Heap::new(&MEMORY);
        &HEAP
    }
}

#[cold]
fn boot_ledger() -> NonNull<Ledger> {
    BOOT_LEDGER.with(|ledger| NonNull::from(*ledger))
}

#[cold]
fn boot_cursor() -> Cursor {
    BOOT_LEDGER.with(|ledger| Cursor::first(ledger))
}

/// Why a task gave the thread back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It has executed as many instructions, or run for as long, as it was given. It can be run on.
    BudgetSpent,
    /// It called [`yield_now`]. It can be run on.
    Yielded,
    /// It sleeps in [`Parker::park`](crate::Parker::park). It can be run on once it is unparked.
    Parked,
    /// It cannot go on as it stands.
    Faulted(FaultInfo),
    /// Its entry has returned.
    Finished,
    /// Its entry has panicked, and its own frames have been unwound; if it was in a
    /// [`catch_fault`](crate::catch_fault), those up to there.
    Panicked,
    /// It has come to a [`safepoint`](crate::safepoint), and is [wanted
    /// dead](super::Machine::pull_kill_switch).
    Killed,
}

/// Lets the machine's owner run something else. Outside of tasks, yields the thread.
pub fn yield_now() {
    if signals::in_task() {
        stop_running(Stop::Yielded);
    } else {
        std::thread::yield_now();
    }
}

/// Gives the thread back to the machine's owner, and says why.
pub(super) fn stop_running(why: Stop) {
    END.set(Some(why));
    signals::call_driver();
}

/// Runs `body`; in a task, a panic unwinds no further than this, and stops the task here.
pub(crate) fn stop_at_panic<T>(body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(_) if signals::in_task() => loop {
            stop_running(Stop::Panicked);
        },
        Err(panic) => resume_unwind(panic),
    }
}
