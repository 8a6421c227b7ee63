//! Peers that write down what they hold, in the simplest way there is: what a ledger costs whoever
//! writes one.
//!
//! An entry is three words at the end of an array, which are written once the peer's lock is held,
//! and taken away once it is free, after a look whether it is still the last. What a death between
//! the two leaves is anybody's guess. So a ratio to such a peer is what exactness costs.

use core::cell::Cell;
use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::operation::Operation;

/// A peer, with a note of what it holds.
pub(crate) struct Noted<P>(pub(crate) P);

struct Notes {
    /// The number of words in use.
    depth: AtomicU64,
    words: [AtomicU64; 64],
}

static NOTES: Notes = Notes { depth: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; 64] };

thread_local! {
    /// Found as our own are: see [`Kernel`](crate::kernel::Kernel).
    static CURRENT: Cell<&'static Notes> = const { Cell::new(&NOTES) };
}

/// Notes three words, does `work`, gives up what it returns by `release`, and takes the note away.
#[inline(always)]
fn noted<H>(held: H, resource: *const (), work: impl FnOnce(&mut H), release: impl FnOnce(H)) {
    let (mut held, notes) = (held, CURRENT.get());
    let depth = notes.depth.load(Ordering::Relaxed);
    let [note @ .., next] = &notes.words[depth as usize..][..4] else { unreachable!() };
    for (word, value) in note.iter().zip([resource.addr() as u64, 1, 2]) {
        word.store(value, Ordering::Relaxed);
    }
    notes.depth.store(depth + 3, Ordering::Relaxed);
    work(&mut held);
    assert_eq!(next.load(Ordering::Relaxed), 0, "notes are taken away in order");
    release(held);
    note[0].store(0, Ordering::Relaxed);
    notes.depth.store(depth, Ordering::Relaxed);
}

impl Operation for Noted<spin::Mutex<u64>> {
    #[inline(always)]
    fn run(&self) {
        noted(self.0.lock(), ptr::from_ref(&self.0).cast(), |value| **value += 1, drop);
    }
}

impl Operation for Noted<spin::RwLock<u64>> {
    #[inline(always)]
    fn run(&self) {
        let read = |value: &mut spin::RwLockReadGuard<'_, u64>| {
            black_box(**value);
        };
        noted(self.0.read(), ptr::from_ref(&self.0).cast(), read, drop);
    }
}

impl Operation for Noted<Arc<u64>> {
    #[inline(always)]
    fn run(&self) {
        let read = |value: &mut Arc<u64>| {
            black_box(**value);
        };
        noted(Arc::clone(&self.0), Arc::as_ptr(&self.0).cast(), read, drop);
    }
}
