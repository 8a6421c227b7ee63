//! A task on a stack of its own that runs until it stops itself, and is then truly frozen.

use std::arch::global_asm;
use std::ptr::NonNull;

use crate::live::OracleFrame;
use task_model::{FrozenTask, RegisterFile, StackBounds, TaskId};

/// What the two sides share; `run_task` and `stop_task` know its layout.
#[repr(C)]
pub(crate) struct Switch {
    host_rsp: u64,
    _pad: u64,
    pub(crate) registers: RegisterFile,
    /// The task's own notes, for the host to read.
    pub(crate) notes: Vec<OracleFrame>,
}

#[expect(
    improper_ctypes,
    reason = "the assembly uses the first fields alone, as `repr(C)` has them"
)]
unsafe extern "C" {
    fn run_task(switch: *mut Switch, top: u64, entry: extern "C" fn(*mut Switch) -> !);
    /// Saves the registers as they are at this function's first instruction, and leaves the
    /// calling task for good.
    ///
    /// # Safety
    /// Only in a task of [`StoppedTask::run`], with the switch that its entry was given.
    pub(crate) fn stop_task(switch: *mut Switch) -> !;
}

global_asm!(
    ".pushsection .text.task,\"ax\",@progbits",
    ".global run_task",
    ".global stop_task",
    "run_task:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_adjust_cfa_offset 8",
    "push rbx",
    ".cfi_adjust_cfa_offset 8",
    "push r12",
    ".cfi_adjust_cfa_offset 8",
    "push r13",
    ".cfi_adjust_cfa_offset 8",
    "push r14",
    ".cfi_adjust_cfa_offset 8",
    "push r15",
    ".cfi_adjust_cfa_offset 8",
    "mov [rdi], rsp",
    "mov rsp, rsi",
    "jmp task_entry",
    ".cfi_endproc",
    "task_entry:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    "call rdx",
    "ud2",
    ".cfi_endproc",
    "stop_task:",
    ".cfi_startproc",
    "mov [rdi + 16 + 0], rax",
    "mov [rdi + 16 + 8], rcx",
    "mov [rdi + 16 + 16], rdx",
    "mov [rdi + 16 + 24], rbx",
    "mov [rdi + 16 + 32], rsp",
    "mov [rdi + 16 + 40], rbp",
    "mov [rdi + 16 + 48], rsi",
    "mov [rdi + 16 + 56], rdi",
    "mov [rdi + 16 + 64], r8",
    "mov [rdi + 16 + 72], r9",
    "mov [rdi + 16 + 80], r10",
    "mov [rdi + 16 + 88], r11",
    "mov [rdi + 16 + 96], r12",
    "mov [rdi + 16 + 104], r13",
    "mov [rdi + 16 + 112], r14",
    "mov [rdi + 16 + 120], r15",
    "lea rax, [rip + stop_task]",
    "mov [rdi + 16 + 128], rax",
    "mov rsp, [rdi]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".cfi_endproc",
    ".popsection",
);

/// A stopped task and everything that belongs to it.
pub(crate) struct StoppedTask {
    stack: Vec<u128>,
    switch: Box<Switch>,
}

impl StoppedTask {
    /// Runs `entry` on a new stack until it calls [`stop_task`].
    pub(crate) fn run(entry: extern "C" fn(*mut Switch) -> !) -> Self {
        let mut stack = vec![0u128; 16 * 1024];
        let mut switch = Box::new(Switch {
            host_rsp: 0,
            _pad: 0,
            registers: RegisterFile::new(),
            notes: Vec::with_capacity(64),
        });
        let top = stack.as_mut_ptr_range().end.expose_provenance() as u64;
        // SAFETY: the stack is 256 KiB, aligned to 16 and ours, and `entry` never returns. The
        // task uses `switch` only while the host is inside this call.
        unsafe { run_task(&raw mut *switch, top, entry) };
        Self { stack, switch }
    }

    pub(crate) fn notes(&self) -> &[OracleFrame] {
        &self.switch.notes
    }

    pub(crate) fn registers(&self) -> RegisterFile {
        self.switch.registers
    }

    pub(crate) fn frozen(&mut self) -> FrozenTask<'_> {
        let range = self.stack.as_mut_ptr_range();
        let base = range.start.expose_provenance() as u64;
        let top = range.end.expose_provenance() as u64;
        let bounds = StackBounds::new(base, top, 0).unwrap();
        // SAFETY: the task has left its stack for good, and `self` is borrowed mutably, so nobody
        // else has the stack or the registers as long as the value lives.
        unsafe {
            FrozenTask::new(TaskId::first(0), NonNull::from(&mut self.switch.registers), bounds)
        }
    }
}
