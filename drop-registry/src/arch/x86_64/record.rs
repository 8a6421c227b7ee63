//! What the assembly of every window has in common: its record in the table of windows, and the
//! entry that it writes.
#![expect(unsafe_code, reason = "defines a section")]

use core::arch::global_asm;

use crate::ledger::ENTRY_BYTES;

// The section exists even in an image that uses no window, so that its bounds always link.
global_asm!(".pushsection drop_windows,\"aR\",@progbits", ".balign 4", ".popsection");

const _: () = assert!(ENTRY_BYTES == 24);

/// A byte with the encoding number of the register that the compiler chose for operand `$name`:
/// the assembler compares its printed name with all sixteen.
macro_rules! register_number {
    ($name:literal) => {
        concat!(
            ".set .Ldrop_register, 0\n",
            ".irp register,rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15\n",
            ".ifc \\register,{",
            $name,
            "}\n.byte .Ldrop_register\n.endif\n",
            ".set .Ldrop_register, .Ldrop_register + 1\n",
            ".endr"
        )
    };
}

/// A window's record: labels 2 (commit), 3 (decided) and 4 (end), the kind, and what `$registers`
/// assembles to, a byte for each of four registers.
macro_rules! window_record {
    ($kind:literal, $($registers:tt)*) => {
        concat!(
            ".pushsection drop_windows,\"aR\",@progbits\n",
            ".balign 4\n",
            ".long 2b - .\n.long 3b - .\n.long 4b - .\n",
            ".byte ", $kind, "\n",
            $($registers)*, "\n",
            ".balign 4\n",
            ".popsection"
        )
    };
}

/// The record of a window whose registers the compiler chose: those that the kind does not use are
/// left out.
macro_rules! record {
    (@bytes $a:literal) => { concat!(register_number!($a), "\n.byte 0xff, 0xff, 0xff") };
    (@bytes $a:literal, $b:literal) => {
        concat!(register_number!($a), "\n", register_number!($b), "\n.byte 0xff, 0xff")
    };
    // The frame is the window's own: RSP, number 4.
    (@bytes $a:literal, $b:literal, $c:literal, rsp) => {
        concat!(
            register_number!($a), "\n", register_number!($b), "\n", register_number!($c), "\n",
            ".byte 4"
        )
    };
    (@bytes $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            register_number!($a), "\n", register_number!($b), "\n", register_number!($c), "\n",
            register_number!($d)
        )
    };
    ($kind:literal, $($register:tt),*) => {
        window_record!($kind, record!(@bytes $($register),*))
    };
}

/// Writes the entry at `{place}`, for the frame at `$frame`: the tail of every window that records.
/// It lists nothing before the last store.
macro_rules! push_entry {
    ($frame:literal) => {
        concat!(
            "mov qword ptr [{place} + 8], {operations}\n",
            "mov qword ptr [{place} + 16], ",
            $frame,
            "\nmov qword ptr [{place}], {resource}"
        )
    };
}

/// What an entry lists that has been erased where it was: see `Entry::GAP`.
macro_rules! gap {
    () => {
        "1"
    };
}

pub(super) use {gap, push_entry, record, register_number, window_record};
