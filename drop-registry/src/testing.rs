//! What the unit tests share: tasks that are no more than a ledger.
#![expect(unsafe_code, reason = "implements CurrentLedger and settles")]

use core::cell::Cell;
use core::ptr::NonNull;
use std::boxed::Box;
use std::thread_local;
use std::vec::Vec;

use task_model::{FrozenTask, Gpr, RegisterFile, StackBounds, TaskId};

use crate::arch::WindowKind;
pub(crate) use crate::hosted::domain;
use crate::{
    CurrentLedger, Entry, Extent, Heap, HeapMemory, Ledger, LedgerFull, Operations, Outcome,
    OwnLedger, Parker, ResourceKind, TrackedHeap, WindowTable, reclaim, settle,
};

thread_local! {
    static CURRENT: Cell<Option<NonNull<Ledger>>> = const { Cell::new(None) };
}

/// Whoever runs inside [`on_fresh_ledger`].
pub(crate) struct TestTask;

// SAFETY: each call of `on_ledger` is a task with a ledger of its own, which is there until it
// returns, and for as long as anybody settles it.
unsafe impl CurrentLedger for TestTask {
    fn current() -> NonNull<Ledger> {
        CURRENT.get().expect("runs inside `on_ledger`")
    }
}

impl TrackedHeap for TestTask {
    fn heap() -> &'static Heap {
        static MEMORY: HeapMemory<64> = HeapMemory::new();
        static HEAP: Heap = Heap::new(&MEMORY);
        &HEAP
    }
}

// SAFETY: in the unit tests nobody sleeps, so nobody needs a number of its own.
unsafe impl Parker for TestTask {
    const TASKS: usize = 1;

    fn index(_: &Ledger) -> usize {
        0
    }

    fn park() {
        unreachable!("nobody sleeps here");
    }

    fn unpark(_: usize) {}
}

/// Runs `body` as a task with a ledger of its own, and returns that.
pub(crate) fn on_fresh_ledger(body: impl FnOnce(&'static Ledger)) -> &'static Ledger {
    on_ledger(Box::leak(Box::default()), body)
}

/// Runs `body` as a task with this ledger, and returns that.
pub(crate) fn on_ledger(
    ledger: &'static Ledger,
    body: impl FnOnce(&'static Ledger),
) -> &'static Ledger {
    as_task_of(ledger, || body(ledger));
    ledger
}

/// Runs `body` as a task with this ledger.
pub(crate) fn as_task_of<T>(ledger: &Ledger, body: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(Some(NonNull::from(ledger)));
    let done = body();
    CURRENT.set(outer);
    done
}

/// Records something, of no matter to anybody, as the task of this ledger.
pub(crate) fn record<'l>(
    ledger: &'l Ledger,
    resource: *mut (),
    operations: &'static Operations,
    frame: u64,
) -> Result<&'l Entry, LedgerFull> {
    as_task_of(ledger, || {
        // SAFETY: whoever settles this does so under operations that may list anything.
        unsafe { OwnLedger::<TestTask>::current().record(resource, operations, frame) }
    })
}

/// Runs `body` as a task, kills it where it ends, and returns what became of what it held.
pub(crate) fn kill(body: impl FnOnce()) -> Vec<Outcome> {
    let ledger = on_fresh_ledger(|_| body());
    let mut registers = RegisterFile::new();
    let mut outcomes = Vec::new();
    // SAFETY: the task has returned, so it executes no more, and what it left is alive: the tests
    // keep their resources outside of `body`, or on the heap.
    unsafe {
        settle(&frozen(&mut registers), ledger, &domain(), |settled| {
            outcomes.push(settled.outcome);
        });
        reclaim(ledger, &domain(), |settled| outcomes.push(settled.outcome));
    }
    assert!(ledger.is_empty());
    outcomes
}

/// A task that is nothing but its registers.
pub(crate) fn frozen(registers: &mut RegisterFile) -> FrozenTask<'_> {
    let stack = StackBounds::new(0x1000, 0x2000, 0).unwrap();
    // SAFETY: nothing runs with these registers, and no test reads the stack.
    unsafe { FrozenTask::new(TaskId::first(0), NonNull::from(registers), stack) }
}

/// The registers of a task that stopped in the middle of some window of this kind.
pub(crate) fn stopped_in(kind: WindowKind) -> RegisterFile {
    let mut registers = RegisterFile::new();
    registers.rip = WindowTable::linked().decided_addresses(kind).next().expect("a window");
    for register in Gpr::ALL {
        registers[register] = 64;
    }
    registers
}

/// Operations under which nothing happens.
pub(crate) static NOTHING: Operations = nothing();

pub(crate) const fn nothing() -> Operations {
    Operations::releasing(ResourceKind::Obligation, Extent::NOTHING, release_nothing)
}

unsafe fn release_nothing(_: &Ledger, entry: &Entry) -> Outcome {
    entry.erase();
    Outcome::Released
}
