//! The ring of records.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::encode::{encode, words_of};
use super::record::{Checksum, words_by_header};
use super::{DecodeError, HEADER, MOST_WORDS, Record, header};
use crate::Report;

/// The words of a slot: a page.
const WORDS: usize = 512;
/// Who writes in a slot: the word behind the record, which is no part of it.
const WRITER: usize = MOST_WORDS;
const _: () = assert!(WRITER < WORDS);

/// Room for one record. Whatever its bytes are, it is a slot: with a record in it, or without.
#[repr(C, align(8))]
pub struct Slot(pub(super) [AtomicU64; WORDS]);

impl Slot {
    /// The size of a slot.
    pub const BYTES: usize = size_of::<Self>();

    /// Without a record.
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// A copy of its record.
    ///
    /// # Errors
    /// If there is none.
    pub fn read(&self) -> Result<Record, DecodeError> {
        // Acquire pairs with the Release in `write`. It does not matter much: words that belong to
        // different records are found by their checksum.
        let words = words_by_header(self.0[0].load(Ordering::Acquire))?;
        Record::from_words(words, |n| Ok(self.0[n].load(Ordering::Relaxed)))
    }

    /// Puts a record into the slot, by giving the words one by one to `store`, in an order in which
    /// there is a record before the first and after the last, and none in between.
    pub(super) fn write(
        &self,
        number: u64,
        report: &Report,
        mut store: impl FnMut(&AtomicU64, u64, Ordering),
    ) {
        let header = header(words_of(report));
        store(&self.0[0], 0, Ordering::Relaxed);
        // Release: the record is gone before a word of it is.
        fence(Ordering::Release);
        store(&self.0[1], number, Ordering::Relaxed);
        let mut checksum = Checksum::new(header, number);
        let mut places = self.0[HEADER..MOST_WORDS].iter();
        encode(report, |word| {
            checksum.add(word);
            if let Some(place) = places.next() {
                store(place, word, Ordering::Relaxed);
            }
        });
        store(&self.0[2], checksum.finish().into(), Ordering::Relaxed);
        // Pairs with the Acquire in `read`: who sees that there is a record sees all of it.
        store(&self.0[0], header, Ordering::Release);
    }

    /// Takes the slot for `writer`, unless another has it.
    pub(super) fn claim(&self, writer: u64) -> bool {
        // Acquire and Release: records in one slot are written one after the other.
        self.0[WRITER].compare_exchange(0, writer, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Lets the slot go if `writer` has it.
    fn release(&self, writer: u64) {
        let _ = self.0[WRITER].compare_exchange(writer, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// The number of its record, if it has one that begins as it should.
    fn number(&self) -> Option<u64> {
        words_by_header(self.0[0].load(Ordering::Acquire)).ok()?;
        Some(self.0[1].load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.number()).finish()
    }
}

/// A ring of records: the latest, as many as there are slots.
///
/// To write one takes no lock and allocates nothing. Keepers may write at the same time, and may
/// die at any instruction of it.
#[derive(Debug)]
pub struct Ring {
    slots: &'static [Slot],
    next: AtomicU64,
    lost: AtomicU64,
}

impl Ring {
    /// The ring in these slots, with the records that they have already. Nobody else may have a
    /// ring there, or records may be lost.
    pub fn new(slots: &'static [Slot]) -> Self {
        // Who wrote here does so no more.
        slots.iter().for_each(|slot| slot.0[WRITER].store(0, Ordering::Relaxed));
        let latest = slots.iter().filter_map(|slot| slot.read().ok()).map(|it| it.number()).max();
        let next = AtomicU64::new(latest.unwrap_or(0).saturating_add(1));
        Self { slots, next, lost: AtomicU64::new(0) }
    }

    /// Its slots, in no order: what is in them, or [why](Slot::read) nothing is.
    pub fn slots(&self) -> &'static [Slot] {
        self.slots
    }

    /// Copies of its records, the latest first. What is no record, is left out; one that is written
    /// over meanwhile, too.
    pub fn records(&self) -> Records<'_> {
        Records { ring: self, before: None }
    }

    /// How many records there was no place for, since keepers that died while they wrote had all
    /// slots. Not with more slots than keepers.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes a record. `writer` is a number that nobody else writes under at the same time.
    pub(crate) fn write(&self, writer: u8, report: &Report) {
        let writer = u64::from(writer) + 1;
        // What it has still it died over; or the one did whose number it has by now.
        self.slots.iter().for_each(|slot| slot.release(writer));
        // Relaxed: the number alone.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let first = number % self.slots.len().max(1) as u64;
        let (before, after) = self.slots.split_at(first as usize);
        match after.iter().chain(before).find(|slot| slot.claim(writer)) {
            Some(slot) => {
                slot.write(number, report, |place, word, order| place.store(word, order));
                slot.release(writer);
            }
            None => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The records of a ring, the latest first.
#[derive(Debug)]
pub struct Records<'r> {
    ring: &'r Ring,
    /// The number and the slot of the one that was given out last. Two slots have one number only
    /// if something has written over it.
    before: Option<(u64, usize)>,
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let slots = self.ring.slots.iter().enumerate();
            let latest = slots
                .filter_map(|(n, slot)| Some((slot.number()?, n)))
                .filter(|key| self.before.is_none_or(|before| *key < before))
                .max()?;
            self.before = Some(latest);
            if let Ok(record) = self.ring.slots[latest.1].read()
                && record.number() == latest.0
            {
                return Some(record);
            }
        }
    }
}
