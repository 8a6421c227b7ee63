//! A ledger of what each task holds, so that a dead task's resources can be released from outside.
//!
//! Compilers put landing pads at call sites only. A function that holds a lock around nothing but
//! a memory write has none: when it faults there, no unwinder can find the guard, which may exist
//! only in a register. So the guards of this crate write down what they hold while they hold it,
//! in a [`Ledger`] that belongs to their task, and [`settle`] reads it once the task is frozen.
//!
//! # Exact, not probable
//! A task may stop between taking a lock and writing the entry. Every acquire and release is
//! therefore one short piece of assembly, a *window*, whose addresses stand in a table
//! ([`WindowTable`]). The saved RIP, ZF and registers of a task that stopped inside one tell
//! whether the locked instruction has been executed and the entry not yet written, so that the
//! entry can be completed or removed before anything is released. The idea of resolving a window
//! from the interrupted instruction pointer is that of restartable sequences and of Linux's fix
//! for the unlock race of robust futexes; writing the entry *after* the locked instruction, where
//! it costs almost nothing, is what the registers make possible.
//!
//! # What is in it
//! | | |
//! | --- | --- |
//! | [`Ledger`], [`Entry`], [`Operations`] | what a task holds, and how to let go of each thing |
//! | [`CurrentLedger`] | how a guard finds its task's ledger: the one trait to implement |
//! | [`Parker`] | how a task sleeps and is woken: to be implemented for what waits asleep |
//! | [`Mutex`] | a lock whose next owner is told when its owner died; its waiters spin or sleep |
//! | [`RollbackMutex`] | a lock whose value is again what it was when its owner dies |
//! | [`RepairMutex`] | a lock with a routine that mends its value, for the keeper to run |
//! | [`RwLock`] | a lock for many readers or one writer |
//! | [`Once`], [`Lazy`] | a value that is made once, by whoever lives to finish it |
//! | [`Condvar`], [`Semaphore`] | waiting for what a lock protects, and for one of so many |
//! | `lock_api` | these locks for users of that crate, and its locks tracked (with the feature) |
//! | [`WaitQueue`] | waiting asleep for anything, with wake-ups that no death loses |
//! | [`Shared`] | a counted pointer |
//! | [`TrackedBox`] | a heap block that its task's death frees |
//! | [`Heap`] | a heap without a lock, so that nobody can die holding it |
//! | [`ArenaHeap`] | a heap for all sizes, of which a death inside the allocator costs one arena |
//! | [`Obligation`] | anything else that must be put back |
//! | [`Slot`] | a place that keeps a share, a box or an obligation beyond its task ([`HandOver`]) |
//! | [`Channel`] | a bounded queue of them, from task to task, that no death loses one of |
//! | [`WindowTable`], [`Domain`] | where the windows are, and what a ledger may speak of |
//! | [`settle`], [`reclaim`] | putting a dead task's resources in order, in two steps |
//! | [`catch_fault`], [`RecoveryPoint`] | going on behind a fault, with what was held before it |
//! | [`WaitForGraph`], [`Deadlock`] | who waits for whom, and who waits for ever |
//! | [`DropAfterTear`] | the promise that lets a value of a dead task be dropped |
//! | [`UntornByReaders`] | the promise that spares an [`RwLock`]'s writers its readers' deaths |
//!
//! Everything that a keeper needs of a *task* is in `task-model`; what is decided about one is in
//! `keeper`.

#![no_std]

#[cfg(any(test, feature = "hosted"))]
extern crate std;

/// Whether the bug of this name is planted: never, but in the tests of the proofs.
#[cfg(feature = "planted-bugs")]
macro_rules! planted {
    ($bug:ident) => {
        crate::planted::is(crate::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted-bugs"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod arch;
mod arena_heap;
mod channel;
mod condvar;
mod current;
mod domain;
mod entry;
mod extent;
mod hand_over;
mod heap;
mod lazy;
mod ledger;
#[cfg(feature = "lock_api")]
pub mod lock_api;
mod lock_error;
#[cfg(test)]
mod misuse;
mod mutex;
mod no_kill;
mod no_unwind;
mod obligation;
mod once;
mod operations;
mod owned_block;
mod owner_died;
mod owner_word;
mod parker;
mod raw_lock;
mod recovery;
mod repair_mutex;
mod rollback_mutex;
mod rwlock;
mod semaphore;
mod settle;
mod shared;
mod slot;
mod tear;
mod tracked_box;
mod wait_for;
mod wait_queue;
mod wait_strategy;
mod window;

#[cfg(all(any(test, feature = "hosted"), target_os = "linux", target_arch = "x86_64"))]
pub mod hosted;

#[cfg(feature = "planted-bugs")]
pub mod planted;

/// The README's examples, as doc tests.
#[cfg(all(doctest, feature = "hosted"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod testing;

pub use arena_heap::{Arena, ArenaAllocator, ArenaHeap};
pub use channel::{Channel, SendError, TryRecvError, TrySendError};
pub use condvar::Condvar;
pub use current::{CurrentLedger, TrackedHeap};
pub use domain::Domain;
pub use entry::Entry;
pub use extent::Extent;
pub use hand_over::HandOver;
pub use heap::{AllocError, Heap, HeapMemory};
pub use lazy::Lazy;
pub use ledger::{Cursor, Ledger, LedgerFull};
pub(crate) use ledger::{OwnLedger, Place};
pub use lock_error::{
    LockError, LockResult, MaybeTorn, TryLockError, TryLockResult, TryWaitError, WaitError,
};
pub use mutex::{Mutex, MutexGuard};
pub use no_kill::{KillSwitch, NoKill, safepoint};
pub use obligation::{Obligation, Undo};
pub use once::Once;
pub use operations::{Operations, Outcome, ResourceKind};
pub use owner_died::{Exclusive, OwnerDied};
pub use parker::Parker;
pub use recovery::{Fault, NoRecoveryPoint, RecoveryPoint, catch_fault};
pub use repair_mutex::{Repair, RepairMutex};
pub use rollback_mutex::{RollbackGuard, RollbackMutex};
pub use rwlock::{ReadError, ReadGuard, RwLock, TryReadError, WriteGuard};
pub use semaphore::{AddPermitsError, Permit, Semaphore, TryAcquireError};
pub use settle::{Settled, reclaim, settle, take_over};
pub use shared::Shared;
pub use slot::Slot;
pub use tear::{DropAfterTear, UntornByReaders};
pub use tracked_box::TrackedBox;
pub use wait_for::{Deadlock, TooManyTasks, Wait, WaitForGraph};
pub use wait_queue::WaitQueue;
pub use wait_strategy::{Park, WaitStrategy};
pub use window::{Pending, WindowTable};

pub use spin::relax::RelaxStrategy;
