//! A heap of two arenas, with a real allocator in them, inside a lock.
#![expect(unsafe_code, reason = "allocates by layouts")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Arena, ArenaAllocator, ArenaHeap};
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Claim;

use super::exclusive::{Answer, next_answer};
use super::leak;
use super::mutex::{Lock, Turns};
use crate::operation::{Audit, Findings, Operation, World, begin, each_on, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "arena heap allocate, under a lock", world: || in_heap(allocate, &[]) },
    Operation { name: "arena heap free, under a lock", world: || in_heap(free, &[]) },
    Operation { name: "arena heap allocate, among others", world: || in_heap(allocate, &[churn]) },
    Operation { name: "arena heap free, among others", world: || in_heap(free, &[churn]) },
];

const ARENA_BYTES: usize = 32 << 10;

struct TalcArena {
    talc: Talc<Claim, DefaultBinning>,
    /// How many tasks are inside of an allocator of the heap, or have died there.
    inside: &'static AtomicUsize,
}

impl TalcArena {
    fn inside<R>(&mut self, work: impl FnOnce(&mut Talc<Claim, DefaultBinning>) -> R) -> R {
        self.inside.fetch_add(1, Relaxed);
        let result = work(&mut self.talc);
        self.inside.fetch_sub(1, Relaxed);
        result
    }
}

// SAFETY: talc hands out parts of the array that it has claimed, and keeps its lists outside of
// blocks that it has handed out. It does not panic.
unsafe impl ArenaAllocator for TalcArena {
    unsafe fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the same contract.
        self.inside(|talc| unsafe { talc.allocate(layout) })
    }

    unsafe fn deallocate(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the same contract.
        self.inside(|talc| unsafe { talc.deallocate(block.as_ptr(), layout) });
    }
}

type Heap = ArenaHeap<TalcArena, 2, Hosted, Turns>;

#[repr(align(16))]
struct Memory(UnsafeCell<[u8; ARENA_BYTES]>);

fn arena(inside: &'static AtomicUsize) -> Arena<TalcArena, Hosted, Turns> {
    let memory = leak(Memory(UnsafeCell::new([0; ARENA_BYTES]))).0.get();
    // SAFETY: the memory is this arena's alone, and lives for ever; all blocks of talc are from
    // what it has claimed.
    unsafe {
        let talc = Talc::new(Claim::array(memory));
        Arena::new(TalcArena { talc, inside }, memory)
    }
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
    inside: &'static AtomicUsize,
    /// Whether the victim calls the heap.
    calls: Cell<bool>,
    /// Whether somebody has found another's number in a block of its own.
    overwritten: Cell<bool>,
}

impl Site {
    /// What the victim does with the heap.
    fn call<R>(&self, work: impl FnOnce(&Heap) -> R) -> R {
        self.calls.set(true);
        let result = work(&self.heap);
        self.calls.set(false);
        result
    }
}

struct InHeap {
    site: &'static Site,
    /// What is allocated from before.
    kept: Vec<Filled>,
    operation: fn(&Site),
    others: &'static [fn(&Site)],
    locked_at_death: bool,
    /// How many arenas the death costs, at least and at most.
    given_up: (usize, usize),
}

fn in_heap(operation: fn(&Site), others: &'static [fn(&Site)]) -> Box<dyn World> {
    let inside = leak(AtomicUsize::new(0));
    let heap = Heap::new([arena(inside), arena(inside)]);
    let mut kept: Vec<_> =
        (1..16).filter_map(|n| Filled::take(&heap, n, 40 * n as usize)).collect();
    // Holes of several sizes between them, so that the allocator's lists are worth tearing.
    for hole in [12, 8, 5, 2] {
        kept.remove(hole).free(&heap);
    }
    let (lock, calls, overwritten) = (Lock::new(0), Cell::new(false), Cell::new(false));
    let site = leak(Site { heap, lock, inside, calls, overwritten });
    Box::new(InHeap { site, kept, operation, others, locked_at_death: false, given_up: (0, 0) })
}

fn allocate(site: &Site) {
    begin();
    let held = site.lock.lock();
    let block = site.call(|heap| Filled::take(heap, 100, 300));
    drop(held);
    end();
    let _ = block.map(|block| block.free(&site.heap));
}

fn free(site: &Site) {
    let block = Filled::take(&site.heap, 100, 300);
    begin();
    let held = site.lock.lock();
    site.call(|heap| block.map(|block| block.free(heap)));
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

    /// None of the others is in an allocator when its turn is over.
    fn at_death(&mut self) {
        self.locked_at_death = self.site.lock.is_locked();
        self.given_up = (self.site.inside.load(Relaxed), usize::from(self.site.calls.get()));
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        audit.finish_bystanders();
        let (Site { heap, lock, overwritten, .. }, kept) = (self.site, self.kept.clone());
        audit.require(!overwritten.get(), Findings::STOLEN);
        audit.require(!lock.is_locked(), Findings::LEAKED);
        let answer = audit.run(move || next_answer(lock));
        let expected = if self.locked_at_death { Answer::OwnerDied } else { Answer::Held };
        audit.require(answer == Some(expected), Findings::UNTOLD);
        // All that is left is handed out, in pieces of some sizes; nothing is handed out twice.
        let taken = audit.run(move || {
            let mut numbers = (100..=u8::MAX).cycle();
            let fill = |size| {
                let take = || Filled::take(heap, numbers.next()?, size);
                std::iter::from_fn(take).collect::<Vec<_>>()
            };
            let taken: Vec<_> = [1000, 300, 70, 16].into_iter().flat_map(fill).collect();
            let bytes: usize = taken.iter().map(|block| block.layout.size()).sum();
            let whole = kept.iter().chain(&taken).all(|block| block.is_whole());
            for block in kept.into_iter().chain(taken) {
                block.free(heap);
            }
            (whole, bytes)
        });
        let Some((whole, bytes)) = taken else { return };
        audit.require(whole, Findings::STOLEN);
        // A death inside of an arena is found by whoever comes to it next.
        let given_up = heap.arenas_given_up();
        let (least, most) = self.given_up;
        audit.require(given_up >= least, Findings::TORN);
        audit.require(given_up <= most, Findings::LEAKED);
        // What was allocated from before takes less than half an arena.
        audit.require(bytes > (2 - given_up) * ARENA_BYTES - ARENA_BYTES / 2, Findings::LEAKED);
    }
}
