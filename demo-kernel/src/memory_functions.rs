//! The functions of C's `string.h` that compiled code and `core` call without being asked.
//!
//! The prebuilt `compiler_builtins` leaves them to a C library on this target. String
//! instructions keep them small, and free of the loops that the compiler would turn back into
//! calls of themselves. Each is interruptible at any element, and faults like any other code.
#![expect(unsafe_code, reason = "defines symbols that compiled code calls with raw pointers")]

use core::arch::naked_asm;

/// `memcpy(destination: rdi, source: rsi, count: rdx) -> rax`
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn memcpy() {
    naked_asm!(".cfi_startproc", "mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret", ".cfi_endproc")
}

/// `memmove(destination: rdi, source: rsi, count: rdx) -> rax`
///
/// The backward copy works with the direction flag set; a trap there is no trouble, since the
/// stub saves the flags and clears this one.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn memmove() {
    naked_asm!(
        ".cfi_startproc",
        "mov rax, rdi",
        "mov rcx, rdx",
        "mov r8, rdi",
        "sub r8, rsi",
        // Unsigned: below `count` only if the destination starts inside the source.
        "cmp r8, rdx",
        "jb 2f",
        "rep movsb",
        "ret",
        "2:",
        "lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
        ".cfi_endproc"
    )
}

/// `memset(destination: rdi, byte: esi, count: rdx) -> rax`
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn memset() {
    naked_asm!(
        ".cfi_startproc",
        "mov r8, rdi",
        "mov eax, esi",
        "mov rcx, rdx",
        "rep stosb",
        "mov rax, r8",
        "ret",
        ".cfi_endproc"
    )
}

/// `memcmp(left: rdi, right: rsi, count: rdx) -> eax`
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn memcmp() {
    naked_asm!(
        ".cfi_startproc",
        "xor eax, eax",
        "mov rcx, rdx",
        // Sets ZF, which an empty comparison would leave as it was.
        "cmp rax, rax",
        "repe cmpsb",
        "je 2f",
        "movzx eax, byte ptr [rdi - 1]",
        "movzx ecx, byte ptr [rsi - 1]",
        "sub eax, ecx",
        "2:",
        "ret",
        ".cfi_endproc"
    )
}

/// `bcmp(left: rdi, right: rsi, count: rdx) -> eax`: only zero or not zero.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn bcmp() {
    naked_asm!(".cfi_startproc", "jmp {memcmp}", ".cfi_endproc", memcmp = sym memcmp)
}

/// `strlen(text: rdi) -> rax`
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn strlen() {
    naked_asm!(
        ".cfi_startproc",
        "xor eax, eax",
        "mov rcx, -1",
        // Counts down for each byte up to and including the zero: RCX = -2 - length.
        "repne scasb",
        "mov rax, -2",
        "sub rax, rcx",
        "ret",
        ".cfi_endproc"
    )
}
