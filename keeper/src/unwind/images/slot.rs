//! One slot of the table of images: tables, and one atomic word that guards them.
//!
//! ```text
//!  63          35 34   32 31            0
//! ┌──────────────┬───────┬───────────────┐      add        add: no overlap     remove
//! │ generation   │ phase │ readers       │   Empty ─► Claimed ─► Announced ─► Present ─► Leaving
//! └──────────────┴───────┴───────────────┘     ▲                     │                      │
//!                                              └─────────────────────┴──────────────────────┘
//!                                               next generation     overlap      no readers
//! ```
//!
//! A reader adds one to the word, and may read if the phase that it finds is *Present*; if it is
//! another, or when it has read, it takes the one back. Both are one instruction, and never tried
//! again. A remover makes a present slot *Leaving*, and a leaving one that nobody reads *Empty*.
//!
//! # Why nobody reads what is gone
//! All changes of a word are read-modify-writes, so they have one order, and each sees the one
//! before. A count that was added before *Leaving* is seen by the remover, who leaves the slot
//! alone; one that was added later sees *Leaving*, and is no reader. What the tables themselves
//! need:
//!
//! - To become *Present* is a release, to add oneself is an acquire: a reader sees the tables
//!   whole. Counts in between do not break that, as they are read-modify-writes (a release
//!   sequence).
//! - To take one's count back is a release, to become *Empty* is an acquire: all reading is over
//!   before [`remove`](super::Images::remove) says so. To become *Empty* is also a release, and to
//!   become *Claimed* an acquire: all reading is over before the next tables are written.
//!
//! A walker that is killed inside a walk never takes its count back. Nobody can tell that from a
//! slow one, so [`remove`](super::Images::remove) says [`Busy`](RemoveError::Busy) for ever, the
//! tables have to stay, and the slot is lost. No other image, and no other walk, is the worse for
//! it. Who is killed in [`add`](super::Images::add) leaves a slot that is never *Present*; it is
//! lost, too, and maybe its range of addresses.
#![expect(unsafe_code, reason = "shares tables with readers that are counted")]

use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use super::RemoveError;
use crate::unwind::UnwindTables;

/// Room for one image.
pub(super) struct Slot<'a> {
    word: AtomicU64,
    /// The text as announced, written by who has claimed the slot.
    text_start: AtomicU64,
    text_end: AtomicU64,
    /// Written by who has announced it, read by readers.
    tables: UnsafeCell<UnwindTables<'a>>,
}

// SAFETY: the tables, which are `Sync`, are written only by who has announced the slot, and read
// only by counted readers of a present one. The module says why those never meet.
unsafe impl Sync for Slot<'_> {}

/// What a slot's word says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

/// In this order, so that the next one is one more; the generation follows in the higher bits.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Phase {
    Empty = 0,
    /// Somebody is adding an image. Nothing is known of it yet.
    Claimed = 1,
    /// Its text is known, and may turn out to overlap another.
    Announced = 2,
    Present = 3,
    /// No look-up finds it, and some may still read it.
    Leaving = 4,
}

const READER: u64 = 1;
const READERS: u64 = (1 << 32) - 1;
/// Far from where a count would run into the phase. So many readers there never are, unless ever so
/// many were killed.
const MOST_READERS: u64 = 1 << 31;
const NEXT_PHASE: u64 = 1 << 32;
const NEXT_GENERATION: u64 = 1 << 35;

impl Word {
    const fn readers(self) -> u64 {
        self.0 & READERS
    }

    const fn is(self, phase: Phase) -> bool {
        (self.0 % NEXT_GENERATION) / NEXT_PHASE == phase as u64
    }

    const fn generation(self) -> u32 {
        (self.0 / NEXT_GENERATION) as u32
    }

    /// The same in other phases and generations, whoever reads.
    const fn is_same_life(self, other: Self) -> bool {
        self.0 & !READERS == other.0 & !READERS
    }

    /// What to add to a word in this phase to make it an empty one of the next generation.
    const fn to_empty(from: Phase) -> u64 {
        NEXT_GENERATION - from as u64 * NEXT_PHASE
    }
}

impl<'a> Slot<'a> {
    pub(super) const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            text_start: AtomicU64::new(0),
            text_end: AtomicU64::new(0),
            tables: UnsafeCell::new(UnwindTables::NONE),
        }
    }

    /// Whether to look here for `address`. Never no, if the image was added before.
    ///
    /// Relaxed: who knows that [`publish`](Announced::publish) has come back reads what was
    /// announced before it. What a slot says that is not present, [`read`](Self::read) finds out.
    pub(super) fn may_contain(&self, address: u64) -> bool {
        self.text_start.load(Relaxed) <= address && address < self.text_end.load(Relaxed)
    }

    /// Begins to read the tables, if they are there.
    pub(super) fn read(&self) -> Option<Reading<'_, 'a>> {
        // Acquire: pairs with the release of `publish`.
        let word = Word(self.word.fetch_add(READER, Acquire));
        // Takes the count back, if it is not to be had.
        let reading = Reading { slot: self };
        (word.is(Phase::Present) && word.readers() < MOST_READERS).then_some(reading)
    }

    /// Takes an empty slot.
    pub(super) fn claim(&self) -> Option<Claimed<'_, 'a>> {
        let claim = |word| Word(word).is(Phase::Empty).then(|| word + NEXT_PHASE);
        // Acquire: pairs with the release of `remove`, which comes after all reading. A count that
        // is in the word now is no reader's.
        self.word.fetch_update(Acquire, Relaxed, claim).ok()?;
        Some(Claimed { slot: self })
    }

    /// The text of the image that is here, or about to be, or to be gone; and its generation.
    pub(super) fn announced(&self) -> Option<(Range<u64>, u32)> {
        loop {
            // SeqCst: see `announce`.
            let word = Word(self.word.load(SeqCst));
            if word.is(Phase::Empty) || word.is(Phase::Claimed) {
                return None;
            }
            // Acquire: pair with the releases of `announce`. If one reads what the next image has
            // written, then the word that follows is at least that image's claim.
            let text = self.text_start.load(Acquire)..self.text_end.load(Acquire);
            if word.is_same_life(Word(self.word.load(Relaxed))) {
                return Some((text, word.generation()));
            }
        }
    }

    /// Removes the image of this generation.
    pub(super) fn remove(&self, generation: u32) -> Result<(), RemoveError> {
        let is = |word: Word, phase| word.is(phase) && word.generation() == generation;
        // Relaxed: it orders nothing but itself among the counts. It fails if somebody has asked
        // for this before, or there is no such image; the next one tells these apart.
        let leave = |word| is(Word(word), Phase::Present).then(|| word + NEXT_PHASE);
        let _ = self.word.fetch_update(Relaxed, Relaxed, leave);
        let empty = |word| {
            (is(Word(word), Phase::Leaving) && Word(word).readers() == 0)
                .then(|| word.wrapping_add(Word::to_empty(Phase::Leaving)))
        };
        // Acquire: pairs with the release of every reader, so that all reading was before. Release:
        // pairs with the acquire of `claim`.
        match self.word.fetch_update(AcqRel, Relaxed, empty) {
            Ok(_) => Ok(()),
            Err(word) if is(Word(word), Phase::Leaving) => Err(RemoveError::Busy),
            Err(_) => Err(RemoveError::NoSuchImage),
        }
    }
}

/// A slot in phase *Claimed*. There is one such value for it; if it is dropped, the slot is lost.
pub(super) struct Claimed<'s, 'a> {
    slot: &'s Slot<'a>,
}

impl<'s, 'a> Claimed<'s, 'a> {
    /// Lets others know the text of the image to be added.
    pub(super) fn announce(self, text: &Range<u64>) -> Announced<'s, 'a> {
        // Release: pair with the acquires of `announced`. They come after the claim.
        self.slot.text_start.store(text.start, Release);
        self.slot.text_end.store(text.end, Release);
        // SeqCst, as is the load in `announced`: of two adders that do this and then look at the
        // other's word, one is the later in the total order, and sees that the other has. Of
        // itself it is a release, too, for the text.
        self.slot.word.fetch_add(NEXT_PHASE, SeqCst);
        Announced { slot: self.slot }
    }
}

/// A slot in phase *Announced*. There is one such value for it, as for [`Claimed`].
pub(super) struct Announced<'s, 'a> {
    slot: &'s Slot<'a>,
}

impl<'a> Announced<'_, 'a> {
    /// Makes the image present, and returns its generation.
    pub(super) fn publish(self, tables: UnwindTables<'a>) -> u32 {
        // SAFETY: `self` is the only one that may write, and the slot is not present, so that
        // nobody reads: who did in an earlier generation had finished before it became empty.
        unsafe { *self.slot.tables.get() = tables };
        // Release: pairs with the acquire of `read`.
        Word(self.slot.word.fetch_add(NEXT_PHASE, Release)).generation()
    }

    /// Gives the slot back.
    pub(super) fn withdraw(self) {
        // Release: pairs with the acquire of `claim`, and passes on what was acquired there.
        self.slot.word.fetch_add(Word::to_empty(Phase::Announced), Release);
    }
}

/// One count of a slot's readers.
pub(super) struct Reading<'s, 'a> {
    slot: &'s Slot<'a>,
}

impl<'a> Reading<'_, 'a> {
    /// The tables.
    pub(super) const fn tables(&self) -> &UnwindTables<'a> {
        // SAFETY: `read` gave this out, so it was counted in a present slot: the tables were
        // written before, and stay as they are until the count is taken back.
        unsafe { &*self.slot.tables.get() }
    }
}

impl Drop for Reading<'_, '_> {
    fn drop(&mut self) {
        // Release: pairs with the acquire of `remove`.
        self.slot.word.fetch_sub(READER, Release);
    }
}
