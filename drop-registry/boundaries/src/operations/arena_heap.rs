//! A heap of two arenas, with a real allocator in them, inside a lock.
#![expect(unsafe_code, reason = "allocates by layouts")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Arena, ArenaAllocator, ArenaHeap};
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Claim;

use super::leak;
use super::mutex::{Answer, Lock, Turns, next_answer};
use crate::operation::{Audit, Findings, Operation, World, begin, each_on, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "arena heap allocate, under a lock", world: || in_heap(allocate, &[]) },
    Operation { name: "arena heap free, under a lock", world: || in_heap(free, &[]) },
    Operation { name: "arena heap allocate, among others", world: || in_heap(allocate, &[churn]) },
    Operation { name: "arena heap free, among others", world: || in_heap(free, &[churn]) },
];

const ARENA_BYTES: usize = 32 << 10;

struct TalcArena(Talc<Claim, DefaultBinning>);

// SAFETY: talc hands out parts of the array that it has claimed, and keeps its lists outside of
// blocks that it has handed out. It does not panic.
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

type Heap = ArenaHeap<TalcArena, 2, Hosted, Turns>;

#[repr(align(16))]
struct Memory(UnsafeCell<[u8; ARENA_BYTES]>);

fn arena() -> Arena<TalcArena, Hosted, Turns> {
    let memory = leak(Memory(UnsafeCell::new([0; ARENA_BYTES]))).0.get();
    // SAFETY: the memory is this arena's alone, and lives for ever; all blocks of talc are from
    // what it has claimed.
    unsafe { Arena::new(TalcArena(Talc::new(Claim::array(memory))), memory) }
}

/// A block that is filled with its own number, so that a change by anybody shows.
#[derive(Clone, Copy)]
struct Filled {
    block: *mut u8,
    layout: Layout,
    number: u8,
}

impl Filled {
    fn take(heap: &Heap, number: u8, size: usize) -> Option<Self> {
        let layout = Layout::from_size_align(size, 16).ok()?;
        // SAFETY: no size here is zero.
        let block = unsafe { heap.alloc(layout) };
        if block.is_null() {
            return None;
        }
        // SAFETY: the block is this large, and ours.
        unsafe { block.write_bytes(number, size) };
        Some(Self { block, layout, number })
    }

    fn is_whole(self) -> bool {
        // SAFETY: `take` wrote all bytes of it, and it has not been freed.
        let bytes = unsafe { std::slice::from_raw_parts(self.block, self.layout.size()) };
        bytes.iter().all(|byte| *byte == self.number)
    }

    fn free(self, heap: &Heap) {
        // SAFETY: from `alloc` with this layout; each is freed once.
        unsafe { heap.dealloc(self.block, self.layout) };
    }
}

struct Site {
    heap: Heap,
    lock: Lock<u64>,
    /// Whether somebody has found another's number in a block of its own.
    overwritten: Cell<bool>,
}

struct InHeap {
    site: &'static Site,
    /// What is allocated from before.
    kept: Vec<Filled>,
    operation: fn(&Site),
    others: &'static [fn(&Site)],
}

fn in_heap(operation: fn(&Site), others: &'static [fn(&Site)]) -> Box<dyn World> {
    let heap = Heap::new([arena(), arena()]);
    let mut kept: Vec<_> =
        (1..16).filter_map(|n| Filled::take(&heap, n, 40 * n as usize)).collect();
    // Holes of several sizes between them, so that the allocator's lists are worth tearing.
    for hole in [12, 8, 5, 2] {
        kept.remove(hole).free(&heap);
    }
    let site = leak(Site { heap, lock: Lock::new(0), overwritten: Cell::new(false) });
    Box::new(InHeap { site, kept, operation, others })
}

fn allocate(site: &Site) {
    begin();
    let held = site.lock.lock();
    let block = Filled::take(&site.heap, 100, 300);
    drop(held);
    end();
    let _ = block.map(|block| block.free(&site.heap));
}

fn free(site: &Site) {
    let block = Filled::take(&site.heap, 100, 300);
    begin();
    let held = site.lock.lock();
    let _ = block.map(|block| block.free(&site.heap));
    drop(held);
    end();
}

/// Allocates and frees between the victim's instructions, as far as that lets it.
fn churn(site: &Site) {
    for size in [300, 24, 500, 80].into_iter().cycle().take(20) {
        let block = Filled::take(&site.heap, 99, size);
        yield_now();
        if block.is_none_or(|block| !block.is_whole()) {
            site.overwritten.set(true);
        }
        let _ = block.map(|block| block.free(&site.heap));
        yield_now();
    }
}

impl World for InHeap {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation) = (self.site, self.operation);
        Box::new(move || operation(site))
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn interleaved(&self) -> bool {
        !self.others.is_empty()
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        audit.finish_bystanders();
        let (Site { heap, lock, overwritten }, kept) = (self.site, self.kept.clone());
        audit.require(!overwritten.get(), Findings::STOLEN);
        audit.require(!lock.is_locked(), Findings::LEAKED);
        let answer = audit.run(move || next_answer(lock));
        audit.require(answer.is_some_and(|answer| answer != Answer::Refused), Findings::STUCK);
        // All that is left is handed out, in pieces of some sizes; nothing is handed out twice.
        let whole = audit.run(move || {
            let mut numbers = (100..=u8::MAX).cycle();
            let fill = |size| {
                let take = || Filled::take(heap, numbers.next()?, size);
                std::iter::from_fn(take).collect::<Vec<_>>()
            };
            let taken: Vec<_> = [1000, 300, 70, 16].into_iter().flat_map(fill).collect();
            // As much as one arena has, at the least.
            let enough =
                taken.iter().map(|block| block.layout.size()).sum::<usize>() > ARENA_BYTES / 2;
            let whole = kept.iter().chain(&taken).all(|block| block.is_whole());
            for block in kept.into_iter().chain(taken) {
                block.free(heap);
            }
            (whole, enough)
        });
        audit.require(whole.is_some_and(|(whole, _)| whole), Findings::STOLEN);
        audit.require(whole.is_some_and(|(_, enough)| enough), Findings::LEAKED);
        audit.require(heap.arenas_given_up() <= 1, Findings::LEAKED);
    }
}
