//! The trap stubs: from the CPU's frame on a trap stack to a saved [`RegisterFile`], and back.
//!
//! The trap stack, downwards from its top, which is the canonical frame address (CFA) of the
//! unwind rules here:
//! ```text
//!   CFA - 8   SS     ┐
//!   CFA - 16  RSP    │
//!   CFA - 24  RFLAGS │ pushed by the CPU
//!   CFA - 32  CS     │
//!   CFA - 40  RIP    ┘
//!   CFA - 48  error code, or 0 from the stub
//!   CFA - 56  vector
//!   CFA - 64  RAX, for a moment; then the save area      (on the way back: of the next task)
//!   CFA - 72                                             (on the way back: RAX)
//! ```
//! A non-maskable interrupt may come at any instruction of a stub. It saves into whatever the
//! save area is, and it returns to where it came from. Until the exchange with `trap_area` that
//! is the task's own record, which does not hold anything yet; after it, the nested area; and
//! from the last store to `save_area` on the task's record again, which has been read to the end.
//! The dispatcher tells an interrupted stub by its address.
#![expect(unsafe_code, reason = "naked functions")]

use core::arch::naked_asm;
use core::mem::offset_of;

use task_model::RegisterFile;

use super::dispatch::dispatch;
use crate::cpu;

const STUB_SIZE: u64 = 16;

/// Where the stub of `vector` is.
pub(crate) fn stub_address(vector: u8) -> u64 {
    vector_stubs as *const () as u64 + u64::from(vector) * STUB_SIZE
}

/// 256 stubs: each completes the frame with an error code, if the CPU pushed none, and a vector.
#[unsafe(naked)]
#[unsafe(link_section = ".text.traps")]
extern "C" fn vector_stubs() {
    naked_asm!(
        ".balign 16",
        ".cfi_startproc",
        ".cfi_signal_frame",
        ".cfi_offset rip, -40",
        ".cfi_offset rsp, -16",
        ".set vector, 0",
        ".rept 256",
        ".balign {stub_size}, 0xcc",
        // 8, 10 to 14, 17, 21, 29, 30: Intel SDM volume 3, table 6-1, and AMD's #VC and #SX.
        ".if (vector < 32) && ((0x60227d00 >> vector) & 1)",
        ".cfi_def_cfa rsp, 48",
        ".else",
        ".cfi_def_cfa rsp, 40",
        "push 0",
        ".cfi_adjust_cfa_offset 8",
        ".endif",
        // `push imm32`, spelled out: an assembler takes a symbol for a memory operand.
        ".byte 0x68",
        ".long vector",
        ".cfi_adjust_cfa_offset 8",
        "jmp {save_and_dispatch}",
        ".set vector, vector + 1",
        ".endr",
        ".cfi_endproc",
        stub_size = const STUB_SIZE,
        save_and_dispatch = sym save_and_dispatch,
    )
}

/// The control register of SSE as a handler finds it: all exceptions masked.
static MXCSR: u32 = 0x1f80;

/// Saves everything, calls [`dispatch`], restores what it returns.
#[unsafe(naked)]
#[unsafe(link_section = ".text.traps")]
extern "C" fn save_and_dispatch() {
    naked_asm!(
        // The rule of a register that is saved in the area: *(CFA - 64) + offset. As
        // DW_CFA_expression, which starts with the CFA on its stack:
        // DW_OP_const1u 64, minus, deref, plus_uconst offset.
        ".macro in_area dwarf, offset",
        ".cfi_escape 0x10, \\dwarf, 6, 0x08, 64, 0x1c, 0x06, 0x23, \\offset",
        ".endm",
        ".cfi_startproc",
        ".cfi_signal_frame",
        ".cfi_def_cfa rsp, 56",
        ".cfi_offset rip, -40",
        ".cfi_offset rsp, -16",
        "push rax",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rax, -64",
        "mov rax, gs:[{trap_area}]",
        "xchg rax, gs:[{save_area}]",
        "pop qword ptr [rax + 8 * 0]",
        ".cfi_adjust_cfa_offset -8",
        // Of RAX: *(RAX + 0), DW_OP_breg0 0. The others are what they were.
        ".cfi_escape 0x10, 0, 2, 0x70, 0",
        "push rax",
        ".cfi_adjust_cfa_offset 8",
        "in_area 0, 8 * 0",
        "mov [rax + 8 * 1], rcx",
        "mov [rax + 8 * 2], rdx",
        "mov [rax + 8 * 3], rbx",
        "mov [rax + 8 * 5], rbp",
        "mov [rax + 8 * 6], rsi",
        "mov [rax + 8 * 7], rdi",
        "mov [rax + 8 * 8], r8",
        "mov [rax + 8 * 9], r9",
        "mov [rax + 8 * 10], r10",
        "mov [rax + 8 * 11], r11",
        "mov [rax + 8 * 12], r12",
        "mov [rax + 8 * 13], r13",
        "mov [rax + 8 * 14], r14",
        "mov [rax + 8 * 15], r15",
        "fxsave64 [rax + {fpu}]",
        "in_area 2, 8 * 1",
        "in_area 1, 8 * 2",
        "in_area 3, 8 * 3",
        "in_area 6, 8 * 5",
        "in_area 4, 8 * 6",
        "in_area 5, 8 * 7",
        "in_area 8, 8 * 8",
        "in_area 9, 8 * 9",
        "in_area 10, 8 * 10",
        "in_area 11, 8 * 11",
        "in_area 12, 8 * 12",
        "in_area 13, 8 * 13",
        "in_area 14, 8 * 14",
        "in_area 15, 8 * 15",
        // Two at a time, through registers that are saved already.
        "movups xmm0, [rsp + 64 - 40]",
        "movlps [rax + {rip}], xmm0",
        "movhps [rax + {cs}], xmm0",
        "movups xmm0, [rsp + 64 - 24]",
        "movlps [rax + {rflags}], xmm0",
        "movhps [rax + 8 * 4], xmm0",
        "mov rcx, [rsp + 64 - 8]",
        "mov [rax + {ss}], rcx",
        // From here to the restored registers the area alone says what they were.
        "in_area 7, 8 * 4",
        // `in_area` with an offset of two LEB128 bytes: 128.
        ".cfi_escape 0x10, 16, 7, 0x08, 64, 0x1c, 0x06, 0x23, 0x80, 0x01",
        "cld",
        "ldmxcsr [rip + {mxcsr}]",
        "mov rdi, [rsp + 64 - 56]",
        "mov rsi, [rsp + 64 - 48]",
        "mov rdx, rax",
        "call {dispatch}",
        "mov [rsp + 64 - 64], rax",
        "movlps xmm0, [rax + {rip}]",
        "movhps xmm0, [rax + {cs}]",
        "movups [rsp + 64 - 40], xmm0",
        "movlps xmm0, [rax + {rflags}]",
        "movhps xmm0, [rax + 8 * 4]",
        "movups [rsp + 64 - 24], xmm0",
        "mov rcx, [rax + {ss}]",
        "mov [rsp + 64 - 8], rcx",
        "push qword ptr [rax + 8 * 0]",
        ".cfi_adjust_cfa_offset 8",
        "fxrstor64 [rax + {fpu}]",
        "mov rcx, [rax + 8 * 1]",
        "mov rdx, [rax + 8 * 2]",
        "mov rbx, [rax + 8 * 3]",
        "mov rbp, [rax + 8 * 5]",
        "mov rsi, [rax + 8 * 6]",
        "mov rdi, [rax + 8 * 7]",
        "mov r8, [rax + 8 * 8]",
        "mov r9, [rax + 8 * 9]",
        "mov r10, [rax + 8 * 10]",
        "mov r11, [rax + 8 * 11]",
        "mov r12, [rax + 8 * 12]",
        "mov r13, [rax + 8 * 13]",
        "mov r14, [rax + 8 * 14]",
        "mov r15, [rax + 8 * 15]",
        ".irp register, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15",
        ".cfi_same_value \\register",
        ".endr",
        ".cfi_offset rip, -40",
        ".cfi_offset rsp, -16",
        ".cfi_offset rax, -72",
        "mov gs:[{save_area}], rax",
        "pop rax",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_same_value rax",
        "lea rsp, [rsp + 64 - 40]",
        ".cfi_def_cfa_offset 40",
        "iretq",
        ".cfi_endproc",
        ".purgem in_area",
        trap_area = const cpu::TRAP_AREA,
        save_area = const cpu::SAVE_AREA,
        rip = const offset_of!(RegisterFile, rip),
        rflags = const offset_of!(RegisterFile, rflags),
        cs = const offset_of!(RegisterFile, cs),
        ss = const offset_of!(RegisterFile, ss),
        fpu = const offset_of!(RegisterFile, fpu),
        mxcsr = sym MXCSR,
        dispatch = sym dispatch,
    )
}
