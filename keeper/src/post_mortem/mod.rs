//! What the keepers did, in memory that may outlive the kernel.
//!
//! A [`Ring`] has the last records of tasks that were not resumed, and of the fault that ended the
//! kernel. Its memory is the embedder's. If that is memory which neither the boot code nor the
//! firmware clears, the records are still there after a warm reset; after a cold one, what is there
//! instead is refused.
//!
//! ```
//! use keeper::hosted::Kernel;
//! use keeper::post_mortem::{Ring, Slot};
//! use std::sync::LazyLock;
//!
//! // In a kernel: `#[unsafe(link_section = ".post_mortem")]`, a section that is not loaded.
//! static MEMORY: [Slot; 8] = [const { Slot::new() }; 8];
//! static RING: LazyLock<Ring> = LazyLock::new(|| Ring::new(&MEMORY));
//!
//! // SAFETY: the task keeps nothing in thread-locals, and is not stopped by the instruction.
//! let kernel = unsafe { Kernel::new() };
//! let kernel = kernel.configured(|keepers| keepers.with_post_mortem(&RING));
//! let task = kernel.spawn(|| panic!("out of biscuits"));
//! kernel.run();
//!
//! // After the next boot, from the same memory.
//! for record in Ring::new(&MEMORY).records() {
//!     let report = record.report()?;
//!     println!("{report}");
//!     assert_eq!(report.task, task);
//! }
//! # Ok::<(), keeper::post_mortem::DecodeError>(())
//! ```
//!
//! # The form of a record
//! Words of 64 bits, little-endian. Numbers of enums are those of their `code`, or of the lists in
//! `encode.rs`; they keep their meaning in all versions. A word that stands for nothing is 0.
//!
//! | word | bits | |
//! | --- | --- | --- |
//! | 0 | 0-31 | `KPMR` in ASCII, the K in the lowest byte |
//! | | 32-47 | the [version](VERSION) |
//! | | 48-63 | how many words the record has, this one and the next two among them |
//! | 1 | | the record's number, from 1 |
//! | 2 | 0-31 | CRC-32/ISO-HDLC (that of zlib) of words 0, 1, and from 3 on |
//! | 3 | | the task: generation in the lower half, index in the upper |
//! | 4 | 0-15, 16-23 | the fault's kind and vector |
//! | | 24, 25, 26 | whether there are a vector, an error code, an address |
//! | | 32-39 | the place |
//! | 5-7 | | error code, address, instruction pointer |
//! | 8 | 0-15, 16-31 | verdict and refusal, or 0xffff |
//! | | 32, 33, 34, 35 | whether it is settled, was restarted, has registers, was recovered |
//! | 9, 10, 11 | | ticks of `RestartAfter`; the next life, as word 3; where it was recovered to |
//! | 12-15 | | when it stopped, was settled, was reclaimed, was gone, in the platform's ticks |
//! | 16, 17 | | how the walk ended, with 0 for complete, and the address or register that goes with it |
//! | 18 | | how many frames, resources, keepers and bytes of message there are, 16 bits each |
//! | 19 | | the numbers of the first eight keepers that were asked, one in each byte |
//! | 20-37 | | the sixteen registers in the order of their encoding, `rip`, `rflags` |
//!
//! Then come the frames, innermost first, each of six words: address, stack pointer, end, function,
//! the landing pad's address or what goes with an error; and
//!
//! | bits | |
//! | --- | --- |
//! | 0 | whether the address is one that is returned to |
//! | 1, 2, 3 | whether the end and the function are known; whether it is a signal frame |
//! | 8-15, 16-23, 24-31 | origin; landing; kind of landing pad, or of error |
//!
//! Then the resources, each of three words: address, stack pointer of the frame; and
//!
//! | bits | |
//! | --- | --- |
//! | 0-15, 16-23, 24-31 | ledger entry, kind, outcome |
//! | 32-47 | the frame's depth |
//! | 48, 49 | whether the frame is known; whether the resource has escaped |
//!
//! Then the message, eight bytes to a word.
//!
//! # Deaths and resets
//! Word 0 is made 0 before anything else is written, and written last. So a keeper that dies while
//! it writes leaves one slot without a record, and no other is touched. On a reset, some lines of
//! the caches may be lost; whatever mixture of old and new words that leaves is for the checksum to
//! refuse. If the machine does not write its caches back on a reset, the embedder maps the ring
//! write-through.

mod decode;
mod encode;
mod error;
mod record;
mod ring;
#[cfg(test)]
mod tests;

pub use error::DecodeError;
pub use record::Record;
pub use ring::{Records, Ring, Slot};

/// The version of the records' form that this crate writes, and the only one that it reads.
pub const VERSION: u16 = 1;

/// `KPMR`.
const MAGIC: u32 = u32::from_le_bytes(*b"KPMR");

/// The words before the [payload](encode::encode).
const HEADER: usize = 3;
/// The words of a payload without frames and resources.
const FIXED: usize = 35;
/// The words of a frame.
const FRAME: usize = 6;
/// The words of a resource.
const RESOURCE: usize = 3;

/// The most words of a record.
const MOST_WORDS: usize = HEADER
    + FIXED
    + FRAME * crate::unwind::MAX_FRAMES
    + RESOURCE * (drop_registry::Ledger::CAPACITY + 1)
    + crate::report::MESSAGE / 8;

/// What word 0 of a record of so many words is.
const fn header(words: usize) -> u64 {
    MAGIC as u64 | (VERSION as u64) << 32 | (words as u64) << 48
}
