//! Why bytes are no record.

use core::fmt;

use super::VERSION;

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first word is zero: nothing was written here, or whoever wrote it did not come to the
    /// end.
    Empty,
    /// The bytes end within the record.
    TooShort {
        /// How many it has.
        needed: usize,
        /// How many there are.
        given: usize,
    },
    /// It does not begin as records do, but with these four bytes.
    NotARecord([u8; 4]),
    /// It has this version.
    Version(u16),
    /// It has so many words, which is too few for a record, or too many.
    Length(u16),
    /// Its checksum is wrong: it is torn, or was written over.
    Checksum {
        /// What it says.
        stored: u32,
        /// What it should be.
        computed: u32,
    },
    /// It is whole, and has a number that means nothing.
    Unknown {
        /// What the number stands for.
        what: &'static str,
        /// The number.
        code: u64,
    },
    /// It is whole, and its message is no text.
    Text,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no record, or one that was not finished"),
            Self::TooShort { needed, given } => {
                write!(f, "the record has {needed} bytes, and there are {given}")
            }
            Self::NotARecord(bytes) => {
                write!(f, "a record begins with KPMR, this with {}", bytes.escape_ascii())
            }
            Self::Version(version) => {
                write!(f, "the record has version {version}, expected {VERSION}")
            }
            Self::Length(words) => write!(f, "no record has {words} words"),
            Self::Checksum { stored, computed } => {
                write!(f, "the record is damaged: checksum {stored:#010x}, not {computed:#010x}")
            }
            Self::Unknown { what, code } => write!(f, "{code:#x} is no {what}"),
            Self::Text => f.write_str("the message is not UTF-8"),
        }
    }
}

impl core::error::Error for DecodeError {}
