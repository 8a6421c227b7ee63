//! The stack that everybody walks: 32 frames of a dozen functions.
//!
//! They are assembled, because all of them have to keep the frame pointer that one of the walkers
//! chases, and half of them must not be described by it. Otherwise they are what a compiler makes:
//! none to five saved registers, frames of 16 to 4000 bytes, functions of 40 to 900 bytes that
//! call from anywhere in them, spread over 20 KiB.
//!
//! The shape was chosen by hand, not taken from a program: the bytes of code before each call, 4 to
//! 850, came second. With tiny functions only, several rows of the compiled tables begin in each
//! bucket of the index, and a look-up that has to pass over them costs more than it does here.

use std::arch::global_asm;
use std::mem::offset_of;
use std::ptr::NonNull;

use task_model::{FrozenTask, RegisterFile, StackBounds, TaskId};

/// The frames of the stack.
pub(crate) const FRAMES: usize = 32;

/// What the innermost frame hands on.
#[repr(C)]
pub(crate) struct Captured<'f> {
    registers: RegisterFile,
    measure: extern "C" fn(&mut Captured<'_>),
    function: &'f mut dyn FnMut(&Deep<'_>),
    top: u64,
}

/// The stack, from its innermost frame on: from outside for whoever can, from inside for others.
pub(crate) struct Deep<'s> {
    pub(crate) task: FrozenTask<'s>,
}

type Code = unsafe extern "C" fn();

#[expect(
    improper_ctypes,
    reason = "the assembly knows the first two fields, as `repr(C)` has them"
)]
unsafe extern "C" {
    fn bench_run(functions: *const Code, captured: *mut Captured<'_>, top: u64);
    fn bench_capture();
    fn bench_a();
    fn bench_b();
    fn bench_c();
    fn bench_d();
    fn bench_e();
    fn bench_f();
    fn bench_g();
    fn bench_h();
    fn bench_i();
    fn bench_j();
    fn bench_k();
    fn bench_l();
}

const FUNCTIONS: [Code; 12] = [
    bench_a, bench_b, bench_c, bench_d, bench_e, bench_f, bench_g, bench_h, bench_i, bench_j,
    bench_k, bench_l,
];

/// Calls `function` at the bottom of the stack.
pub(crate) fn on_deep_stack(function: &mut dyn FnMut(&Deep<'_>)) {
    let mut stack = vec![0_u128; 64 * 1024];
    let top = stack.as_mut_ptr_range().end.expose_provenance() as u64;
    // Between the entry and the frame that captures.
    let mut functions: Vec<Code> = (0..FRAMES - 2).map(|n| FUNCTIONS[n * 7 % 12]).collect();
    functions.push(bench_capture);
    let registers = RegisterFile::new();
    let mut captured = Captured { registers, measure, function, top };
    // SAFETY: the stack is a mebibyte, aligned to 16 and ours; the list ends with `bench_capture`,
    // which knows what it is given.
    unsafe { bench_run(functions.as_ptr(), &raw mut captured, top) };
}

extern "C" fn measure(captured: &mut Captured<'_>) {
    // From the captured stack pointer up. What is below is in use.
    let bounds = StackBounds::new(captured.registers.rsp(), captured.top, 0).unwrap();
    let registers = NonNull::from(&mut captured.registers);
    // SAFETY: the frames within these bounds wait for this function to return, so until then
    // nobody writes to them, or to the registers.
    let task = unsafe { FrozenTask::new(TaskId::first(0), registers, bounds) };
    (captured.function)(&Deep { task });
}

global_asm!(
    ".pushsection .text.bench,\"ax\",@progbits",
    ".global bench_run",
    "bench_run:", // functions in rdi, captured in rsi, the top in rdx
    ".cfi_startproc",
    ".irp register, rbp, rbx, r12, r13, r14, r15",
    "push \\register",
    ".cfi_adjust_cfa_offset 8",
    ".endr",
    "mov rax, rsp",
    "mov rsp, rdx",
    "jmp bench_entry",
    ".cfi_endproc",
    "bench_entry:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    "push rax",
    "push rax",
    "xor ebp, ebp",
    "add rdi, 8",
    "call [rdi - 8]",
    "pop rsp",
    ".irp register, r15, r14, r13, r12, rbx, rbp",
    "pop \\register",
    ".endr",
    "ret",
    ".cfi_endproc",
    // A function with these saved registers, this many bytes of locals, and this many bytes of code
    // before the call. If `by_rbp` is 1, its CFA is described by rbp.
    ".macro bench_function name, by_rbp, locals, code, distance, saved:vararg",
    ".global \\name",
    "\\name:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".if \\by_rbp",
    ".cfi_def_cfa_register rbp",
    ".endif",
    ".set .Lbench_size, 16",
    ".irp register, \\saved",
    "push \\register",
    ".set .Lbench_size, .Lbench_size + 8",
    ".ifeq \\by_rbp",
    ".cfi_def_cfa_offset .Lbench_size",
    ".endif",
    ".cfi_offset \\register, -.Lbench_size",
    ".endr",
    "sub rsp, \\locals",
    ".ifeq \\by_rbp",
    ".cfi_adjust_cfa_offset \\locals",
    ".endif",
    ".irp register, \\saved",
    "lea \\register, [rsp + 3]",
    ".endr",
    ".nops \\code",
    "add rdi, 8",
    "call [rdi - 8]",
    "lea rsp, [rbp - (.Lbench_size - 16)]",
    "bench_pop \\saved",
    "pop rbp",
    ".if \\by_rbp",
    ".cfi_def_cfa rsp, 8",
    ".else",
    ".cfi_def_cfa_offset 8",
    ".endif",
    "ret",
    ".cfi_endproc",
    ".skip \\distance, 0xcc",
    ".endm",
    // In the opposite order.
    ".macro bench_pop first, rest:vararg",
    ".ifnb \\rest",
    "bench_pop \\rest",
    ".endif",
    ".ifnb \\first",
    "pop \\first",
    ".endif",
    ".endm",
    "bench_function bench_a, 0, 32, 10, 900, r15, r14, r12, rbx",
    "bench_function bench_b, 1, 24, 130, 1700, rbx",
    "bench_function bench_c, 0, 104, 520, 2600, r15, r14, r13, r12, rbx",
    "bench_function bench_d, 0, 64, 60, 700, r14, rbx",
    "bench_function bench_e, 1, 136, 300, 1500, r15, r14, rbx",
    "bench_function bench_f, 0, 4008, 4, 3100, rbx",
    "bench_function bench_g, 1, 48, 25, 800",
    "bench_function bench_h, 0, 24, 210, 1200, r15, r14, r13, r12, rbx",
    "bench_function bench_i, 1, 80, 850, 2300, r14, rbx",
    "bench_function bench_j, 0, 16, 5, 600",
    "bench_function bench_k, 1, 200, 150, 1900, r15, r14, r13, r12, rbx",
    "bench_function bench_l, 0, 560, 90, 1100, r15, r14, r12, rbx",
    ".global bench_capture",
    "bench_capture:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".set .Lbench_slot, 0",
    ".irp register, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15",
    "mov [rsi + .Lbench_slot], \\register",
    ".set .Lbench_slot, .Lbench_slot + 8",
    ".endr",
    "lea rax, [rip + bench_captured]",
    "mov [rsi + 128], rax",
    "mov rdi, rsi",
    "call [rsi + {measure}]",
    "bench_captured:",
    "pop rbp",
    ".cfi_def_cfa_offset 8",
    "ret",
    ".cfi_endproc",
    ".popsection",
    measure = const offset_of!(Captured<'_>, measure),
);
