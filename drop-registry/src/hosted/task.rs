//! One task: what it is made of, and how it begins.
#![expect(unsafe_code, reason = "puts a task at its entry")]

use core::arch::naked_asm;
use core::cell::{Cell, UnsafeCell};
use core::panic::AssertUnwindSafe;
use std::boxed::Box;
use std::panic::catch_unwind;
use std::string::String;

use task_model::{Gpr, TaskId};

use super::current::{Stop, stop_running};
use super::stack::Stacks;
use super::switch::Context;
use crate::{Cursor, Ledger};

/// Enough for a test's own frames and the standard library's.
const STACK_BYTES: usize = 256 * 1024;

/// What begins on a task's stack. It is the machine's, so that no task frees memory by itself, and
/// none can be killed in the middle of that.
pub(super) type Body = Box<dyn FnMut()>;

pub(super) struct Task {
    pub(super) number: u32,
    /// Of its present life. A restart is done as soon as this is another, and not before.
    pub(super) generation: Cell<u32>,
    /// Those of lives that are over stay mapped: something may point into them still.
    pub(super) stacks: Stacks,
    entry: Box<UnsafeCell<Body>>,
    /// Whether the entry can be run again.
    pub(super) restartable: bool,
    /// Not freed with the machine: the word of a static lock may name it for ever.
    pub(super) ledger: &'static Ledger,
    /// What `CURSOR` is while it runs.
    pub(super) cursor: Cell<Option<Cursor>>,
    pub(super) context: Box<UnsafeCell<Context>>,
    /// What `END` is while it runs.
    pub(super) end: Cell<Option<Stop>>,
    pub(super) parked: Cell<bool>,
    pub(super) alive: Cell<bool>,
    /// The generation that is wanted dead at its next safepoint.
    pub(super) wanted_dead: Cell<Option<u32>>,
    /// What `PANIC_NOTE` is while it runs.
    pub(super) panic_note: Cell<Option<&'static String>>,
}

impl Task {
    /// A task that stands at the beginning of `entry`.
    pub(super) fn new(
        number: u32,
        entry: Body,
        restartable: bool,
        ledger: &'static Ledger,
    ) -> Self {
        let task = Self {
            number,
            generation: Cell::new(0),
            stacks: Stacks::new(STACK_BYTES),
            entry: Box::new(UnsafeCell::new(entry)),
            restartable,
            ledger,
            cursor: Cell::new(Some(Cursor::first(ledger))),
            context: Box::new(UnsafeCell::new(Context::new())),
            end: Cell::new(None),
            parked: Cell::new(false),
            alive: Cell::new(true),
            wanted_dead: Cell::new(None),
            panic_note: Cell::new(None),
        };
        // SAFETY: it does not run, and nobody knows of it yet.
        unsafe { task.stand_at_entry() };
        task
    }

    pub(super) fn id(&self) -> TaskId {
        TaskId { index: self.number, generation: self.generation.get() }
    }

    /// Sets its registers to the beginning of its entry.
    ///
    /// # Safety
    /// It does not run, and nobody else uses its registers.
    pub(super) unsafe fn stand_at_entry(&self) {
        let mut context = Context::new();
        context.registers[Gpr::Rdi] = self.entry.get().expose_provenance() as u64;
        context.registers[Gpr::Rsp] = self.stacks.bounds().top();
        context.registers.rip = task_start as *const () as u64;
        // SAFETY: this function's contract.
        unsafe { *self.context.get() = context };
    }
}

/// The outermost frame of every task. Its return address is undefined, which ends a walk.
#[unsafe(naked)]
unsafe extern "C" fn task_start(entry: *mut Body) -> ! {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "call {main}",
        "ud2",
        ".cfi_endproc",
        main = sym task_main,
    )
}

extern "C" fn task_main(entry: *mut Body) -> ! {
    // SAFETY: the machine owns it, outlives the run of its tasks, and does not touch it meanwhile.
    let entry = unsafe { &mut *entry };
    let end = match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(()) => Stop::Finished,
        Err(_) => Stop::Panicked,
    };
    loop {
        stop_running(end);
    }
}
