//! What a kernel task is to its keeper.
//!
//! A *task* here is a kernel thread: registers, a stack, and the resources that its frames hold.
//! This crate names the parts; it schedules nothing and stores nothing.
//!
//! | type | what it is |
//! | --- | --- |
//! | [`TaskId`] | a slot and the generation that lives in it; stale ids never match |
//! | [`TaskState`], [`AtomicTaskState`] | where a task is in its life, and the moves that are legal |
//! | [`FaultInfo`], [`FaultKind`], [`Place`] | why something stopped, and where; a kill and a panic are faults too |
//! | [`RegisterFile`], [`Gpr`] | everything the CPU holds for a task, as a trap stub saves it |
//! | [`StackBounds`] | where its stack is, and the guard below it |
//! | [`FrozenTask`] | a task that cannot run: the handle for reading and changing one |
//! | [`StackMemory`] | checked reads of a stack, for walking its frames from outside |
//!
//! `drop-registry` adds what a task *holds*, and `keeper` what is *done* about a stopped one.

#![no_std]

#[cfg(test)]
extern crate std;

mod codes;
mod fault;
mod frozen;
mod id;
mod registers;
mod stack;
mod state;

pub use fault::{FaultInfo, FaultKind, Place};
pub use frozen::FrozenTask;
pub use id::TaskId;
pub use registers::{FpuState, GeneralRegisters, Gpr, RegisterFile};
pub use stack::{ReadError, StackBounds, StackMemory};
pub use state::{AtomicTaskState, IllegalMove, TaskState};
