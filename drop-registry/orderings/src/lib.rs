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
//! | [`Queue`] | `wait_queue.rs`: one word of it |
//! | [`Blocks`] | `heap.rs`: one word of it |
//!
//! Every ordering that something rests on is a field of [`Strength`], so that the tests can weaken
//! it and see that it is missed.

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

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

    /// `mov` from memory, by a Rust load.
    fn load(&self) -> u64 {
        self.0.load(self.1.load)
    }

    fn load_relaxed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

const FREE: u64 = 0;
const OWNER_DIED: u64 = 1;
/// `Readers::DIED`.
const READER_DIED: u64 = 1 << 62;

/// How a lock was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The value is whole.
    Whole,
    /// The last owner died.
    OwnerDied,
}

/// The word of a lock with one owner. Owners are the addresses of ledgers: here, multiples of 64.
#[derive(Debug)]
pub struct Lock(Locked);

impl Lock {
    /// Free.
    pub fn new(strength: Strength) -> Self {
        Self(Locked::new(FREE, strength))
    }

    /// `OwnerWord::take`: one attempt.
    pub fn try_lock(&self, owner: u64) -> Option<Taken> {
        let (mark, taken) = match self.0.load() {
            FREE => (FREE, Taken::Whole),
            OWNER_DIED => (OWNER_DIED, Taken::OwnerDied),
            _ => return None,
        };
        self.0.cmpxchg(mark, owner | mark).then_some(taken)
    }

    /// `release_last`.
    pub fn unlock(&self) {
        self.0.store(FREE);
    }

    /// `WaitStrategy::release` of a spinning lock, by the settler of `dead`.
    pub fn settle(&self, dead: u64) -> bool {
        let held = self.0.load_relaxed();
        held & !63 == dead && self.0.cmpxchg(held, OWNER_DIED)
    }
}

/// The two words of a read-write lock.
#[derive(Debug)]
pub struct ReadWriteLock {
    word: Locked,
    readers: Locked,
}

impl ReadWriteLock {
    /// Free.
    pub fn new(strength: Strength) -> Self {
        Self { word: Locked::new(FREE, strength), readers: Locked::new(0, strength) }
    }

    /// `RwLock::try_read`: comes in, and leaves again if somebody writes.
    pub fn try_read(&self) -> bool {
        self.readers.inc();
        let may = self.word.load() == FREE;
        if !may {
            self.leave();
        }
        may
    }

    /// `leave`.
    pub fn leave(&self) {
        self.readers.dec();
    }

    /// `release_reader`, for a dead reader: `Readers::mark`, then `decrement_erasing`; or, to see
    /// that it is missed, the other way about.
    pub fn settle_reader(&self, marked_first: bool) {
        if marked_first {
            self.readers.or_relaxed(READER_DIED);
        }
        self.readers.dec();
        if !marked_first {
            self.readers.or_relaxed(READER_DIED);
        }
    }

    /// `RwLock::try_write`: owns the word, and steps back if somebody reads.
    pub fn try_write(&self, owner: u64) -> Option<Taken> {
        if self.word.load() != FREE || !self.word.cmpxchg(FREE, owner) {
            return None;
        }
        let taken = match self.readers.load() {
            0 => Some(Taken::Whole),
            READER_DIED => Some(Taken::OwnerDied),
            _ => None,
        };
        if taken.is_none() {
            self.word.store(FREE);
        }
        taken
    }

    /// `release_last`.
    pub fn unlock_write(&self) {
        self.word.store(FREE);
    }
}

/// The count of a shared value, and what a death leaves beside it.
#[derive(Debug)]
pub struct Count {
    count: Locked,
    holder_died: AtomicBool,
}

impl Count {
    /// So many shares.
    pub fn new(shares: u64, strength: Strength) -> Self {
        Self { count: Locked::new(shares, strength), holder_died: AtomicBool::new(false) }
    }

    /// `Shared::drop`. Returns, if this was the last share, whether a holder had died.
    pub fn drop_share(&self) -> Option<bool> {
        self.count.dec().then(|| self.holder_died.load(Ordering::Relaxed))
    }

    /// `release_share`, for a dead holder.
    pub fn settle(&self) -> Option<bool> {
        self.holder_died.store(true, Ordering::Relaxed);
        self.drop_share()
    }
}

/// A word that keeps a pointer: 0, or something to be used by who finds it.
#[derive(Debug)]
pub struct Place(Locked);

impl Place {
    /// Empty.
    pub fn new(strength: Strength) -> Self {
        Self(Locked::new(0, strength))
    }

    /// `Slot::put`.
    pub fn put(&self, word: u64) -> bool {
        self.0.cmpxchg(0, word)
    }

    /// `Slot::share`: what is there.
    pub fn look(&self) -> u64 {
        self.0.load()
    }
}

/// A cell of a ring: a word, and the number of its turn, which one instruction changes together.
///
/// loom has no exchange of two words. So both are in one here; and the number is once more beside
/// it, written a moment later, for whoever loads the two halves one after the other. That it may be
/// late is more than can happen there: what holds here holds there.
#[derive(Debug)]
struct Turn {
    both: Locked,
    number: AtomicU64,
    strength: Strength,
}

/// Where a cell's number is, beside its word.
const NUMBER: u32 = 32;

impl Turn {
    fn new(number: u64, strength: Strength) -> Self {
        let both = Locked::new(number << NUMBER, strength);
        Self { both, number: AtomicU64::new(number), strength }
    }

    /// `lock cmpxchg16b`: the windows `give` and `receive`.
    fn cmpxchg(&self, from: (u64, u64), to: (u64, u64)) -> bool {
        let done = self.both.cmpxchg(from.0 << NUMBER | from.1, to.0 << NUMBER | to.1);
        if done && to.0 != from.0 {
            self.number.store(to.0, Ordering::Release);
        }
        done
    }

    fn load_number(&self) -> u64 {
        self.number.load(self.strength.number)
    }

    fn load_word(&self) -> u64 {
        self.both.load() & ((1 << NUMBER) - 1)
    }
}

/// A ring of `CAPACITY` cells, whose items are words other than 0.
#[derive(Debug)]
pub struct Ring<const CAPACITY: usize> {
    cells: [Turn; CAPACITY],
    head: AtomicU64,
    tail: AtomicU64,
    strength: Strength,
}

impl<const CAPACITY: usize> Ring<CAPACITY> {
    /// Empty.
    pub fn new(strength: Strength) -> Self {
        let cells = core::array::from_fn(|n| Turn::new(n as u64, strength));
        Self { cells, head: AtomicU64::new(0), tail: AtomicU64::new(0), strength }
    }

    fn cell(&self, number: u64) -> &Turn {
        &self.cells[(number % CAPACITY as u64) as usize]
    }

    /// `Ring::put`. Who `dies` does so right after its window. Returns whether there was room.
    pub fn put(&self, item: u64, dies: bool) -> bool {
        loop {
            let tail = self.tail.load(self.strength.end);
            let cell = self.cell(tail);
            let number = cell.load_number();
            match cell.load_word() {
                _ if number < tail => return false,
                0 if number == tail => {
                    if cell.cmpxchg((tail, 0), (tail, item)) {
                        if !dies {
                            self.advance(&self.tail, tail);
                        }
                        return true;
                    }
                }
                _ => self.advance(&self.tail, tail),
            }
        }
    }

    /// `Ring::pull`. Who `dies` does so right after its window, and has the item.
    pub fn pull(&self, dies: bool) -> Option<u64> {
        loop {
            let head = self.head.load(self.strength.end);
            let cell = self.cell(head);
            let word = cell.load_word();
            if cell.load_number() != head {
                self.advance(&self.head, head);
                continue;
            }
            if word == 0 {
                return None;
            }
            if cell.cmpxchg((head, word), (head + CAPACITY as u64, 0)) {
                if !dies {
                    self.advance(&self.head, head);
                }
                return Some(word);
            }
        }
    }

    fn advance(&self, end: &AtomicU64, number: u64) {
        let next = number + 1;
        let _ = end.compare_exchange(number, next, self.strength.advance, Ordering::Relaxed);
    }
}

/// A task's two bits in one word of a queue; here there is one waiter, task 0.
#[derive(Debug)]
pub struct Queue {
    word: AtomicU64,
    strength: Strength,
}

const WAITING: u64 = 1;
const WOKEN: u64 = 1 << 32;

impl Queue {
    /// Nobody waits.
    pub fn new(strength: Strength) -> Self {
        Self { word: AtomicU64::new(0), strength }
    }

    /// `WaitQueue::enrol`.
    pub fn enrol(&self) {
        self.word.fetch_or(WAITING, Ordering::AcqRel);
        if self.strength.waiter_fence {
            fence(Ordering::SeqCst);
        }
    }

    /// `Place::take_wake_up`.
    pub fn take_wake_up(&self) -> bool {
        let before = self.word.fetch_and(!WOKEN, Ordering::AcqRel);
        if self.strength.waiter_fence {
            fence(Ordering::SeqCst);
        }
        before & WOKEN != 0
    }

    /// The end of `Place`.
    pub fn leave(&self) {
        self.word.fetch_and(!(WAITING | WOKEN), Ordering::AcqRel);
    }

    /// The end of `Debt`: the waker's barrier, and `notify_one`. Returns whom to unpark.
    pub fn notify_one(&self) -> bool {
        if self.strength.waker_fence {
            fence(Ordering::SeqCst);
        }
        let mut bits = self.word.load(Ordering::Acquire);
        while bits & WAITING != 0 && bits & WOKEN == 0 {
            match self.word.compare_exchange(
                bits,
                bits | WOKEN,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => bits = now,
            }
        }
        false
    }

    /// `pass_on`, by the settler of a waker. Returns whether to unpark: also who was woken already.
    pub fn pass_on(&self) -> bool {
        let woken = self.word.load(Ordering::Acquire) & WOKEN != 0;
        self.notify_one() || woken
    }
}

/// One word of a chunk with two blocks.
#[derive(Debug)]
pub struct Blocks(Locked);

impl Blocks {
    /// None is taken.
    pub fn new(strength: Strength) -> Self {
        Self(Locked::new(0, strength))
    }

    /// `Heap::claim`: a block's number.
    pub fn claim(&self) -> Option<usize> {
        loop {
            let taken = self.0.load_relaxed();
            let free = !taken & 0b11;
            let bit = free & free.wrapping_neg();
            if bit == 0 {
                return None;
            }
            if self.0.cmpxchg(taken, taken | bit) {
                return Some(bit.trailing_zeros() as usize);
            }
        }
    }

    /// `Heap::release`, by the owner or its settler.
    pub fn release(&self, block: usize) {
        loop {
            let taken = self.0.load_relaxed();
            if self.0.cmpxchg(taken, taken & !(1 << block)) {
                return;
            }
        }
    }
}
