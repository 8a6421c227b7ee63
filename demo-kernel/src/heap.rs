//! The global allocator: talc over a fixed arena, behind a lock.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

use spin::Mutex;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Claim;

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
        // SAFETY: our caller promises that the size is not zero.
        let block = unsafe { self.0.lock().allocate(layout) };
        block.map_or(ptr::null_mut(), ptr::NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: our caller promises that `block` came from `alloc` with this layout.
        unsafe { self.0.lock().deallocate(block, layout) }
    }
}

/// What is allocated at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeapBooks {
    /// Blocks allocated and not yet freed.
    pub(crate) blocks: usize,
    /// Their bytes, as asked for.
    pub(crate) bytes: usize,
}

/// What is allocated now.
pub(crate) fn books() -> HeapBooks {
    let heap = HEAP.0.lock();
    let counters = heap.counters();
    HeapBooks { blocks: counters.allocation_count, bytes: counters.allocated_bytes }
}
