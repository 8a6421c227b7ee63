//! A heap in several arenas: a death inside the allocator costs one of them, not the heap.
//!
//! An allocator's lists are torn by a death in its critical section. Putting them right would take
//! a journal in every allocator there is; so the arena is given up instead, and the others serve
//! on. What it handed out before stays good, because an allocator does not touch blocks that it
//! has handed out.
//!
//! What is lost: the arena's free memory; the block that the dead task was about to get or had
//! just given back; and the blocks of that arena that are freed later
//! ([`lost_bytes`](ArenaHeap::lost_bytes) counts those). [`Heap`](crate::Heap) loses nothing, and
//! has blocks of up to 4 KiB only.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::relax::Spin;

use crate::no_unwind::without_unwinding;
use crate::owner_word::State;
use crate::{CurrentLedger, LockError, Mutex, MutexGuard, OwnLedger, WaitStrategy};

/// An allocator over a piece of memory of its own.
///
/// # Safety
/// - [`allocate`](Self::allocate) hands out blocks that fit their layouts and do not overlap, all
///   of them from the memory that [`Arena::new`] is told of.
/// - No function touches a block between handing it out and getting it back, even if the task that
///   executes one of them is stopped for ever in the middle of it.
/// - No function panics, or allocates from the heap that it is an arena of.
pub unsafe trait ArenaAllocator: Send {
    /// A block for this layout, or `None` if there is none.
    ///
    /// # Safety
    /// The layout's size is not zero.
    unsafe fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes a block back.
    ///
    /// # Safety
    /// This allocator handed `block` out for this layout, and it is nobody's any more.
    unsafe fn deallocate(&mut self, block: NonNull<u8>, layout: Layout);
}

/// One arena of an [`ArenaHeap`]: an allocator behind a tracked lock, and where its memory is.
pub struct Arena<A, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    allocator: Mutex<A, L, R>,
    memory: *mut [u8],
}

// SAFETY: `memory` is compared with, never followed; the allocator is behind a lock.
unsafe impl<A: ArenaAllocator, L: CurrentLedger, R: WaitStrategy<L>> Sync for Arena<A, L, R> {}
// SAFETY: as above.
unsafe impl<A: ArenaAllocator, L: CurrentLedger, R: WaitStrategy<L>> Send for Arena<A, L, R> {}

impl<A: ArenaAllocator, L: CurrentLedger, R: WaitStrategy<L>> Arena<A, L, R> {
    /// An arena whose allocator hands out parts of `memory`, and of nothing else.
    ///
    /// # Safety
    /// - `memory` may be read and written for as long as the arena or a block of it is used, and is
    ///   the allocator's alone: nothing else uses it, no other arena among it.
    /// - All blocks of the allocator lie in it.
    pub const unsafe fn new(allocator: A, memory: *mut [u8]) -> Self {
        Self { allocator: Mutex::new(allocator), memory }
    }

    fn owns(&self, block: NonNull<u8>) -> bool {
        let offset = block.addr().get().wrapping_sub(self.memory.addr());
        offset < self.memory.len()
    }

    /// The allocator, unless it is given up, or its lock is refused to this task.
    fn enter(&self) -> Option<MutexGuard<'_, A, L, R>> {
        if OwnLedger::<L>::current().is_forbidden() {
            return None;
        }
        match without_unwinding(|| self.allocator.lock()) {
            Ok(allocator) => Some(allocator),
            Err(LockError::OwnerDied(died)) if planted!(TornArenaUsed) => {
                // SAFETY: none: this is the bug.
                Some(unsafe { died.assume_consistent() })
            }
            // Dropping an `OwnerDied` makes the lock not recoverable, for good.
            Err(_) => None,
        }
    }

    fn is_given_up(&self) -> bool {
        matches!(self.allocator.state(), State::OwnerDied | State::NotRecoverable)
    }
}

impl<A, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for Arena<A, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// A heap of several arenas, as a [`GlobalAlloc`].
///
/// An allocation takes the first arena that serves it. It returns null if none does, and also if
/// the task's ledger is full, because a lock that no ledger lists would be lost with its holder; so
/// also in a trap handler, with a [`Ledger::forbidden`](crate::Ledger::forbidden), where a panic
/// would have to unwind out of an allocator.
///
/// Its own blocks are in no ledger: what a dead task had allocated is lost, as with any allocator.
/// [`TrackedBox`](crate::TrackedBox) is what the keeper frees.
#[derive(Debug)]
pub struct ArenaHeap<A, const ARENAS: usize, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    arenas: [Arena<A, L, R>; ARENAS],
    lost_bytes: AtomicUsize,
}

impl<A: ArenaAllocator, const ARENAS: usize, L: CurrentLedger, R: WaitStrategy<L>>
    ArenaHeap<A, ARENAS, L, R>
{
    /// A heap of these arenas.
    pub const fn new(arenas: [Arena<A, L, R>; ARENAS]) -> Self {
        Self { arenas, lost_bytes: AtomicUsize::new(0) }
    }

    /// How many arenas a death has cost. Stale at once.
    pub fn arenas_given_up(&self) -> usize {
        self.arenas.iter().filter(|arena| arena.is_given_up()).count()
    }

    /// The bytes of blocks that were freed and could not be taken back: their arena was given up,
    /// or the ledger of the task that freed them was full, or forbidden.
    pub fn lost_bytes(&self) -> usize {
        self.lost_bytes.load(Ordering::Relaxed)
    }
}

// SAFETY: the arenas' allocators uphold the contract, each for one caller at a time; one that a
// death may have torn is not used again. Nothing unwinds: allocators do not; locking panics with a
// forbidden ledger, which is not asked, or in the strategy's code, which ends the program;
// unlocking only if the entry is not there, which the lock has just written.
unsafe impl<A: ArenaAllocator, const ARENAS: usize, L: CurrentLedger, R: WaitStrategy<L>>
    GlobalAlloc for ArenaHeap<A, ARENAS, L, R>
{
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let serve = |arena: &Arena<A, L, R>| {
            // SAFETY: our caller promises that the size is not zero.
            arena.enter().and_then(|mut allocator| unsafe { allocator.allocate(layout) })
        };
        self.arenas.iter().find_map(serve).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let take_back = |block| {
            let arena = self.arenas.iter().find(|arena| arena.owns(block))?;
            // SAFETY: our caller promises that `alloc` made `block` for this layout, so the arena
            // in which it lies did.
            arena.enter().map(|mut allocator| unsafe { allocator.deallocate(block, layout) })
        };
        if NonNull::new(block).and_then(take_back).is_none() {
            // Relaxed: a count for books.
            self.lost_bytes.fetch_add(layout.size(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger, on_ledger};
    use crate::{Ledger, Obligation, Undo};
    use std::boxed::Box;
    use std::vec::Vec;

    const ARENA_BYTES: usize = 256;

    /// Hands out one block after another, and counts what comes back.
    struct Bump {
        next: *mut u8,
        end: *mut u8,
        returned: usize,
    }

    // SAFETY: the memory is its own.
    unsafe impl Send for Bump {}

    // SAFETY: blocks lie one after another in the memory, and are never touched.
    unsafe impl ArenaAllocator for Bump {
        unsafe fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
            let block = self.next.wrapping_add(self.next.align_offset(layout.align()));
            let next = block.wrapping_add(layout.size());
            (next <= self.end).then(|| self.next = next)?;
            NonNull::new(block)
        }

        unsafe fn deallocate(&mut self, _: NonNull<u8>, layout: Layout) {
            self.returned += layout.size();
        }
    }

    type TestHeap = ArenaHeap<Bump, 2, TestTask>;

    fn heap() -> &'static TestHeap {
        let arena = || {
            let memory: *mut [u8] = Box::leak(Box::new([0u8; ARENA_BYTES]));
            let next = memory.cast::<u8>();
            let bump = Bump { next, end: next.wrapping_add(ARENA_BYTES), returned: 0 };
            // SAFETY: the memory is the allocator's alone, for ever, and its blocks lie there.
            unsafe { Arena::new(bump, memory) }
        };
        Box::leak(Box::new(ArenaHeap::new([arena(), arena()])))
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    fn returned(heap: &TestHeap) -> Vec<usize> {
        heap.arenas.iter().filter_map(|arena| Some(arena.enter()?.returned)).collect()
    }

    fn die_in(arena: &Arena<Bump, TestTask>) {
        kill(|| core::mem::forget(arena.enter()));
    }

    #[test]
    fn a_full_arena_is_followed_by_the_next_and_blocks_go_back_to_their_own() {
        on_fresh_ledger(|ledger| {
            let heap = heap();
            // SAFETY: no layout is empty, and each block is given back once, with its own.
            unsafe {
                let first = heap.alloc(layout(200));
                let second = heap.alloc(layout(100));
                assert!(!first.is_null() && !second.is_null());
                assert!(heap.alloc(layout(200)).is_null());
                heap.dealloc(second, layout(100));
                assert_eq!(returned(heap), [0, 100]);
                heap.dealloc(first, layout(200));
            }
            assert_eq!(returned(heap), [200, 100]);
            assert_eq!((heap.arenas_given_up(), heap.lost_bytes()), (0, 0));
            assert!(ledger.is_empty());
        });
    }

    #[test]
    fn a_death_inside_one_arena_leaves_the_others() {
        let heap = heap();
        on_fresh_ledger(|_| {
            // SAFETY: no layout is empty, and the block is given back once.
            unsafe {
                let before = heap.alloc(layout(64));
                die_in(&heap.arenas[0]);
                assert_eq!(heap.arenas_given_up(), 1);
                let after = heap.alloc(layout(64));
                assert!(heap.arenas[1].owns(NonNull::new(after).unwrap()));
                heap.dealloc(before, layout(64));
                assert_eq!(heap.lost_bytes(), 64);
                heap.dealloc(after, layout(64));
                assert_eq!((heap.lost_bytes(), returned(heap)), (64, Vec::from([64])));
                die_in(&heap.arenas[1]);
                assert!(heap.alloc(layout(8)).is_null());
                assert_eq!(heap.arenas_given_up(), 2);
            }
        });
    }

    #[test]
    fn in_a_trap_handler_there_is_no_memory_and_nothing_unwinds() {
        let heap = heap();
        let mut block = ptr::null_mut();
        on_fresh_ledger(|_| {
            // SAFETY: the layout is not empty.
            block = unsafe { heap.alloc(layout(32)) };
        });
        on_ledger(Box::leak(Box::new(Ledger::forbidden())), |_| {
            // SAFETY: the layout is not empty, and the block is given back once.
            unsafe {
                assert!(heap.alloc(layout(32)).is_null());
                heap.dealloc(block, layout(32));
            }
        });
        assert_eq!((heap.lost_bytes(), heap.arenas_given_up()), (32, 0));
    }

    struct Nothing;

    // SAFETY: it does nothing.
    unsafe impl Undo for Nothing {
        fn undo(&self) {}
    }

    #[test]
    fn a_task_whose_ledger_is_full_gets_nothing_and_costs_no_arena() {
        on_fresh_ledger(|_| {
            let heap = heap();
            // SAFETY: no layout is empty, and the block is given back once.
            unsafe {
                let block = heap.alloc(layout(32));
                static HELD: [Nothing; Ledger::CAPACITY] = [const { Nothing }; Ledger::CAPACITY];
                let held = HELD.each_ref().map(|it| Obligation::<_, TestTask>::new(it).unwrap());
                assert!(heap.alloc(layout(32)).is_null());
                heap.dealloc(block, layout(32));
                assert_eq!((heap.lost_bytes(), heap.arenas_given_up()), (32, 0));
                drop(held);
                assert!(!heap.alloc(layout(32)).is_null());
            }
        });
    }
}
