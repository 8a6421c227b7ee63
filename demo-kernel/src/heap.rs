//! The heaps: talc over a fixed arena behind a tracked lock, as the global allocator; and the drop
//! registry's own, which has no lock, for what tasks hold by their ledgers.
//!
//! A task that dies inside talc leaves its lists torn. The arena is given up then: its lock is not
//! recoverable, and every later allocation fails. Blocks handed out before stay good.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr;

use drop_registry::TrackedHeap;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Claim;

use crate::tracked::{Kernel, Mutex};

const ARENA_SIZE: usize = 4 << 20;

#[repr(C, align(16))]
struct Arena(UnsafeCell<[u8; ARENA_SIZE]>);

// SAFETY: the allocator is its only user, and the allocator is behind a lock.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_SIZE]));

struct Heap(Mutex<Talc<Claim, DefaultBinning>>);

#[global_allocator]
static HEAP: Heap =
    // SAFETY: nothing else uses the arena, and it lives for ever.
    Heap(Mutex::new(Talc::new(unsafe { Claim::array(ARENA.0.get()) })));

// SAFETY: talc upholds the contract, one caller at a time under the lock; neither panics.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Ok(mut talc) = self.0.lock() else { return ptr::null_mut() };
        // SAFETY: our caller promises that the size is not zero.
        let block = unsafe { talc.allocate(layout) };
        block.map_or(ptr::null_mut(), ptr::NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Ok(mut talc) = self.0.lock() else {
            log::warn!("{} bytes are lost to the heap: its lock was refused", layout.size());
            return;
        };
        // SAFETY: our caller promises that `block` came from `alloc` with this layout.
        unsafe { talc.deallocate(block, layout) }
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

/// What is allocated now; all zero for the global allocator once that is given up.
pub(crate) fn books() -> Books {
    let tracked = Kernel::heap().bytes_taken();
    let Ok(talc) = HEAP.0.lock() else { return Books { blocks: 0, bytes: tracked } };
    let counters = talc.counters();
    Books { blocks: counters.allocation_count, bytes: counters.allocated_bytes + tracked }
}
