//! The memory that tasks on several CPUs share, as a model: a twin of the registry's windows, and
//! of what is around them, in the atomics of loom, which tries every interleaving and every value
//! that an atomic may read.
//!
//! loom cannot look into assembly, so this is not the crate's code. Each function has the name of
//! the one that it stands for, and makes its accesses to *shared* memory, one for one, in the same
//! order; what only one task touches (its ledger) is left out. Who changes one changes the other.
//!
//! | here | there |
//! | --- | --- |
//! | [`Locked`] | a `lock`-prefixed instruction of `arch/x86_64/window.rs` |
//! | [`Lock`] | `owner_word.rs`, `raw_lock.rs`, `wait_strategy.rs`: a spinning mutex |
//! | [`ReadWriteLock`] | `rwlock/` |
//! | [`Count`] | `shared.rs`: the count, `holder_died`, and who destroys the value |
//! | [`Place`] | `slot.rs`, `hand_over.rs` |
//! | [`Ring`] | `channel/ring.rs`, with the windows of `arch/x86_64/turn.rs` |
//! | [`Queue`] | `wait_queue.rs`: one word of it (a condition variable is one, beside a mutex) |
//! | [`Permits`] | `semaphore.rs`: the count, without its queue |
//! | [`Made`] | `once.rs` |
//! | [`Copies`] | `rollback_mutex.rs` |
//! | [`Blocks`] | `heap.rs`: one word of it |
//!
//! Every ordering that something rests on is a field of [`Strength`], so that the tests can weaken
//! it and see that it is missed.

mod counts;
mod locks;
mod places;
mod queue;
mod ring;

use loom::sync::atomic::{AtomicU64, Ordering, fence};

pub use counts::{Count, Permits};
pub use locks::{Copies, Lock, Made, ReadWriteLock, Taken};
pub use places::{Blocks, Place};
pub use queue::Queue;
pub use ring::Ring;

/// How strong the instructions are.
#[derive(Debug, Clone, Copy)]
pub struct Strength {
    /// Whether a locked instruction is a full barrier, as on x86-64.
    pub locked_is_barrier: bool,
    /// What a locked instruction is otherwise.
    pub locked: Ordering,
    /// A plain store of a word that gives something up.
    pub store: Ordering,
    /// A load that looks whether something may be used.
    pub load: Ordering,
    /// A load of one of a ring's ends.
    pub end: Ordering,
    /// What takes such an end on.
    pub advance: Ordering,
    /// The load of a cell's number, before that of its word.
    pub number: Ordering,
    /// Whether the waker of a queue has its barrier.
    pub waker_fence: bool,
    /// Whether the waiter has.
    pub waiter_fence: bool,
}

impl Strength {
    /// As the crate has it.
    pub const REAL: Self = Self {
        locked_is_barrier: true,
        locked: Ordering::AcqRel,
        store: Ordering::Release,
        load: Ordering::Acquire,
        end: Ordering::Acquire,
        advance: Ordering::AcqRel,
        number: Ordering::Acquire,
        waker_fence: true,
        waiter_fence: true,
    };

    /// Locked instructions that order nothing.
    pub const RELAXED_LOCKED: Self =
        Self { locked_is_barrier: false, locked: Ordering::Relaxed, ..Self::REAL };
}

/// A word that locked instructions change.
#[derive(Debug)]
pub struct Locked(AtomicU64, Strength);

impl Locked {
    fn new(value: u64, strength: Strength) -> Self {
        Self(AtomicU64::new(value), strength)
    }

    fn barrier(&self) {
        if self.1.locked_is_barrier {
            fence(Ordering::SeqCst);
        }
    }

    /// `lock cmpxchg`: the windows `acquire`, `claim`, `exchange`.
    fn cmpxchg(&self, expected: u64, desired: u64) -> bool {
        self.barrier();
        let done = self.0.compare_exchange(expected, desired, self.1.locked, Ordering::Relaxed);
        self.barrier();
        done.is_ok()
    }

    /// `lock inc`: the window `increment`.
    fn inc(&self) {
        self.barrier();
        self.0.fetch_add(1, self.1.locked);
        self.barrier();
    }

    /// `lock dec`: the windows `decrement`, `leave`. Returns ZF: whether that was the last.
    fn dec(&self) -> bool {
        self.barrier();
        let last = self.0.fetch_sub(1, self.1.locked) == 1;
        self.barrier();
        last
    }

    /// `lock or`, by a Rust read-modify-write, which is asked for no ordering.
    fn or_relaxed(&self, bits: u64) {
        self.0.fetch_or(bits, Ordering::Relaxed);
    }

    /// `mov` to memory: the window `release_last`.
    fn store(&self, value: u64) {
        self.0.store(value, self.1.store);
    }

    /// `mov` to memory, by a Rust store of what only the owner changes.
    fn store_relaxed(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// `mov` from memory, by a Rust load.
    fn load(&self) -> u64 {
        self.0.load(self.1.load)
    }

    fn load_relaxed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
