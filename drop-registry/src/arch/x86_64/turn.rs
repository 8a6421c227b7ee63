//! The windows that change two words at once.
//!
//! `cmpxchg16b` takes RBX, which the compiler lends to nobody: so these are functions of their own,
//! with their registers chosen and their unwind rules written by hand. Every x86-64 processor since
//! 2006 has the instruction (it is in the x86-64-v2 level of the System V ABI).
#![expect(unsafe_code, reason = "assembly")]

use core::arch::naked_asm;
use core::sync::atomic::AtomicU64;

use super::record::{gap, window_record};
use crate::{Entry, Operations, Place};

/// A word, and the number of its turn: they change together.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Turn {
    pub(crate) word: AtomicU64,
    pub(crate) number: AtomicU64,
}

/// Sets the word of a turn that has none, and erases the entry, which may be anywhere in the
/// ledger: others above it may be in use, so what stays is a gap. Returns whether it did: not if it
/// is another turn by now, or its word is set.
///
/// # Safety
/// `turn` and `entry` are live. With the word set, what `entry` lists is no longer held by its
/// task; nobody else changes the entry meanwhile.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn give(
    turn: *const Turn,
    entry: *const Entry,
    number: u64,
    word: u64,
) -> bool {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rbx, -16",
        // From rdx:rax, the number and nothing, to rcx:rbx, the number and the word.
        "mov rbx, rcx",
        "mov rcx, rdx",
        "xor eax, eax",
        "lock cmpxchg16b xmmword ptr [rdi]",
        "2: jne 5f",
        concat!("3: mov qword ptr [rsi], ", gap!()),
        "4:",
        window_record!("1", ".byte 6, 0xff, 0xff, 0xff"),
        // Nothing since has changed the flags.
        "5: sete al",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbx",
        "ret",
        ".cfi_endproc",
    )
}

/// Clears the word of a turn, makes it the turn of number `next`, and records `resource`, which
/// the word stands for. Returns whether it did: not if it is another turn by now.
///
/// # Safety
/// `turn` is live. To have cleared the word is to hold `resource` in the sense of `operations`;
/// `place` is from the caller's own [`OwnLedger::room`](crate::OwnLedger::room).
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn receive(
    turn: *const Turn,
    resource: *mut (),
    number: u64,
    next: u64,
    word: u64,
    operations: &'static Operations,
    place: Place,
    frame: u64,
) -> bool {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rbx, -16",
        // From rdx:rax, the number and the word, to rcx:rbx, the next number and nothing.
        "mov rax, r8",
        "mov r8, qword ptr [rsp + 16]",
        "mov r11, qword ptr [rsp + 24]",
        "xor ebx, ebx",
        "lock cmpxchg16b xmmword ptr [rdi]",
        "2: jne 5f",
        "3: mov qword ptr [r8 + 8], r9",
        "mov qword ptr [r8 + 16], r11",
        "mov qword ptr [r8], rsi",
        "4:",
        window_record!("0", ".byte 6, 9, 8, 11"),
        "5: sete al",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbx",
        "ret",
        ".cfi_endproc",
    )
}
