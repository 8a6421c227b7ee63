//! The current ledger as a kernel would find it.
#![expect(unsafe_code, reason = "implements CurrentLedger")]

use core::cell::Cell;
use core::ptr::NonNull;

use drop_registry::hosted::Hosted;
use drop_registry::{CurrentLedger, Cursor, Heap, Ledger, TrackedHeap};

/// A ledger and a cursor that one `fs:`-relative instruction each reads or writes, which is here what
/// a `gs:`-relative one is in a kernel: a plain access to an address that the linker knows.
/// [`Hosted`] also looks whether it runs in a task.
pub(crate) struct Kernel;

static LEDGER: Ledger = Ledger::new();

thread_local! {
    static CURRENT: Cell<*const Ledger> = const { Cell::new(&raw const LEDGER) };
    static CURSOR: Cell<Cursor> = const { Cell::new(Cursor::first(&LEDGER)) };
}

// SAFETY: one thread uses it, which is the one task; the ledger is there for ever.
unsafe impl CurrentLedger for Kernel {
    #[inline(always)]
    fn current() -> NonNull<Ledger> {
        // SAFETY: never set to anything but the address of `LEDGER`.
        unsafe { NonNull::new_unchecked(CURRENT.get().cast_mut()) }
    }

    #[inline(always)]
    fn cursor() -> Cursor {
        CURSOR.get()
    }

    #[inline(always)]
    unsafe fn set_cursor(cursor: Cursor) {
        CURSOR.set(cursor);
    }
}

impl TrackedHeap for Kernel {
    fn heap() -> &'static Heap {
        Hosted::heap()
    }
}
