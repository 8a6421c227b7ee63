//! The machine's tasks under other numbers, so that they have their bits in both words of a queue.
#![expect(unsafe_code, reason = "implements a context")]

use std::ptr::NonNull;

use drop_registry::hosted::Hosted;
use drop_registry::{CurrentLedger, Cursor, Ledger, Parker};

/// The hosted machine; but its tasks have the numbers 33, 62, 27, 56, and so on.
#[derive(Debug)]
pub(super) struct Scattered;

/// The first task's number: its bits are in the second word, and so are those of the next task.
const FIRST: usize = 33;
/// How far the next number is, modulo `TASKS`; and what undoes a multiplication by that.
const STEP: usize = 29;
const UNDOES_STEP: usize = 53;
const _: () = assert!(STEP * UNDOES_STEP % Scattered::TASKS == 1);

// SAFETY: as `Hosted`.
unsafe impl CurrentLedger for Scattered {
    fn current() -> NonNull<Ledger> {
        Hosted::current()
    }

    fn cursor() -> Cursor {
        Hosted::cursor()
    }

    unsafe fn set_cursor(cursor: Cursor) {
        // SAFETY: this function's contract.
        unsafe { Hosted::set_cursor(cursor) };
    }
}

// SAFETY: as `Hosted`, whose numbers below 32 have each a number of their own below 64.
unsafe impl Parker for Scattered {
    const TASKS: usize = 64;

    fn index(ledger: &Ledger) -> usize {
        match Hosted::index(ledger) {
            nobody if nobody >= Hosted::TASKS => Self::TASKS,
            number => (number * STEP + FIRST) % Self::TASKS,
        }
    }

    fn park() {
        Hosted::park();
    }

    fn unpark(index: usize) {
        let number = (index + Self::TASKS - FIRST) * UNDOES_STEP % Self::TASKS;
        assert!(number < Hosted::TASKS, "nobody has the number {index}");
        Hosted::unpark(number);
    }
}
