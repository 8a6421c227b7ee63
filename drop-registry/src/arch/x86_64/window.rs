//! The windows of x86-64.
//!
//! Three things hold in each of them, and `window.rs` relies on them:
//! - the first instruction is the only one that changes the resource;
//! - nothing between `commit` and `end` changes a register that the record names, or RSP;
//! - the ledger changes visibly with the last instruction before `end`, and with no other. (A
//!   decrement that may be the last writes operations before it; who looks in between goes by the
//!   flags, or by the address.)
//!
//! A failed condition leaves before anything is written. Every locked instruction is a full
//! barrier, so it pairs as Acquire and as Release with whoever touches the same word next; a plain
//! `mov` to memory is a Release on this architecture. None of the blocks has `nomem`: the compiler
//! keeps the protected accesses between the windows.
#![expect(unsafe_code, reason = "inline assembly")]

use core::arch::asm;
use core::sync::atomic::AtomicU64;

use super::record::{gap, push_entry, record, register_number, window_record};
use crate::{Entry, Operations, Place};

/// The stack pointer of the function that this is inlined into: what says whose frame acquired a
/// resource, where the window itself is in a function below.
#[inline(always)]
pub(crate) fn frame_address() -> u64 {
    let stack_pointer;
    // SAFETY: reads a register.
    unsafe {
        asm!("mov {}, rsp", out(reg) stack_pointer, options(nomem, nostack, preserves_flags));
    }
    stack_pointer
}

/// Takes a lock word from `expected` to `desired`, and records it. Returns whether it did.
///
/// # Safety
/// `word` is live, and taking it from `expected` to `desired` means to hold it in the sense of
/// `operations`; `place` is from the caller's own [`OwnLedger::room`](crate::OwnLedger::room).
#[inline(always)]
pub(crate) unsafe fn acquire(
    word: &AtomicU64,
    expected: u64,
    desired: u64,
    operations: &'static Operations,
    place: Place,
) -> bool {
    // SAFETY: the block writes the word and the entry at `place`, which the contract hands to it,
    // and keeps the module's three rules.
    unsafe {
        asm!(
            "lock cmpxchg qword ptr [{resource}], {desired}",
            "2: jne {contended}",
            "3:",
            push_entry!("rsp"),
            "4:",
            record!("0", "resource", "operations", "place", rsp),
            resource = in(reg) word,
            desired = in(reg) desired,
            operations = in(reg) operations,
            place = in(reg) place.as_ptr(),
            inout("rax") expected => _,
            contended = label { return false },
        );
    }
    true
}

/// Changes a word from `expected` to `desired`, and records `resource`, which is not the word
/// itself. Returns whether it did.
///
/// # Safety
/// `word` is live, and changing it so means to hold `resource` in the sense of `operations`;
/// `place` is from the caller's own [`OwnLedger::room`](crate::OwnLedger::room).
pub(crate) unsafe fn claim(
    word: &AtomicU64,
    expected: u64,
    desired: u64,
    resource: *mut (),
    operations: &'static Operations,
    place: Place,
    frame: u64,
) -> bool {
    // SAFETY: as in `acquire`.
    unsafe {
        asm!(
            "lock cmpxchg qword ptr [{word}], {desired}",
            "2: jne {refused}",
            "3:",
            push_entry!("{frame}"),
            "4:",
            record!("0", "resource", "operations", "place", "frame"),
            word = in(reg) word,
            desired = in(reg) desired,
            resource = in(reg) resource,
            operations = in(reg) operations,
            place = in(reg) place.as_ptr(),
            frame = in(reg) frame,
            inout("rax") expected => _,
            refused = label { return false },
        );
    }
    true
}

/// Adds one to a count, and records the share. Returns whether the count is still below 2^63; if
/// it is not, the share is counted but not recorded, and the count stays up for ever.
///
/// # Safety
/// `count` is live and above 0, and one more of it is a share in the sense of `operations`;
/// `place` is from the caller's own [`OwnLedger::room`](crate::OwnLedger::room).
#[inline(always)]
pub(crate) unsafe fn increment(
    count: &AtomicU64,
    operations: &'static Operations,
    place: Place,
    frame: u64,
) -> bool {
    // SAFETY: as in `acquire`.
    unsafe {
        asm!(
            "lock inc qword ptr [{resource}]",
            "2: 3: js {overflow}",
            push_entry!("{frame}"),
            "4:",
            record!("0", "resource", "operations", "place", "frame"),
            resource = in(reg) count,
            operations = in(reg) operations,
            place = in(reg) place.as_ptr(),
            frame = in(reg) frame,
            overflow = label { return false },
        );
    }
    true
}

/// Adds one to a count, and gives the entry `operations`: it lists a share that was not counted.
/// Returns whether the count is still below 2^63; if it is not, it stays up for ever, and the entry
/// as it is.
///
/// # Safety
/// `count` is live and above 0; to hold a share of it is what `operations` undo; the caller alone
/// changes the entry.
pub(crate) unsafe fn increment_listed(
    count: &AtomicU64,
    operations: &'static Operations,
    entry: *const Entry,
) -> bool {
    // SAFETY: the contract hands one count and the entry to the block.
    unsafe {
        asm!(
            "lock inc qword ptr [{count}]",
            "2: 3: js {overflow}",
            "mov qword ptr [{entry} + 8], {operations}",
            "4:",
            record!("3", "entry", "operations"),
            count = in(reg) count,
            entry = in(reg) entry,
            operations = in(reg) operations,
            overflow = label { return false },
        );
    }
    true
}

/// Takes `pointer` out of `slot`, which nobody else can reach, and records it.
///
/// # Safety
/// The caller has `slot` to itself, it holds `pointer`, and having taken that means to hold it in
/// the sense of `operations`; `place` is from the caller's own
/// [`OwnLedger::room`](crate::OwnLedger::room).
#[inline(always)]
pub(crate) unsafe fn adopt(
    slot: *mut *mut (),
    pointer: *mut (),
    operations: &'static Operations,
    place: Place,
    frame: u64,
) {
    // SAFETY: as in `acquire`.
    unsafe {
        asm!(
            "mov qword ptr [{slot}], 0",
            "2: 3:",
            push_entry!("{frame}"),
            "4:",
            record!("0", "resource", "operations", "place", "frame"),
            slot = in(reg) slot,
            resource = in(reg) pointer,
            operations = in(reg) operations,
            place = in(reg) place.as_ptr(),
            frame = in(reg) frame,
        );
    }
}

/// Stores `value` into a lock word that the caller owns, and empties its entry, which is the last:
/// see [`OwnLedger::drop_last`](crate::OwnLedger::drop_last).
///
/// # Safety
/// The caller holds `word`, and storing `value` gives it up; `entry` lists it, and is the last of
/// the caller's own ledger.
#[inline(always)]
pub(crate) unsafe fn release_last(word: &AtomicU64, value: u64, entry: *const Entry) {
    // SAFETY: the contract hands the word and the entry to the block.
    unsafe {
        asm!(
            "mov qword ptr [{word}], {value}",
            "2: 3: mov qword ptr [{entry}], 0",
            "4:",
            record!("1", "entry"),
            word = in(reg) word,
            value = in(reg) value,
            entry = in(reg) entry,
        );
    }
}

/// Changes a word from `expected` to `desired`, and erases the entry. Returns whether it did.
///
/// It gives up what `entry` lists: out of order, into a place that keeps it, or from outside for a
/// dead task.
///
/// # Safety
/// `word` is live; changing it so means that what `entry` lists is no longer held by its task;
/// nobody else changes the entry meanwhile.
pub(crate) unsafe fn exchange(
    word: &AtomicU64,
    expected: u64,
    desired: u64,
    entry: *const Entry,
) -> bool {
    // SAFETY: the contract hands the word and the entry to the block.
    unsafe {
        asm!(
            "lock cmpxchg qword ptr [{word}], {desired}",
            "2: jne {refused}",
            concat!("3: mov qword ptr [{entry}], ", gap!()),
            "4:",
            record!("1", "entry"),
            word = in(reg) word,
            desired = in(reg) desired,
            entry = in(reg) entry,
            inout("rax") expected => _,
            refused = label { return false },
        );
    }
    true
}

/// As [`exchange`], but the entry stays, with `owed` for its operations.
///
/// # Safety
/// As [`exchange`]; and what `owed` undo is the task's to do from then on.
pub(crate) unsafe fn exchange_owing(
    word: &AtomicU64,
    expected: u64,
    desired: u64,
    entry: *const Entry,
    owed: &'static Operations,
) -> bool {
    // SAFETY: the contract hands the word and the entry to the block.
    unsafe {
        asm!(
            "lock cmpxchg qword ptr [{word}], {desired}",
            "2: jne {refused}",
            "3: mov qword ptr [{entry} + 8], {owed}",
            "4:",
            record!("3", "entry", "owed"),
            word = in(reg) word,
            desired = in(reg) desired,
            entry = in(reg) entry,
            owed = in(reg) owed,
            inout("rax") expected => _,
            refused = label { return false },
        );
    }
    true
}

/// Takes one from a count, and empties its entry, which is the ledger's last: see
/// [`OwnLedger::drop_last`](crate::OwnLedger::drop_last). Or, if that was the last of the count,
/// leaves the entry with `last` for its operations and returns true.
///
/// # Safety
/// `entry` lists a share of `count` and is the last of the caller's own ledger.
#[inline(always)]
pub(crate) unsafe fn decrement_last(
    count: &AtomicU64,
    entry: *const Entry,
    last: &'static Operations,
) -> bool {
    // SAFETY: the contract hands one count and the last entry to the block.
    unsafe {
        asm!(
            "lock dec qword ptr [{count}]",
            // Written in either case, so that no jump comes between the decrement and it; an
            // entry that is emptied next does not mind.
            "2: mov qword ptr [{entry} + 8], {last}",
            "jz {destroy}",
            "3: mov qword ptr [{entry}], 0",
            "4:",
            record!("2", "entry", "last"),
            count = in(reg) count,
            entry = in(reg) entry,
            last = in(reg) last,
            destroy = label { return true },
        );
    }
    false
}

/// As [`decrement_last`], for an entry anywhere in any ledger: out of order, or from outside for a
/// dead task.
///
/// # Safety
/// `entry` lists a share of `count`; nobody else changes the entry meanwhile.
pub(crate) unsafe fn decrement(
    count: &AtomicU64,
    entry: *const Entry,
    last: *const Operations,
) -> bool {
    // SAFETY: the contract hands one count and the entry to the block.
    unsafe {
        asm!(
            "lock dec qword ptr [{count}]",
            "2: mov qword ptr [{entry} + 8], {last}",
            "jz {destroy}",
            concat!("3: mov qword ptr [{entry}], ", gap!()),
            "4:",
            record!("2", "entry", "last"),
            count = in(reg) count,
            entry = in(reg) entry,
            last = in(reg) last,
            destroy = label { return true },
        );
    }
    false
}

/// Takes one from a count, and erases the entry.
///
/// # Safety
/// `entry` lists one of `count`; nobody else changes the entry meanwhile.
pub(crate) unsafe fn decrement_erasing(count: &AtomicU64, entry: *const Entry) {
    // SAFETY: the contract hands one count and the entry to the block.
    unsafe {
        asm!(
            "lock dec qword ptr [{count}]",
            concat!("2: 3: mov qword ptr [{entry}], ", gap!()),
            "4:",
            record!("1", "entry"),
            count = in(reg) count,
            entry = in(reg) entry,
        );
    }
}

/// Takes one from a count; the entry stays, with `owed` for its operations.
///
/// # Safety
/// As [`decrement_erasing`]; and what `owed` undo is the task's to do from then on.
pub(crate) unsafe fn decrement_owing(
    count: &AtomicU64,
    entry: *const Entry,
    owed: &'static Operations,
) {
    // SAFETY: the contract hands one count and the entry to the block.
    unsafe {
        asm!(
            "lock dec qword ptr [{count}]",
            "2: 3: mov qword ptr [{entry} + 8], {owed}",
            "4:",
            record!("3", "entry", "owed"),
            count = in(reg) count,
            entry = in(reg) entry,
            owed = in(reg) owed,
        );
    }
}

/// As [`decrement_erasing`], for the ledger's last entry, which is emptied: see
/// [`OwnLedger::drop_last`](crate::OwnLedger::drop_last).
///
/// # Safety
/// `entry` lists one of `count`, and is the last of the caller's own ledger.
#[inline(always)]
pub(crate) unsafe fn leave_last(count: &AtomicU64, entry: *const Entry) {
    // SAFETY: the contract hands one count and the entry to the block.
    unsafe {
        asm!(
            "lock dec qword ptr [{count}]",
            "2: 3: mov qword ptr [{entry}], 0",
            "4:",
            record!("1", "entry"),
            count = in(reg) count,
            entry = in(reg) entry,
        );
    }
}
