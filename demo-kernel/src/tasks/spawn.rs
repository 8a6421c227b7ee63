//! New tasks: a slot, a stack, and the registers to begin with.

use core::arch::naked_asm;
use core::fmt;

use keeper::supervisor::{ChildKind, SuperviseError, Supervisor};
use keeper::{KeeperId, Policy};
use task_model::{Gpr, RegisterFile, TaskId, TaskState};
use x86_64::registers::rflags::RFlags;

use super::task::Life;
use super::{Class, TaskError, exit_current, table, with_task};
use crate::interrupts::without_interrupts;
use crate::{cpu, descriptors, keeping, stacks};

/// Why a task could not be spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpawnError {
    /// All slots of the task table are taken.
    NoSlot,
    /// All stacks are in use.
    NoStack,
    /// Its supervisor does not take it.
    Unsupervised(SuperviseError),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot => write!(f, "the task table is full"),
            Self::NoStack => write!(f, "no stack is free"),
            Self::Unsupervised(error) => write!(f, "it cannot be supervised: {error}"),
        }
    }
}

impl core::error::Error for SpawnError {}

/// A task to be started: it runs `entry(argument)`, and ends when that returns.
#[derive(Debug)]
#[must_use = "it starts with `start`"]
pub(crate) struct Spawn {
    name: &'static str,
    class: Class,
    entry: fn(usize),
    argument: usize,
    policy: Option<&'static dyn Policy>,
    supervisor: Option<(&'static Supervisor, ChildKind)>,
    keeper: KeeperId,
}

impl Spawn {
    /// A task of the normal class, with argument 0, that the root keeper's policy rules on.
    pub(crate) const fn new(name: &'static str, entry: fn(usize)) -> Self {
        let (class, policy, supervisor) = (Class::Normal, None, None);
        Self { name, class, entry, argument: 0, policy, supervisor, keeper: KeeperId::ROOT }
    }

    pub(crate) const fn argument(mut self, argument: usize) -> Self {
        self.argument = argument;
        self
    }

    pub(crate) const fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Names the policy that rules if the task dies.
    pub(crate) const fn policy(mut self, policy: &'static dyn Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Makes it a child of a supervisor, which rules if it ends.
    pub(crate) const fn child_of(
        mut self,
        supervisor: &'static Supervisor,
        kind: ChildKind,
    ) -> Self {
        self.policy = Some(supervisor);
        self.supervisor = Some((supervisor, kind));
        self
    }

    /// Names its keeper.
    pub(crate) const fn keeper(mut self, keeper: KeeperId) -> Self {
        self.keeper = keeper;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// If there is no slot or no stack for it, or no room below its supervisor.
    pub(crate) fn start(self) -> Result<TaskId, SpawnError> {
        let Self { name, class, entry, argument, policy, supervisor, keeper } = self;
        without_interrupts(|| {
            let task = table::slots()
                .iter()
                .find(|task| task.state() == TaskState::Dead)
                .ok_or(SpawnError::NoSlot)?;
            let stack = stacks::allocate().ok_or(SpawnError::NoStack)?;
            if let Some((supervisor, kind)) = supervisor
                && let Err(error) = supervisor.add(task.id(), kind)
            {
                stacks::free(stack);
                return Err(SpawnError::Unsupervised(error));
            }
            let registers = first_registers(stack.bounds().top());
            let life = Life { name, class, entry, argument, policy, restarts: 0, stack };
            keeping::keep(task.id(), keeper);
            task.begin(life, registers);
            Ok(task.id())
        })
    }
}

/// Ends a stopped task's life and begins another one in its slot, from the same entry.
///
/// # Errors
/// If the task is gone or not stopped.
pub(crate) fn restart(id: TaskId) -> Result<TaskId, TaskError> {
    with_task(id, |task| {
        let Some(life) = task.end()? else { return Err(TaskError::Stale) };
        // The stack is the one that has just become free: nothing that a keeper has settled
        // points into it, and its contents do not matter.
        let registers = first_registers(life.stack.bounds().top());
        task.begin(Life { restarts: life.restarts + 1, ..life }, registers);
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
