//! One record, as it is stored.

use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};

use super::decode::decode;
use super::{DecodeError, HEADER, MAGIC, MOST_WORDS, VERSION};
use crate::Report;

static TABLE: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// The checksum of a record, word by word.
pub(super) struct Checksum(Digest<'static, u32, Table<1>>);

impl Checksum {
    /// That of a record with this number, and with this first word.
    pub(super) fn new(header: u64, number: u64) -> Self {
        let mut checksum = Self(TABLE.digest());
        checksum.add(header);
        checksum.add(number);
        checksum
    }

    pub(super) fn add(&mut self, word: u64) {
        self.0.update(&word.to_le_bytes());
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// How many words a record has that begins like this.
pub(super) fn words_by_header(header: u64) -> Result<usize, DecodeError> {
    if header == 0 {
        return Err(DecodeError::Empty);
    }
    if header as u32 != MAGIC {
        return Err(DecodeError::NotARecord((header as u32).to_le_bytes()));
    }
    let (version, words) = ((header >> 32) as u16, (header >> 48) as u16);
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    if !(HEADER..=MOST_WORDS).contains(&usize::from(words)) {
        return Err(DecodeError::Length(words));
    }
    Ok(words.into())
}

/// A copy of a record, whose version is this crate's, and whose checksum is right.
#[derive(Clone)]
pub struct Record {
    bytes: [u8; 8 * MOST_WORDS],
    words: usize,
}

impl Record {
    /// The record that begins with these bytes; what comes after it does not matter.
    ///
    /// # Errors
    /// If there is none: all [`DecodeError`]s that [`report`](Self::report) does not name.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let given = bytes.len();
        let word = |n: usize| bytes.get(8 * n..8 * n + 8)?.try_into().ok().map(u64::from_le_bytes);
        let header = word(0).ok_or(DecodeError::TooShort { needed: 8 * HEADER, given })?;
        let words = words_by_header(header)?;
        let too_short = DecodeError::TooShort { needed: 8 * words, given };
        Self::from_words(words, |n| word(n).ok_or(too_short))
    }

    /// The record of so many words.
    pub(super) fn from_words(
        words: usize,
        word: impl Fn(usize) -> Result<u64, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let mut record = Self { bytes: [0; 8 * MOST_WORDS], words };
        for (n, place) in record.bytes.chunks_exact_mut(8).enumerate().take(words) {
            place.copy_from_slice(&word(n)?.to_le_bytes());
        }
        let mut checksum = Checksum::new(record.word(0), record.word(1));
        record.payload().for_each(|word| checksum.add(word));
        let (stored, computed) = (record.word(2), checksum.finish());
        if stored != u64::from(computed) {
            return Err(DecodeError::Checksum { stored: stored as u32, computed });
        }
        Ok(record)
    }

    /// The records in a copy of a ring's memory, slot by slot: [`number`](Self::number) says which
    /// is the latest.
    pub fn in_memory(bytes: &[u8]) -> impl Iterator<Item = Result<Self, DecodeError>> {
        bytes.chunks(super::Slot::BYTES).map(Self::from_bytes)
    }

    /// Its number: each record's is larger than those of all that were written before it.
    pub fn number(&self) -> u64 {
        self.word(1)
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..8 * self.words]
    }

    /// What it says: all that can be read in a report.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] and [`DecodeError::Text`], of a record that this crate has not
    /// written; [`DecodeError::Length`], if it has not as many words as it says.
    pub fn report(&self) -> Result<Report, DecodeError> {
        decode(self.words, self.payload())
    }

    fn word(&self, n: usize) -> u64 {
        self.as_bytes().chunks_exact(8).nth(n).map_or(0, word_of)
    }

    fn payload(&self) -> impl Iterator<Item = u64> {
        self.as_bytes().chunks_exact(8).map(word_of).skip(HEADER)
    }
}

/// Of eight bytes, or fewer.
pub(super) fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("number", &self.number()).finish_non_exhaustive()
    }
}
