//! What several have at a time.

use loom::sync::atomic::{AtomicBool, Ordering};

use crate::{Locked, Strength};

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

/// The permits of a semaphore.
#[derive(Debug)]
pub struct Permits(Locked);

/// A permit that somebody has, in the high half of the word.
const ISSUED: u64 = 1 << 32;

impl Permits {
    /// So many.
    pub fn new(permits: u64, strength: Strength) -> Self {
        Self(Locked::new(permits, strength))
    }

    /// `Semaphore::attempt`.
    pub fn try_acquire(&self) -> bool {
        loop {
            let there = self.0.load_relaxed();
            if there.is_multiple_of(ISSUED) {
                return false;
            }
            if self.0.cmpxchg(there, there + ISSUED - 1) {
                return true;
            }
        }
    }

    /// `release_permit`, by the settler of who has one. Returns whether anybody has.
    pub fn settle(&self) -> bool {
        let has = self.0.load_relaxed() / ISSUED > 0;
        if has {
            self.give_back();
        }
        has
    }

    /// `Semaphore::give_back`.
    pub fn give_back(&self) {
        loop {
            let there = self.0.load_relaxed();
            if self.0.cmpxchg(there, there - ISSUED + 1) {
                return;
            }
        }
    }

    /// How many are with the semaphore, and how many with tasks.
    pub fn count(&self) -> (u64, u64) {
        let word = self.0.load();
        (word % ISSUED, word / ISSUED)
    }
}
