//! Interrupts off for a while.

use core::arch::naked_asm;

use x86_64::instructions::interrupts;
use x86_64::registers::rflags::RFlags;

/// Runs `f` with interrupts off, and leaves them as they were.
pub(crate) fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    let were_enabled = flags() & RFlags::INTERRUPT_FLAG.bits() != 0;
    interrupts::disable();
    let result = f();
    if were_enabled {
        interrupts::enable();
    }
    result
}

/// The flags.
///
/// A function of its own, because the tables that the compiler makes do not know of a push in the
/// middle of another: a walk that begins there is refused.
#[unsafe(naked)]
extern "C" fn flags() -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "pushfq",
        ".cfi_adjust_cfa_offset 8",
        "pop rax",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
    )
}
