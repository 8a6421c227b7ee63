//! The two symbols that unwind tables and landing pads of the libraries name.
//!
//! The libraries are compiled with landing pads and this image without; nothing here unwinds, so
//! neither is ever reached. Each is an invalid instruction, so that reaching it is a fault of the
//! task that did, at an address with this name.
#![expect(unsafe_code, reason = "defines symbols of the unwinding ABI")]

use core::arch::naked_asm;

/// The personality routine that the tables point to (Itanium C++ ABI: Exception Handling, 2.5.2).
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {
    naked_asm!(".cfi_startproc", "ud2", ".cfi_endproc")
}

/// Where a landing pad ends (Itanium C++ ABI: Exception Handling, 1.3.3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() {
    naked_asm!(".cfi_startproc", "ud2", ".cfi_endproc")
}
