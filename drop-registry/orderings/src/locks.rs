//! What has one owner at a time.

use crate::{Locked, Strength};

const FREE: u64 = 0;
const OWNER_DIED: u64 = 1;
/// The value is there: `owner_word::DONE`.
const DONE: u64 = 2;
/// `rollback_mutex::SECOND`: the second copy counts.
const SECOND: u64 = 4;
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

/// The word of a value that is made once.
#[derive(Debug)]
pub struct Made(Locked);

impl Made {
    /// Nobody has begun.
    pub fn new(strength: Strength) -> Self {
        Self(Locked::new(FREE, strength))
    }

    /// `Once::get`: whether it is there.
    pub fn is_completed(&self) -> bool {
        self.0.load() == DONE
    }

    /// `RawLock::take` of one that nobody makes.
    pub fn begin(&self, owner: u64) -> bool {
        self.0.load() == FREE && self.0.cmpxchg(FREE, owner)
    }

    /// `RawLock::release_found`.
    pub fn complete(&self) {
        self.0.store(DONE);
    }

    /// `WaitStrategy::release`, by the settler of `dead`: as if nobody had begun.
    pub fn settle(&self, dead: u64) -> bool {
        self.0.load_relaxed() == dead && self.0.cmpxchg(dead, FREE)
    }
}

/// The word of a lock that has its value twice.
#[derive(Debug)]
pub struct Copies(Locked);

impl Copies {
    /// Free, and the first copy counts.
    pub fn new(strength: Strength) -> Self {
        Self(Locked::new(FREE, strength))
    }

    /// `RawLock::take_from`: which copy counts. The owner writes the other one.
    pub fn take(&self, owner: u64) -> Option<usize> {
        let marks = self.0.load_relaxed() & SECOND;
        self.0.cmpxchg(marks, owner | marks).then_some(usize::from(marks != 0))
    }

    /// `RollbackGuard::commit`: the other copy counts, and the owner stays.
    pub fn commit(&self, owner: u64, counted: usize) {
        self.0.store_relaxed(owner | marks_of(1 - counted));
    }

    /// `RawLock::release`: this copy counts.
    pub fn unlock(&self, counts: usize) {
        self.0.store(marks_of(counts));
    }

    /// `WaitStrategy::release`, by the settler of `dead`: what counted goes on to count.
    pub fn settle(&self, dead: u64) -> bool {
        let held = self.0.load_relaxed();
        held & !63 == dead && self.0.cmpxchg(held, held & SECOND)
    }
}

/// What the word says of which copy counts.
fn marks_of(copy: usize) -> u64 {
    if copy == 0 { FREE } else { SECOND }
}
