//! Why tables are refused, and why a walk ends early.

use core::fmt;

use task_model::{Gpr, ReadError};

/// Why a walk could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalkError {
    /// No function in the tables contains this address, or it is in no image.
    NoFde(u64),
    /// The tables' entry for this address does not parse, exceeds the fixed storage, or says
    /// something that has no meaning here.
    BadCfi(u64),
    /// This address is outside the task's stack.
    OutOfStack(u64),
    /// This stack address, frame address or stack pointer is not a multiple of eight.
    Misaligned(u64),
    /// The caller would begin here, which is not above the frame that it called.
    DidNotAdvance(u64),
    /// A value would have been saved at this address, which the frame has not (or no longer)
    /// allocated.
    BelowStackPointer(u64),
    /// The frame's rules need this register, whose value in the frame is not known.
    UndefinedRegister(Gpr),
    /// This return address does not lie in the text of the image, or of any.
    ReturnAddressNotInText(u64),
    /// No call comes before this return address.
    NotAfterCall(u64),
    /// There are more frames than the walk's limit.
    TooDeep,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFde(address) => write!(f, "no unwind entry for {address:#x}"),
            Self::BadCfi(address) => write!(f, "unusable unwind entry for {address:#x}"),
            Self::OutOfStack(address) => write!(f, "{address:#x} is outside the task's stack"),
            Self::Misaligned(address) => write!(f, "{address:#x} is not aligned to 8"),
            Self::DidNotAdvance(address) => {
                write!(f, "the caller's frame at {address:#x} is not above its callee's")
            }
            Self::BelowStackPointer(address) => {
                write!(f, "the slot at {address:#x} is below the frame's stack pointer")
            }
            Self::UndefinedRegister(register) => write!(f, "{register:?} is needed and unknown"),
            Self::ReturnAddressNotInText(address) => {
                write!(f, "the return address {address:#x} is not in the text")
            }
            Self::NotAfterCall(address) => {
                write!(f, "no call comes before the return address {address:#x}")
            }
            Self::TooDeep => f.write_str("more frames than the walk's limit"),
        }
    }
}

impl core::error::Error for WalkError {}

impl From<ReadError> for WalkError {
    #[inline]
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Misaligned(address) => Self::Misaligned(address),
            ReadError::OutOfStack(address) => Self::OutOfStack(address),
            // A reason that is new to this crate. It carries no address that could be shown.
            _ => Self::OutOfStack(0),
        }
    }
}

/// Why an image's tables were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TablesError {
    /// `.eh_frame_hdr` is empty or ends within its fixed part: was it linked with
    /// `--eh-frame-hdr`, and kept by the linker script?
    MissingHeader,
    /// `.eh_frame_hdr` has this version; only 1 is defined.
    UnknownVersion(u8),
    /// `.eh_frame_hdr` uses this pointer encoding, where no linker for x86-64 does.
    UnsupportedEncoding(u8),
    /// `.eh_frame_hdr` has no search table, or an empty one.
    NoSearchTable,
    /// The search table has this many rows, more than the section has room for.
    Truncated(u32),
    /// `.eh_frame_hdr` says that `.eh_frame` is at this address, which is not what was given.
    WrongEhFrame(u64),
    /// The search table is not sorted; this row is the first that is out of order.
    Unsorted(usize),
    /// This row of the search table points outside `.eh_frame`.
    FdeOutOfRange(usize),
    /// The range of the text is empty.
    EmptyText,
    /// The text has this size; compiled tables are for less than 4 GiB.
    TextTooLarge(u64),
    /// The memory to compile into is smaller than these numbers of rows and buckets.
    NoRoom {
        /// The rows that are needed.
        rows: usize,
        /// The slots of the index that are needed.
        buckets: usize,
    },
}

impl fmt::Display for TablesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingHeader => f.write_str(".eh_frame_hdr is missing or too short"),
            Self::UnknownVersion(version) => {
                write!(f, ".eh_frame_hdr has version {version}, expected 1")
            }
            Self::UnsupportedEncoding(encoding) => {
                write!(f, ".eh_frame_hdr uses pointer encoding {encoding:#04x}")
            }
            Self::NoSearchTable => f.write_str(".eh_frame_hdr has no search table"),
            Self::Truncated(rows) => {
                write!(f, ".eh_frame_hdr ends before its {rows} rows of search table do")
            }
            Self::WrongEhFrame(address) => {
                write!(f, ".eh_frame_hdr belongs to an .eh_frame at {address:#x}")
            }
            Self::Unsorted(row) => write!(f, "row {row} of the search table is out of order"),
            Self::FdeOutOfRange(row) => {
                write!(f, "row {row} of the search table points outside .eh_frame")
            }
            Self::EmptyText => f.write_str("the range of the text is empty"),
            Self::TextTooLarge(size) => write!(f, "{size} bytes of text are too many to compile"),
            Self::NoRoom { rows, buckets } => {
                write!(f, "compiled tables need room for {rows} rows and {buckets} buckets")
            }
        }
    }
}

impl core::error::Error for TablesError {}
