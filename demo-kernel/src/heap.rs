//! The heaps: four arenas of talc, each behind a tracked lock, as the global allocator; and the
//! drop registry's own, which has no lock, for what tasks hold by their ledgers.
#![expect(unsafe_code, reason = "promises that talc is an arena's allocator, and gives it memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use drop_registry::{Arena, ArenaAllocator, ArenaHeap, TrackedHeap};
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Claim;

use crate::tracked::{Kernel, Yield};

const ARENAS: usize = 4;
const ARENA_BYTES: usize = 1 << 20;

#[repr(C, align(16))]
struct Memory(UnsafeCell<[[u8; ARENA_BYTES]; ARENAS]>);

// SAFETY: each arena's allocator is the only user of its part, and is behind a lock.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([[0; ARENA_BYTES]; ARENAS]));

struct TalcArena(Talc<Claim, DefaultBinning>);

// SAFETY: talc hands out parts of the array that it has claimed, and keeps its lists outside of
// blocks that it has handed out. It neither panics nor allocates.
unsafe impl ArenaAllocator for TalcArena {
    unsafe fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the same contract.
        unsafe { self.0.allocate(layout) }
    }

    unsafe fn deallocate(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the same contract.
        unsafe { self.0.deallocate(block.as_ptr(), layout) }
    }
}

const fn arena(number: usize) -> Arena<TalcArena, Kernel, Yield> {
    let memory = MEMORY.0.get().cast::<[u8; ARENA_BYTES]>().wrapping_add(number);
    // SAFETY: nothing else uses this part of the memory, which lives for ever; all blocks of talc
    // are from what it has claimed.
    unsafe { Arena::new(TalcArena(Talc::new(Claim::array(memory))), memory) }
}

/// The global allocator, with its own books: what is with the kernel's tasks, whatever became of
/// the arena that it is from.
struct Counted {
    heap: ArenaHeap<TalcArena, ARENAS, Kernel, Yield>,
    blocks: AtomicUsize,
    bytes: AtomicUsize,
}

#[global_allocator]
static HEAP: Counted = Counted {
    heap: ArenaHeap::new([arena(0), arena(1), arena(2), arena(3)]),
    blocks: AtomicUsize::new(0),
    bytes: AtomicUsize::new(0),
};

// SAFETY: the arenas' heap upholds the contract.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same contract.
        let block = unsafe { self.heap.alloc(layout) };
        if !block.is_null() {
            // Relaxed: counts that order nothing.
            self.blocks.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(layout.size(), Ordering::Relaxed);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the same contract.
        unsafe { self.heap.dealloc(block, layout) };
    }
}

/// What is allocated at one moment, on both heaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Books {
    /// Blocks of the global allocator, allocated and not yet freed.
    pub(crate) blocks: usize,
    /// Their bytes, as asked for, and those of tracked blocks, with their full size.
    pub(crate) bytes: usize,
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {} blocks", self.bytes, self.blocks)
    }
}

/// What is allocated now.
pub(crate) fn books() -> Books {
    let bytes = HEAP.bytes.load(Ordering::Relaxed) + Kernel::heap().bytes_taken();
    Books { blocks: HEAP.blocks.load(Ordering::Relaxed), bytes }
}

/// How many arenas deaths have cost.
pub(crate) fn arenas_given_up() -> usize {
    HEAP.heap.arenas_given_up()
}

/// The bytes of blocks that were freed after their arena was given up.
pub(crate) fn lost_bytes() -> usize {
    HEAP.heap.lost_bytes()
}
