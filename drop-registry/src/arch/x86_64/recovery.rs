//! Recovery points of x86-64: what a function that returns must have put back, and how a task comes
//! back without having returned.
//!
//! System V psABI for x86-64, section 3.2.1 and table 3.4: a call keeps RBX, RBP, R12 to R15, RSP,
//! the control bits of MXCSR, and the x87 control word; it returns with DF clear and the x87
//! register stack empty. All else is the caller's to save.
#![expect(unsafe_code, reason = "saves and restores registers")]

use core::arch::naked_asm;

use task_model::{Gpr, RegisterFile};

/// How many words [`enter`] saves.
pub(crate) const SAVED_WORDS: usize = 10;

/// What [`enter`] saves, in its order.
pub(crate) type SavedWords = [u64; SAVED_WORDS];

/// The registers that the first words are.
const CALLEE_SAVED: [Gpr; 7] =
    [Gpr::Rbx, Gpr::Rbp, Gpr::R12, Gpr::R13, Gpr::R14, Gpr::R15, Gpr::Rsp];
const STACK_POINTER: usize = 6;
/// What the stack pointer points to: where `enter` returns to.
const RETURN_ADDRESS: usize = 7;
const FLAGS: usize = 8;
/// MXCSR in the lower half, the x87 control word above it.
const CONTROL: usize = 9;

/// CF, PF, AF, ZF, SF, OF, and DF, which a call returns with clear; NT and RF, which no code that
/// goes on wants.
const CLEARED: u64 = 0x1_4cd5;
/// IF, IOPL and AC: the cut code may have disabled interrupts, or (with SMAP) opened user memory.
const FROM_THE_POINT: u64 = 0x4_3200;

/// Saves at `saved` what the caller wants back, and calls `body` with the same pointer. Returns 0
/// when that has returned.
///
/// Whoever puts the registers as [`land`] does makes this return 1, instead of `body`.
///
/// # Safety
/// `saved` is the first of [`SAVED_WORDS`] words that are zero and may be written; `body` may be
/// called with it.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn enter(
    saved: *mut SavedWords,
    body: unsafe extern "C-unwind" fn(*mut SavedWords),
) -> u32 {
    naked_asm!(
        ".cfi_startproc",
        "mov [rdi], rbx",
        "mov [rdi + 8], rbp",
        "mov [rdi + 16], r12",
        "mov [rdi + 24], r13",
        "mov [rdi + 32], r14",
        "mov [rdi + 40], r15",
        "mov [rdi + 48], rsp",
        "mov rax, [rsp]",
        "mov [rdi + 56], rax",
        "pushfq",
        ".cfi_adjust_cfa_offset 8",
        "pop qword ptr [rdi + 64]",
        ".cfi_adjust_cfa_offset -8",
        "stmxcsr [rdi + 72]",
        "fnstcw [rdi + 76]",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call rsi",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "xor eax, eax",
        "ret",
        ".cfi_endproc",
    )
}

/// Where a task comes back: with the stack pointer and the callee-saved registers of its call of
/// [`enter`], and the saved words at RDI.
///
/// It restores the floating-point control itself, so that nobody has to know in which layout the
/// kernel keeps that state.
#[unsafe(naked)]
unsafe extern "C-unwind" fn landing() {
    naked_asm!(
        ".cfi_startproc",
        "fninit",
        "fldcw [rdi + 76]",
        "ldmxcsr [rdi + 72]",
        "mov eax, 1",
        "ret",
        ".cfi_endproc",
    )
}

/// The stack pointer with which the task comes back, and what lies there.
pub(crate) const fn return_slot(saved: &SavedWords) -> (u64, u64) {
    (saved[STACK_POINTER], saved[RETURN_ADDRESS])
}

/// Puts the registers of a stopped task as if its call of [`enter`], which saved these words at
/// `address`, returned 1.
pub(crate) fn land(registers: &mut RegisterFile, saved: &SavedWords, address: u64) {
    for (register, value) in CALLEE_SAVED.into_iter().zip(saved) {
        registers[register] = *value;
    }
    registers[Gpr::Rdi] = address;
    registers.rflags =
        registers.rflags & !(CLEARED | FROM_THE_POINT) | saved[FLAGS] & FROM_THE_POINT;
    registers.rip = landing as *const () as u64;
}

const _: () = assert!(CONTROL * 8 == 72 && FLAGS * 8 == 64 && RETURN_ADDRESS * 8 == 56);
