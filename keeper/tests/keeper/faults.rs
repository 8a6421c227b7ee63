//! Instructions that stop a task.

use std::arch::asm;

/// Nothing is mapped here.
pub(crate) const NOWHERE: u64 = 64;

pub(crate) fn write_to_nowhere() {
    // SAFETY: it is not: it stops the task, which is what it is for.
    unsafe { std::ptr::without_provenance_mut::<u8>(NOWHERE as usize).write_volatile(1) };
}

pub(crate) fn invalid_opcode() {
    // SAFETY: it stops the task, and has no other effect. So do the others.
    unsafe { asm!("ud2") };
}

pub(crate) fn divide_by_zero() {
    // SAFETY: as above.
    unsafe { asm!("div {0}", in(reg) 0u64, inout("rax") 1u64 => _, inout("rdx") 0u64 => _) };
}

pub(crate) fn breakpoint() {
    // SAFETY: as above.
    unsafe { asm!("int3") };
}
