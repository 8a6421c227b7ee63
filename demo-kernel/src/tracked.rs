//! The drop registry's types as this kernel uses them.
#![expect(unsafe_code, reason = "says which ledger is the current task's")]

use core::ptr::NonNull;

use drop_registry::{CurrentLedger, Cursor, Heap, HeapMemory, KillSwitch, Ledger, TrackedHeap};
use spin::relax::RelaxStrategy;

use crate::{cpu, tasks, traps};

/// The context of every tracked lock and handle.
#[derive(Debug)]
pub(crate) struct Kernel;

// SAFETY: each task's record has a ledger, and the scheduler puts the address of the running
// task's, and its cursor, into the per-CPU block; at boot they are the boot ledger's. Records and
// ledgers are statics. In a trap it is a ledger that refuses; the trap keeps the cursor in the task's
// record, from where it comes back with the task. No task lends a guard's borrow to another one.
unsafe impl CurrentLedger for Kernel {
    #[inline(always)]
    fn current() -> NonNull<Ledger> {
        // SAFETY: `cpu::install` sets the field before anything else runs.
        unsafe { NonNull::new_unchecked(cpu::current_ledger()) }
    }

    #[inline(always)]
    fn cursor() -> Cursor {
        // SAFETY: as in `current`: never null once `cpu::install` has run.
        unsafe { Cursor::from_ptr(cpu::cursor()).unwrap_unchecked() }
    }

    #[inline(always)]
    unsafe fn set_cursor(cursor: Cursor) {
        // SAFETY: this function's contract.
        unsafe { cpu::set_cursor(cursor) };
    }
}

impl KillSwitch for Kernel {
    #[inline(always)]
    fn is_pulled() -> bool {
        cpu::kill_switch()
    }

    fn stop() {
        traps::killed();
    }
}

impl TrackedHeap for Kernel {
    fn heap() -> &'static Heap {
        static MEMORY: HeapMemory<64> = HeapMemory::new();
        static HEAP: Heap = Heap::new(&MEMORY);
        &HEAP
    }
}

/// Waiting for a lock: with one CPU, its holder must run before it can come free.
///
/// The keeper sleeps instead: it is urgent, so a mere yield would give the CPU back to it at once,
/// and the holder would never run. It waits for locks only where it runs the destructors of dead
/// tasks' values, which is after everything in the fault path.
#[derive(Debug)]
pub(crate) struct Yield;

impl RelaxStrategy for Yield {
    fn relax() {
        if tasks::is_urgent() {
            tasks::sleep_ticks(1);
        } else {
            tasks::yield_now();
        }
    }
}

/// The kernel's lock.
pub(crate) type Mutex<T> = drop_registry::Mutex<T, Kernel, Yield>;

/// A held lock.
pub(crate) type MutexGuard<'a, T> = drop_registry::MutexGuard<'a, T, Kernel, Yield>;

/// The kernel's lock for what may be copied.
pub(crate) type RollbackMutex<T> = drop_registry::RollbackMutex<T, Kernel, Yield>;

/// The kernel's lock for what can be mended.
pub(crate) type RepairMutex<T> = drop_registry::RepairMutex<T, Kernel, Yield>;

/// A section in which the task is not killed.
pub(crate) type NoKill = drop_registry::NoKill<Kernel>;

/// The ledger of trap handlers, which hold nothing.
pub(crate) static TRAP_LEDGER: Ledger = Ledger::forbidden();

/// The ledger of everything that runs before the first task.
pub(crate) static BOOT_LEDGER: Ledger = Ledger::new();

/// Whether boot has given back all that it took.
pub(crate) fn boot_ledger_is_empty() -> bool {
    BOOT_LEDGER.is_empty()
}
