//! New tasks: a slot, a stack, and the registers to begin with.

use core::arch::naked_asm;
use core::fmt;

use task_model::{Gpr, RegisterFile, TaskId, TaskState};
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::rflags::RFlags;

use super::task::Life;
use super::{Class, exit_current, table};
use crate::{cpu, descriptors, stacks};

/// Why a task could not be spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpawnError {
    /// All slots of the task table are taken.
    NoSlot,
    /// All stacks are in use.
    NoStack,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlot => "the task table is full",
            Self::NoStack => "no stack is free",
        })
    }
}

impl core::error::Error for SpawnError {}

/// Starts a task that runs `entry(argument)` and ends when that returns.
///
/// # Errors
/// If there is no slot or no stack for it.
pub(crate) fn spawn(
    name: &'static str,
    entry: fn(usize),
    argument: usize,
) -> Result<TaskId, SpawnError> {
    spawn_in_class(Class::Normal, name, entry, argument)
}

/// As [`spawn`], with another [`Class`].
///
/// # Errors
/// As [`spawn`].
pub(crate) fn spawn_in_class(
    class: Class,
    name: &'static str,
    entry: fn(usize),
    argument: usize,
) -> Result<TaskId, SpawnError> {
    without_interrupts(|| {
        let task = table::slots()
            .iter()
            .find(|task| task.state() == TaskState::Dead)
            .ok_or(SpawnError::NoSlot)?;
        let stack = stacks::allocate().ok_or(SpawnError::NoStack)?;
        let registers = first_registers(stack.bounds().top());
        task.begin(Life { name, class, entry, argument, stack }, registers);
        Ok(task.id())
    })
}

/// What a new task's first switch restores.
fn first_registers(stack_top: u64) -> RegisterFile {
    let (code, data) = descriptors::selectors();
    let mut registers = RegisterFile::new();
    registers.rip = bottom_frame as *const () as u64;
    registers.rflags = RFlags::INTERRUPT_FLAG.bits() | 1 << 1;
    registers.cs = u64::from(code.0);
    registers.ss = u64::from(data.0);
    registers[Gpr::Rsp] = stack_top;
    registers
}

/// The outermost frame of every task. Its return address is undefined, which is how a walk knows
/// that it has seen all frames (DWARF 5, 6.4.4).
#[unsafe(naked)]
extern "C" fn bottom_frame() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "xor ebp, ebp",
        "call {run}",
        // `run` does not return; the return address must all the same lie in this function.
        "ud2",
        ".cfi_endproc",
        run = sym run,
    )
}

/// The life of a task, from inside.
extern "C" fn run() -> ! {
    if let Some(life) = cpu::current_task().and_then(|task| task.life()) {
        (life.entry)(life.argument);
    }
    exit_current()
}
