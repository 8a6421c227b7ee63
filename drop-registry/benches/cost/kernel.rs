//! The current ledger as a kernel would find it.
#![expect(unsafe_code, reason = "implements CurrentLedger")]

use core::cell::Cell;
use core::ptr::NonNull;

use drop_registry::hosted::Hosted;
use drop_registry::{CurrentLedger, Cursor, Heap, Ledger, TrackedHeap};

/// A context that is measured.
pub(crate) trait Context: TrackedHeap {
    /// Goes on with another ledger, which lies elsewhere in its page. Nothing is held.
    ///
    /// A load waits for an earlier store whose address ends in the same twelve bits, which makes
    /// the one placement in eight that has the ledger where the measured program keeps something
    /// else take twice the time. That is not what is measured.
    fn move_ledger(_: usize) {}
}

impl Context for Hosted {}

/// Ledgers in eight different places of their pages.
static LEDGERS: [Spread; 8] =
    [const { Spread { ledger: Ledger::new(), _next: [0; NEXT - size_of::<Ledger>()] } }; 8];

/// Bytes from one to the next: a page and an eighth.
const NEXT: usize = 4096 + 512;

#[repr(C, align(512))]
struct Spread {
    ledger: Ledger,
    _next: [u8; NEXT - size_of::<Ledger>()],
}

thread_local! {
    static CURRENT: Cell<*const Ledger> = const { Cell::new(&raw const LEDGERS[0].ledger) };
    static CURSOR: Cell<Cursor> = const { Cell::new(Cursor::first(&LEDGERS[0].ledger)) };
}

/// A ledger and a cursor that one `fs:`-relative instruction each reads or writes, which is here
/// what a `gs:`-relative one is in a kernel: a plain access to an address that the linker knows.
/// [`Hosted`] also looks whether it runs in a task.
pub(crate) struct Kernel;

// SAFETY: one thread uses it, which is the one task; the ledgers are there for ever. It goes on
// with another one, and that one's cursor, when it holds nothing.
unsafe impl CurrentLedger for Kernel {
    #[inline(always)]
    fn current() -> NonNull<Ledger> {
        // SAFETY: never set to anything but the address of a ledger.
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

impl Context for Kernel {
    fn move_ledger(to: usize) {
        let ledger = &LEDGERS[to % LEDGERS.len()].ledger;
        CURRENT.set(ledger);
        CURSOR.set(Cursor::first(ledger));
    }
}

/// The same without a cursor beside the ledger's address: the ledger keeps it.
pub(crate) struct LedgerAlone;

// SAFETY: as `Kernel`; and one of the two is measured when the other holds nothing, so that either
// cursor is the first then.
unsafe impl CurrentLedger for LedgerAlone {
    #[inline(always)]
    fn current() -> NonNull<Ledger> {
        Kernel::current()
    }
}

impl TrackedHeap for LedgerAlone {
    fn heap() -> &'static Heap {
        Hosted::heap()
    }
}

impl Context for LedgerAlone {
    fn move_ledger(to: usize) {
        Kernel::move_ledger(to);
    }
}
