//! A heap whose user can die at any instruction.
//!
//! A heap behind a lock goes down with whoever dies in its critical section: its lists are torn
//! then, and rebuilding or abandoning them loses memory. This one has no critical section. Memory
//! is cut into chunks of 4 KiB, each given to one size of blocks for good; a chunk's blocks are
//! bits in four words, and a block is taken or given back by changing one bit, in a window. So it
//! belongs to the heap or to a ledger at every instruction, and the keeper can free a dead task's
//! block in the fault path.
//!
//! The price is that blocks are powers of two from 16 bytes to 4 KiB, and that a chunk never
//! changes its size of block.
#![expect(unsafe_code, reason = "hands out memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::arch;
use crate::operations::Marked;
use crate::{CurrentLedger, Entry, LedgerFull, Operations, Outcome, OwnLedger};

/// The largest block, and what a chunk is.
const CHUNK_BYTES: usize = 4096;
const SMALLEST_BLOCK: usize = 16;
const WORDS: usize = CHUNK_BYTES / SMALLEST_BLOCK / 64;

/// Why no block was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// No memory is left for blocks of this size.
    OutOfMemory,
    /// No block is that large: the most is [`Heap::LARGEST_BLOCK`] bytes, and so is the alignment.
    TooLarge,
    /// The task's ledger has no room to say that it owns the block.
    LedgerFull,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("the heap has no block left of this size"),
            Self::TooLarge => write!(f, "the heap has no blocks over {CHUNK_BYTES} bytes"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl core::error::Error for AllocError {}

impl From<LedgerFull> for AllocError {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

/// Which blocks of one chunk are taken.
#[derive(Debug)]
struct Chunk {
    /// The power of two that its blocks have; 0 for a chunk that has no size yet.
    block_shift: AtomicU8,
    taken: [AtomicU64; WORDS],
}

impl Chunk {
    const fn new() -> Self {
        Self { block_shift: AtomicU8::new(0), taken: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// Whether the chunk has, or now takes, blocks of this size.
    fn serves(&self, shift: u8) -> bool {
        // Relaxed: the size is all that there is to know of a chunk, and never changes again.
        match self.block_shift.compare_exchange(0, shift, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(there) => there == shift,
        }
    }

    /// The size of its blocks; `None` if it has none yet, or somebody has written over it.
    fn block_bytes(&self) -> Option<usize> {
        let bytes = 1usize.checked_shl(self.block_shift.load(Ordering::Relaxed).into())?;
        (SMALLEST_BLOCK..=CHUNK_BYTES).contains(&bytes).then_some(bytes)
    }
}

/// The memory of a heap of `CHUNKS` times 4 KiB: for a `static`.
#[repr(C, align(4096))]
pub struct HeapMemory<const CHUNKS: usize> {
    bytes: UnsafeCell<[[u8; CHUNK_BYTES]; CHUNKS]>,
    chunks: [Chunk; CHUNKS],
}

// SAFETY: the bytes are handed out block by block, each to one owner; the rest is atomic.
unsafe impl<const CHUNKS: usize> Sync for HeapMemory<CHUNKS> {}

impl<const CHUNKS: usize> HeapMemory<CHUNKS> {
    /// Memory of which nothing is taken.
    #[expect(clippy::new_without_default, reason = "it is for statics, and large")]
    pub const fn new() -> Self {
        Self {
            bytes: UnsafeCell::new([[0; CHUNK_BYTES]; CHUNKS]),
            chunks: [const { Chunk::new() }; CHUNKS],
        }
    }
}

impl<const CHUNKS: usize> fmt::Debug for HeapMemory<CHUNKS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapMemory").field("chunks", &CHUNKS).finish_non_exhaustive()
    }
}

/// A heap without a lock.
///
/// As a [`GlobalAlloc`] it serves untracked memory, and returns null beyond
/// [`Heap::LARGEST_BLOCK`]. [`TrackedBox`](crate::TrackedBox) and [`Shared`](crate::Shared) take
/// their blocks from it together with the entry that says whose they are.
#[derive(Debug)]
pub struct Heap {
    base: *mut u8,
    chunks: &'static [Chunk],
    quarantined: AtomicUsize,
}

// SAFETY: `base` is where blocks are handed out from, each to one owner; the rest is atomic.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

/// Where a block is: the word and the bit that say whether it is taken.
struct Place<'a> {
    word: &'a AtomicU64,
    bit: u64,
    block: NonNull<u8>,
    bytes: usize,
}

impl Heap {
    /// The most bytes of a block.
    pub const LARGEST_BLOCK: usize = CHUNK_BYTES;

    /// A heap of this memory.
    pub const fn new<const CHUNKS: usize>(memory: &'static HeapMemory<CHUNKS>) -> Self {
        let quarantined = AtomicUsize::new(0);
        Self { base: memory.bytes.get().cast(), chunks: &memory.chunks, quarantined }
    }

    /// Takes a block, and records it, under this mark, in the same window as the frame's at stack
    /// pointer `frame`.
    ///
    /// # Errors
    /// If there is none, or the ledger is full; nothing is taken or recorded then.
    ///
    /// # Safety
    /// To hold the block is what `operations` undo.
    pub(crate) unsafe fn claim<'l, L: CurrentLedger>(
        &self,
        layout: Layout,
        operations: &'static Operations,
        mark: Marked,
        ledger: OwnLedger<'l, L>,
        frame: u64,
    ) -> Result<(NonNull<u8>, &'l Entry), AllocError> {
        let listed = ledger.room()?;
        let block = self.take(layout, |place, taken| {
            let word = place.word;
            let resource = mark.mark(place.block.as_ptr());
            let desired = taken | place.bit;
            // SAFETY: setting the bit is to own the block; and there is room for that.
            unsafe { arch::claim(word, taken, desired, resource, operations, listed, frame) }
        })?;
        // SAFETY: the window has recorded it there, and is the only one that has succeeded.
        unsafe {
            ledger.pass_over(listed);
            Ok((block, listed.entry()))
        }
    }

    /// Gives back a block, and erases its entry in the same window. Takes no lock, and may be
    /// done from outside for a dead task.
    ///
    /// # Safety
    /// `entry` lists a block of this heap, which nobody uses any more; nobody else changes the
    /// entry meanwhile.
    pub(crate) unsafe fn release(&self, entry: &Entry) {
        let Some(place) = self.place_of(Self::block_of(entry)) else { return };
        loop {
            let taken = place.word.load(Ordering::Relaxed);
            // SAFETY: clearing the bit gives the block up, which `entry` lists. The exchange is
            // a full barrier: what the owner wrote comes before the next owner's Acquire.
            if unsafe { arch::exchange(place.word, taken, taken & !place.bit, entry) } {
                return;
            }
        }
    }

    /// Gives back what a dead task's `entry` lists, if that is a block of this heap at all. The
    /// entry is gone in either case.
    ///
    /// # Safety
    /// As [`Heap::release`], if it is.
    pub(crate) unsafe fn release_for_dead(&self, entry: &Entry, layout: Layout) -> Outcome {
        if !self.has_given_out(Self::block_of(entry), layout) {
            entry.erase();
            return Outcome::Disowned;
        }
        // SAFETY: this function's contract.
        unsafe { self.release(entry) };
        Outcome::Reclaimed
    }

    /// Whether `block` is one of this heap's, large enough for `layout`, and taken.
    pub(crate) fn has_given_out(&self, block: *mut u8, layout: Layout) -> bool {
        self.place_of(block).is_some_and(|place| {
            place.bytes >= layout.size().max(layout.align())
                && place.word.load(Ordering::Relaxed) & place.bit != 0
        })
    }

    /// The block that `entry` lists.
    pub(crate) fn block_of(entry: &Entry) -> *mut u8 {
        Marked::plain(entry.resource()).cast()
    }

    /// How many bytes nobody will ever get back: those of values that a death may have torn, and that
    /// could not be dropped. A block counts again if the keeper that quarantines it dies over it.
    pub fn bytes_quarantined(&self) -> usize {
        self.quarantined.load(Ordering::Relaxed)
    }

    pub(crate) fn note_quarantined(&self, layout: Layout) {
        self.quarantined.fetch_add(layout.size(), Ordering::Relaxed);
    }

    /// How many bytes are taken: each block with its full size. For books, and stale at once.
    pub fn bytes_taken(&self) -> usize {
        let bytes_of = |chunk: &Chunk| {
            let blocks: u32 =
                chunk.taken.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
            blocks as usize * chunk.block_bytes().unwrap_or(0)
        };
        self.chunks.iter().map(bytes_of).sum()
    }

    /// Finds a free block and lets `set` take it: from the word's value to that and the bit.
    fn take(
        &self,
        layout: Layout,
        mut set: impl FnMut(&Place<'_>, u64) -> bool,
    ) -> Result<NonNull<u8>, AllocError> {
        let size = layout.size().max(layout.align()).max(SMALLEST_BLOCK);
        if size > CHUNK_BYTES {
            return Err(AllocError::TooLarge);
        }
        let shift = size.next_power_of_two().trailing_zeros() as u8;
        let blocks = CHUNK_BYTES >> shift;
        for (index, chunk) in self.chunks.iter().enumerate() {
            if !chunk.serves(shift) {
                continue;
            }
            for (number, word) in chunk.taken.iter().enumerate().take(blocks.div_ceil(64)) {
                let in_word = (blocks - number * 64).min(64);
                let usable = u64::MAX >> (64 - in_word);
                loop {
                    let taken = word.load(Ordering::Relaxed);
                    let free = !taken & usable;
                    if free == 0 {
                        break;
                    }
                    let bit = free & free.wrapping_neg();
                    let offset = (number * 64 + bit.trailing_zeros() as usize) << shift;
                    // SAFETY: the block lies in the chunk, and that in the heap's memory.
                    let block = unsafe {
                        NonNull::new_unchecked(self.base.add(index * CHUNK_BYTES + offset))
                    };
                    let place = Place { word, bit, block, bytes: 1 << shift };
                    if set(&place, taken) || planted!(TakenUnseen) {
                        return Ok(block);
                    }
                }
            }
        }
        Err(AllocError::OutOfMemory)
    }

    /// Where `block` is; `None` if it is not this heap's, or does not begin a block.
    fn place_of(&self, block: *mut u8) -> Option<Place<'_>> {
        let offset = block.addr().checked_sub(self.base.addr())?;
        let chunk = self.chunks.get(offset / CHUNK_BYTES)?;
        let bytes = chunk.block_bytes()?;
        let within = offset % CHUNK_BYTES;
        if !within.is_multiple_of(bytes) {
            return None;
        }
        let number = within / bytes;
        let block = NonNull::new(block)?;
        Some(Place { word: &chunk.taken[number / 64], bit: 1 << (number % 64), block, bytes })
    }
}

// SAFETY: a block is handed out to one owner, for its bit is set by one exchange from clear; it is
// at least as large as the layout, and aligned to its size, which is no less than the alignment.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Acquire pairs with the Release of whoever gave the block back.
        let set = |place: &Place<'_>, taken| {
            let new = taken | place.bit;
            place.word.compare_exchange(taken, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        self.take(layout, set).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        if let Some(place) = self.place_of(block) {
            place.word.fetch_and(!place.bit, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::testing::{NOTHING, TestTask, as_task_of};
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_do_not_overlap_and_are_aligned() {
        static MEMORY: HeapMemory<16> = HeapMemory::new();
        let heap = Heap::new(&MEMORY);
        let mut bytes = BTreeSet::new();
        for layout in [(1, 1), (16, 16), (24, 8), (100, 64), (500, 512), (4096, 4096), (7, 2048)]
            .map(|(size, align)| layout(size, align))
        {
            for _ in 0..2 {
                // SAFETY: no layout is empty.
                let block = unsafe { heap.alloc(layout) };
                assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
                for byte in block.addr()..block.addr() + layout.size() {
                    assert!(bytes.insert(byte), "{layout:?} overlaps");
                }
            }
        }
    }

    #[test]
    fn what_is_given_back_is_given_out_again() {
        static MEMORY: HeapMemory<1> = HeapMemory::new();
        let heap = Heap::new(&MEMORY);
        let layout = layout(1000, 8);
        // SAFETY: the layout is not empty, and each block is given back once.
        unsafe {
            let blocks: Vec<_> = (0..4).map(|_| heap.alloc(layout)).collect();
            assert!(blocks.iter().all(|block| !block.is_null()));
            assert!(heap.alloc(layout).is_null());
            assert_eq!(heap.bytes_taken(), 4096);
            heap.dealloc(blocks[2], layout);
            assert_eq!(heap.bytes_taken(), 3072);
            assert_eq!(heap.alloc(layout), blocks[2]);
        }
    }

    #[test]
    fn a_size_of_block_that_there_is_not_is_that_of_no_block() {
        static MEMORY: HeapMemory<1> = HeapMemory::new();
        let heap = Heap::new(&MEMORY);
        // SAFETY: the layout is not empty.
        let block = unsafe { heap.alloc(layout(16, 8)) };
        for shift in [1, 13, 63, 64, 255] {
            MEMORY.chunks[0].block_shift.store(shift, Ordering::Relaxed);
            assert_eq!(heap.bytes_taken(), 0, "{shift}");
            assert!(!heap.has_given_out(block, layout(1, 1)), "{shift}");
        }
    }

    /// A block of so many bytes, for the task of this ledger.
    fn claim<'l>(
        heap: &Heap,
        size: usize,
        ledger: &'l Ledger,
    ) -> Result<(NonNull<u8>, &'l Entry), AllocError> {
        as_task_of(ledger, || {
            let own = OwnLedger::<TestTask>::current();
            // SAFETY: the ledger is never settled.
            unsafe { heap.claim(layout(size, 8), &NOTHING, Marked::BOX, own, 0) }
        })
    }

    #[test]
    fn a_claimed_block_is_in_the_ledger_until_it_is_released() {
        static MEMORY: HeapMemory<1> = HeapMemory::new();
        let heap = Heap::new(&MEMORY);
        let ledger = Ledger::new();
        let (block, entry) = claim(&heap, 32, &ledger).unwrap();
        assert_eq!(Heap::block_of(entry), block.as_ptr());
        assert_eq!((ledger.len(), heap.bytes_taken()), (1, 32));
        // SAFETY: nobody uses the block.
        unsafe { heap.release(entry) };
        assert_eq!((ledger.len(), heap.bytes_taken()), (0, 0));
    }

    #[test]
    fn what_cannot_be_had_is_an_error_and_takes_nothing() {
        static MEMORY: HeapMemory<1> = HeapMemory::new();
        let heap = Heap::new(&MEMORY);
        let ledger = Ledger::new();
        assert_eq!(claim(&heap, 4097, &ledger).unwrap_err(), AllocError::TooLarge);
        for _ in 0..Ledger::CAPACITY {
            claim(&heap, 16, &ledger).unwrap();
        }
        assert_eq!(claim(&heap, 16, &ledger).unwrap_err(), AllocError::LedgerFull);
        assert_eq!(heap.bytes_taken(), Ledger::CAPACITY * 16);
        let other = Ledger::new();
        assert_eq!(claim(&heap, 32, &other).unwrap_err(), AllocError::OutOfMemory);
    }
}
