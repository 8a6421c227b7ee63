//! A task's record.
#![expect(unsafe_code, reason = "records are shared, and written by whoever holds the task")]

use core::cell::UnsafeCell;
use core::fmt;
use core::panic::PanicInfo;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use drop_registry::{Cursor, Entry, Ledger};
use keeper::{Policy, Stopped};
use task_model::{
    AtomicTaskState, FaultInfo, FrozenTask, RegisterFile, StackBounds, TaskId, TaskState,
};

use super::{TaskError, scheduler};
use crate::bounded_text::BoundedText;
use crate::cpu;
use crate::stacks::{self, Stack};

/// Who runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Before all others: keepers.
    Urgent,
    /// In turn.
    Normal,
    /// When there is nothing else.
    Idle,
}

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = 3;
}

/// What a panicking task said.
pub(crate) type PanicNote = BoundedText<192>;

/// What is given to a task at its birth.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) name: &'static str,
    pub(super) class: Class,
    pub(super) entry: fn(usize),
    pub(super) argument: usize,
    pub(super) policy: Option<&'static dyn Policy>,
    /// How often it has been restarted.
    pub(super) restarts: u32,
    pub(super) stack: Stack,
}

/// A slot of the task table, and the task that lives in it.
pub(crate) struct Task {
    index: u32,
    /// Of the life in the slot; a dead slot has that of its next.
    generation: AtomicU32,
    state: AtomicTaskState,
    /// Complete whenever the task does not run.
    registers: UnsafeCell<RegisterFile>,
    /// `None` while dead.
    life: UnsafeCell<Option<Life>>,
    fault: UnsafeCell<Option<FaultInfo>>,
    /// An unpark that no park has taken yet.
    wake_token: AtomicBool,
    /// The tick that ends the task's wait at the latest.
    wake_at: AtomicU64,
    /// Whether it is to stop at its next safepoint.
    wanted_dead: AtomicBool,
    panicking: AtomicBool,
    panic_noted: AtomicBool,
    panic_note: UnsafeCell<PanicNote>,
    ledger: Ledger,
    /// Its cursor while it does not run; null before its first life.
    cursor: AtomicPtr<Entry>,
}

// SAFETY: the cells. `registers`: the trap stubs write a running task's, and a keeper those of a
// frozen one. `life` and `fault`: written with interrupts off on the only CPU, as all reads of
// them are. `panic_note`: written by the task itself, once, before `panic_noted`.
unsafe impl Sync for Task {}

impl Task {
    pub(super) const fn dead(index: u32) -> Self {
        Self {
            index,
            generation: AtomicU32::new(0),
            state: AtomicTaskState::new(TaskState::Dead),
            registers: UnsafeCell::new(RegisterFile::new()),
            life: UnsafeCell::new(None),
            fault: UnsafeCell::new(None),
            wake_token: AtomicBool::new(false),
            wake_at: AtomicU64::new(u64::MAX),
            wanted_dead: AtomicBool::new(false),
            panicking: AtomicBool::new(false),
            panic_noted: AtomicBool::new(false),
            panic_note: UnsafeCell::new(PanicNote::new()),
            ledger: Ledger::new(),
            cursor: AtomicPtr::new(ptr::null_mut()),
        }
    }

    pub(crate) fn id(&self) -> TaskId {
        // Relaxed: changed only with interrupts off, on this CPU.
        TaskId { index: self.index, generation: self.generation.load(Ordering::Relaxed) }
    }

    /// Whether it has stopped, and is its keeper's to rule on.
    pub(super) fn is_stopped(&self) -> bool {
        self.state.is(TaskState::Frozen) || self.state.is(TaskState::Held)
    }

    pub(crate) fn state(&self) -> TaskState {
        self.state.load()
    }

    /// Moves to `next` if that is legal.
    pub(super) fn become_state(&self, next: TaskState) -> Result<(), TaskError> {
        self.state.become_state(next).map_err(|refused| TaskError::State(refused.from))?;
        self.moved_to(next);
        Ok(())
    }

    /// As [`become_state`](Self::become_state), from one state alone.
    pub(super) fn move_from(&self, from: TaskState, next: TaskState) -> Result<(), TaskError> {
        self.state.move_from(from, next).map_err(|refused| TaskError::State(refused.from))?;
        self.moved_to(next);
        Ok(())
    }

    fn moved_to(&self, state: TaskState) {
        if let Some(life) = self.life() {
            scheduler::note(self.index, life.class, state == TaskState::Ready);
        }
    }

    pub(super) fn life(&self) -> Option<&Life> {
        // SAFETY: see `Sync`: nobody writes while anybody has this reference, for whoever takes
        // it either has interrupts off or is the living task itself.
        unsafe { (*self.life.get()).as_ref() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.life().map_or("", |life| life.name)
    }

    /// Who rules on it, if its life names one.
    pub(crate) fn policy(&self) -> Option<&'static dyn Policy> {
        self.life()?.policy
    }

    /// The bounds of its stack.
    ///
    /// # Panics
    /// If the task is dead.
    pub(crate) fn stack(&self) -> StackBounds {
        self.life().expect("the task lives").stack.bounds()
    }

    pub(crate) fn registers(&self) -> NonNull<RegisterFile> {
        NonNull::from(&self.registers).cast()
    }

    pub(super) fn saved_instruction_pointer(&self) -> u64 {
        // SAFETY: one word; a torn or stale read is impossible while the task does not run, and
        // nothing but a number if it does.
        unsafe { (&raw const (*self.registers.get()).rip).read_volatile() }
    }

    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Where its next entry goes: for the CPU on which it is to run.
    pub(crate) fn cursor(&self) -> *mut Entry {
        // Relaxed: written on this CPU, when a life begins, and by traps.
        self.cursor.load(Ordering::Relaxed)
    }

    pub(crate) fn keep_cursor(&self, cursor: *mut Entry) {
        self.cursor.store(cursor, Ordering::Relaxed);
    }

    pub(super) fn id_and_ledger(&self) -> (TaskId, &Ledger) {
        (self.id(), &self.ledger)
    }

    pub(super) fn wake_token(&self) -> &AtomicBool {
        &self.wake_token
    }

    pub(super) fn wake_at(&self) -> &AtomicU64 {
        &self.wake_at
    }

    /// Whether it is to stop at its next safepoint.
    pub(crate) fn is_wanted_dead(&self) -> bool {
        self.wanted_dead.load(Ordering::Relaxed)
    }

    /// Has it stop there.
    pub(super) fn pull_kill_switch(&self) {
        // Relaxed: seen by the task on this CPU, at once or after the next switch.
        self.wanted_dead.store(true, Ordering::Relaxed);
        cpu::this().kill_switch_pulled(self);
    }

    /// Begins a life in a dead slot: ready to run with `registers`.
    pub(super) fn begin(&'static self, life: Life, registers: RegisterFile) {
        self.keep_cursor(Cursor::first(&self.ledger).as_ptr());
        // SAFETY: a dead slot has no task and no keeper, and interrupts are off.
        unsafe {
            *self.registers.get() = registers;
            *self.life.get() = Some(life);
            *self.fault.get() = None;
        }
        // Relaxed: the move below publishes.
        self.wake_token.store(false, Ordering::Relaxed);
        self.wake_at.store(u64::MAX, Ordering::Relaxed);
        self.wanted_dead.store(false, Ordering::Relaxed);
        self.panicking.store(false, Ordering::Relaxed);
        self.panic_noted.store(false, Ordering::Relaxed);
        self.become_state(TaskState::Ready).expect("the slot is dead");
    }

    /// Stops the task for good, unless someone rules otherwise.
    pub(crate) fn freeze(&self, fault: FaultInfo) -> Result<(), TaskError> {
        // Most of the time it is the one that runs.
        if self.move_from(TaskState::Running, TaskState::Frozen).is_err() {
            self.become_state(TaskState::Frozen)?;
        }
        // SAFETY: interrupts are off; see `Sync`.
        unsafe { *self.fault.get() = Some(fault) };
        Ok(())
    }

    pub(super) fn fault(&self) -> Option<FaultInfo> {
        // SAFETY: interrupts are off; see `Sync`.
        unsafe { *self.fault.get() }
    }

    /// Lets a frozen task go on.
    pub(super) fn resume(&self) -> Result<(), TaskError> {
        self.move_from(TaskState::Frozen, TaskState::Ready)
    }

    /// Whether its ledger lists anything.
    pub(crate) fn holds_anything(&self) -> bool {
        !self.ledger.is_empty()
    }

    /// Everything that a keeper needs of a stopped task.
    ///
    /// # Safety
    /// The task is frozen or held, and stays so, and nobody else gets this, until the value is
    /// gone.
    pub(super) unsafe fn stopped(&'static self) -> Option<Stopped<'static>> {
        let life = self.life()?;
        // SAFETY: this function's contract; a task that does not run has its registers in its
        // record, and its stack stays mapped.
        let task = unsafe { FrozenTask::new(self.id(), self.registers(), life.stack.bounds()) };
        Some(Stopped { task, ledger: &self.ledger, policy: life.policy, restarts: life.restarts })
    }

    /// Ends the life, and hands out what was given to it: the id is stale from now on.
    pub(super) fn end(&self) -> Result<Option<Life>, TaskError> {
        self.become_state(TaskState::Dead)?;
        // SAFETY: the task is dead. If it was kept, its keeper has settled what it held; one that
        // ends by itself does so only while it holds nothing.
        unsafe { self.ledger.reset() };
        let next = self.id().next_generation().generation;
        self.generation.store(next, Ordering::Relaxed);
        // SAFETY: interrupts are off; see `Sync`.
        Ok(unsafe { (*self.life.get()).take() })
    }

    /// Ends the life: the stack goes back to the pool, and the id is stale from now on.
    pub(crate) fn retire(&self) -> Result<(), TaskError> {
        if let Some(life) = self.end()? {
            stacks::free(life.stack);
        }
        Ok(())
    }

    /// Writes down what the running task panics with; a panic meanwhile adds nothing.
    pub(crate) fn note_panic(&self, info: &PanicInfo<'_>) {
        // Relaxed, all three: the task itself; whoever reads `panic_noted` later has frozen it.
        if self.panicking.swap(true, Ordering::Relaxed) {
            return;
        }
        let note = match info.location() {
            Some(place) => PanicNote::format(format_args!("{} ({place})", info.message())),
            None => PanicNote::format(format_args!("{}", info.message())),
        };
        // SAFETY: the task's own cell, and nobody reads it before the next line.
        unsafe { *self.panic_note.get() = note };
        self.panic_noted.store(true, Ordering::Release);
    }

    /// What the task said when it panicked, if it did. For whoever has it stopped, or is that task.
    pub(super) fn panic_note(&self) -> Option<&PanicNote> {
        // Acquire pairs with the Release in `note_panic`. SAFETY: it is written once in a life of
        // the task, before that, and read in that life alone.
        self.panic_noted.load(Ordering::Acquire).then(|| unsafe { &*self.panic_note.get() })
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({} {:?} {:?})", self.id(), self.name(), self.state())
    }
}
