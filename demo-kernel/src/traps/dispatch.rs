//! What a trap means, and whose registers are restored after it.
#![expect(unsafe_code, reason = "reads the save area that the stub passes")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use keeper::Policy;
use task_model::{FaultInfo, FrozenTask, Gpr, Place, RegisterFile, TaskId};
use x86_64::registers::control::Cr2;
use x86_64::registers::rflags::RFlags;

use super::Vector;
use crate::cpu::{self, Cpu};
use crate::exit::{ExitStatus, exit};
use crate::image;
use crate::keeping;
use crate::serial::write_line;
use crate::stacks;
use crate::tasks::{Task, scheduler};
use crate::timer;

/// Handles one trap; called by the stub on a trap stack, interrupts off.
///
/// `interrupted` is where the stub saved the registers. Returns what it is to restore: the same,
/// or those of the task to run next.
pub(super) extern "C" fn dispatch(
    vector: u64,
    error_code: u64,
    interrupted: *mut RegisterFile,
) -> *mut RegisterFile {
    let at = timer::now();
    let vector = vector as u8;
    let cpu = cpu::this();
    // SAFETY: the stub passes the area that it has just filled. Nobody writes to it before this
    // trap returns, except a non-maskable interrupt, which puts back what it found.
    let registers = unsafe { &*interrupted };
    let in_trap = cpu.is_nested(interrupted) || image::trap_text().contains(&registers.rip);
    if vector == Vector::NON_MASKABLE || vector == Vector::SPURIOUS {
        // Nobody sends either on purpose yet; the interrupted code, a stub perhaps, goes on.
        return interrupted;
    }
    cpu.forbid_tracking(in_trap);
    match cpu.task() {
        Some(task) if !in_trap => {
            handle(task, vector, error_code, registers, at);
            scheduler::switch(cpu)
        }
        // The way from boot code to the first task.
        None if !in_trap && vector == Vector::YIELD => scheduler::switch(cpu),
        _ => unrecoverable(cpu, vector, error_code, interrupted),
    }
}

/// What a trap of `task`, which ran until time `at`, does to it.
fn handle(task: &Task, vector: u8, error_code: u64, registers: &RegisterFile, at: u64) {
    match vector {
        Vector::TIMER => {
            scheduler::wake_sleepers(timer::tick());
            timer::call_hook();
            keeping::tick(task.id());
        }
        Vector::YIELD => {}
        Vector::PARK => task.block_without_token(),
        Vector::SLEEP => task.block_until(registers[Gpr::Rdi]),
        // A guard was forgotten: what it guards is settled like a dead task's.
        Vector::EXIT if task.holds_anything() => {
            faulted(task, FaultInfo::left_holding(registers.rip), at);
        }
        Vector::EXIT if task.policy().is_some_and(Policy::rules_on_exits) => {
            faulted(task, FaultInfo::exited(registers.rip), at);
        }
        Vector::EXIT => {
            keeping::finished(task.id());
            // Legal: the task runs. Its stack is free from here on, and this trap does not use it.
            let _ = task.retire();
        }
        Vector::KILLED => faulted(task, FaultInfo::killed(registers.rip), at),
        Vector::PANICKED => {
            let place = place_in_task(registers);
            faulted(task, FaultInfo::panicked(registers.rip).at(place), at);
        }
        Vector::DOUBLE_FAULT | Vector::MACHINE_CHECK => {
            unrecoverable(cpu::this(), vector, error_code, task.registers().as_ptr())
        }
        _ => {
            let address = Cr2::read_raw();
            let stack = task.stack();
            let fault = FaultInfo::from_trap(vector, error_code, address, registers.rip, &stack);
            faulted(task, fault.at(place_in_task(registers)), at);
        }
    }
}

/// Where a task was, by the flags that it had.
fn place_in_task(registers: &RegisterFile) -> Place {
    if registers.rflags & RFlags::INTERRUPT_FLAG.bits() == 0 {
        Place::InterruptsOff
    } else {
        Place::Task
    }
}

/// Freezes `task` and hands its fault, which came at `at`, on.
fn faulted(task: &Task, fault: FaultInfo, at: u64) {
    if task.freeze(fault).is_ok() {
        keeping::task_faulted(task.id(), fault, at);
    }
}

/// A trap that no task's death can answer for: in a trap, before tasking, or of the machine.
fn unrecoverable(cpu: &Cpu, vector: u8, error_code: u64, interrupted: *mut RegisterFile) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    // Relaxed: one CPU. A trap while this report is written leaves without another.
    if REPORTING.swap(true, Ordering::Relaxed) {
        exit(ExitStatus::Failure);
    }
    // SAFETY: as in `dispatch`.
    let registers = unsafe { &*interrupted };
    let address = if vector == Vector::PAGE_FAULT { Cr2::read_raw() } else { 0 };
    write_line(format_args!("kernel fault: vector {vector}, error code {error_code:#x}"));
    write_line(format_args!("  rip {:#018x}  cr2 {address:#018x}", registers.rip));
    write_line(format_args!("  rsp {:#018x}  rflags {:#x}", registers.rsp(), registers.rflags));
    match cpu.task() {
        Some(task) => write_line(format_args!("  task {} ({})", task.id(), task.name())),
        None => write_line(format_args!("  before the first task")),
    }
    if let Some(stack) = stacks::all().find(|stack| stack.contains(registers.rsp(), 8)) {
        let place = if cpu.task().is_some() { Place::Trap } else { Place::Boot };
        let fault = FaultInfo::from_trap(vector, error_code, address, registers.rip, &stack);
        let task = cpu.task().map_or(TaskId::first(u32::MAX), Task::id);
        // SAFETY: nothing runs any more but this, on another stack or further down: what was
        // interrupted is over, and its registers are where its trap's stub put them.
        let interrupted =
            unsafe { FrozenTask::new(task, NonNull::new_unchecked(interrupted), stack) };
        keeping::panic_at(interrupted, &fault.at(place));
    }
    exit(ExitStatus::Failure)
}
