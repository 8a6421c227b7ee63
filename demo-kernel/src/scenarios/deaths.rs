//! How a scenario's task dies: each is one instruction, with everything before it in memory.
#![expect(unsafe_code, reason = "faults on purpose")]

use core::arch::asm;

/// An address that is never mapped.
const UNMAPPED: u64 = 0x50_0000_0000;

/// Writes to an unmapped address.
#[inline(always)]
pub(super) fn page_fault() {
    // SAFETY: the store faults, so it changes no memory, and the task does not go on after it.
    unsafe { asm!("mov byte ptr [{}], 1", in(reg) UNMAPPED) };
}

/// Executes an instruction that does not exist.
#[inline(always)]
pub(super) fn invalid_opcode() {
    // SAFETY: the instruction faults, and the task does not go on after it.
    unsafe { asm!("ud2") };
}

/// Divides by zero.
#[inline(always)]
pub(super) fn divide_error() {
    // SAFETY: the division faults, and the task does not go on after it.
    unsafe {
        asm!("div {zero}", zero = in(reg) 0u64, inout("rax") 1u64 => _, inout("rdx") 0u64 => _);
    }
}
