//! Hand-written shapes: what compilers rarely make, and one function whose tables are wrong.

use std::arch::naked_asm;
use std::hint::black_box;

/// A leaf that keeps everything below the stack pointer.
#[unsafe(naked)]
extern "C" fn in_the_red_zone(value: u64) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "mov [rsp - 8], rdi",
        "mov [rsp - 128], rdi",
        "xor eax, eax",
        "add rax, [rsp - 8]",
        "add rax, [rsp - 128]",
        "ret",
        ".cfi_endproc",
    )
}

/// A frame of a size that is known only when it runs, which `leave` takes down.
#[unsafe(naked)]
extern "C" fn dynamic_frame(size: u64) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "push rbx",
        ".cfi_offset rbx, -24",
        "push r12",
        ".cfi_offset r12, -32",
        "and rdi, -16",
        "sub rsp, rdi",
        "mov rbx, rdi",
        "mov r12, rsp",
        "call {leaf}",
        "add rax, rbx",
        "lea rsp, [rbp - 16]",
        "pop r12",
        "pop rbx",
        "leave",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        leaf = sym in_the_red_zone,
    )
}

/// Two ends, of which the first gives everything back: the state is remembered and restored. And
/// as LLVM writes it, nothing says that the registers have been popped.
#[unsafe(naked)]
extern "C" fn early_return(value: u64) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbx, -16",
        "push r15",
        ".cfi_def_cfa_offset 24",
        ".cfi_offset r15, -24",
        "mov rbx, rdi",
        "mov r15d, 15",
        "test rdi, 1",
        "jne 2f",
        ".cfi_remember_state",
        "pop r15",
        ".cfi_def_cfa_offset 16",
        "pop rbx",
        ".cfi_def_cfa_offset 8",
        "mov eax, 7",
        "ret",
        "2:",
        ".cfi_restore_state",
        "sub rsp, 8",
        // Absolute: LLVM's assembler takes an adjustment here as one of the offset before the
        // state was restored, and GNU's as one of the restored offset.
        ".cfi_def_cfa_offset 32",
        "dec rdi",
        "call {dynamic_frame}",
        "add rax, r15",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "pop r15",
        ".cfi_adjust_cfa_offset -8",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        // The callee takes this frame's place.
        "lea rdi, [rax + 64]",
        "jmp {dynamic_frame}",
        ".cfi_endproc",
        dynamic_frame = sym dynamic_frame,
    )
}

/// As GCC aligns a stack: the address of the arguments is kept in a register, then in the frame,
/// and the CFA is an expression.
#[unsafe(naked)]
extern "C" fn realigned(value: u64) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "lea r10, [rsp + 8]",
        ".cfi_def_cfa r10, 0",
        "and rsp, -64",
        "push qword ptr [r10 - 8]",
        "push rbp",
        "mov rbp, rsp",
        // DW_CFA_expression: rbp is at rbp + 0.
        ".cfi_escape 0x10, 0x06, 0x02, 0x76, 0x00",
        "push r10",
        // DW_CFA_def_cfa_expression: *(rbp - 8).
        ".cfi_escape 0x0f, 0x03, 0x76, 0x78, 0x06",
        "sub rsp, 40",
        "call {early_return}",
        "mov r10, [rbp - 8]",
        ".cfi_def_cfa r10, 0",
        "leave",
        "lea rsp, [r10 - 8]",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        early_return = sym early_return,
    )
}

/// The tables say that the frame is 16 bytes larger than it is.
#[unsafe(naked)]
extern "C" fn wrong_frame_size(value: u64) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rdi",
        ".cfi_adjust_cfa_offset 24",
        "nop",
        "add rsp, 16",
        ".cfi_adjust_cfa_offset -32",
        "mov rax, rdi",
        "ret",
        ".cfi_endproc",
    )
}

/// The tables say nothing of a register that has been saved and changed.
#[unsafe(naked)]
extern "C" fn forgotten_register(value: u64) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        "lea rbx, [rdi + 1]",
        "mov rax, rbx",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
    )
}

pub(super) extern "C" fn frames() {
    black_box((early_return(2), realigned(3), realigned(4), dynamic_frame(600)));
}

pub(super) extern "C" fn planted_frame_size() {
    black_box(wrong_frame_size(1));
}

pub(super) extern "C" fn planted_register() {
    black_box(forgotten_register(1));
}
