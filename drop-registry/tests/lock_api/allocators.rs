//! An allocator, talc, behind our lock and behind a tracked one.

use std::alloc::{GlobalAlloc as _, Layout};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

use drop_registry::hosted::{Hosted, Stop, yield_now};
use drop_registry::lock_api::{RawMutex, TrackedRawMutex};
use drop_registry::{ArenaAllocator, ArenaHeap};
use talc::DefaultBinning;
use talc::source::Claim;
use talc::sync::TalcLock;

use crate::mutex::Panics;
use crate::{Spin, die_with, ends_the_program, machine, run};

/// Memory for an allocator to claim.
#[repr(align(16))]
struct Arena(UnsafeCell<[u8; 1 << 16]>);
#[expect(unsafe_code, reason = "lends memory to an allocator")]
// SAFETY: the allocator alone uses it.
unsafe impl Sync for Arena {}

/// Allocates, kills a task that holds the allocator's lock, and looks how it is refused.
#[expect(unsafe_code, reason = "calls an allocator")]
fn allocator<R: lock_api::RawMutex + Send + Sync + 'static>(arena: &'static Arena) {
    // SAFETY: nothing else uses the arena.
    let claim = unsafe { Claim::array(arena.0.get()) };
    let talc: &'static TalcLock<R, Claim, DefaultBinning> =
        Box::leak(Box::new(TalcLock::new(claim)));
    let mut machine = machine();
    let allocated = run(&mut machine, || {
        let layout = Layout::new::<[u64; 4]>();
        // SAFETY: the block is written to within its layout, and given back once.
        unsafe {
            let block = talc.alloc(layout);
            assert!(!block.is_null());
            block.write_bytes(7, layout.size());
            talc.dealloc(block, layout);
        }
    });
    assert_eq!(allocated, Stop::Finished);
    let settled = die_with(&mut machine, || talc.lock());
    assert_eq!(settled, 1);
    // The allocator's lists may be torn: it is closed, and says so.
    assert_eq!(run(&mut machine, || assert!(talc.try_lock().is_none())), Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(talc.lock())));
}

#[test]
fn an_allocator_takes_our_lock_and_is_closed_by_a_death_inside_it() {
    static ARENA: Arena = Arena(UnsafeCell::new([0; 1 << 16]));
    allocator::<RawMutex<Hosted>>(&ARENA);
}

#[test]
fn an_allocator_takes_a_tracked_spin_lock_and_is_closed_by_a_death_inside_it() {
    static ARENA: Arena = Arena(UnsafeCell::new([0; 1 << 16]));
    allocator::<TrackedRawMutex<Spin, Hosted>>(&ARENA);
}

/// An arena whose allocator is never done.
struct Slow;

#[expect(unsafe_code, reason = "makes an arena")]
// SAFETY: it hands out nothing.
unsafe impl ArenaAllocator for Slow {
    unsafe fn allocate(&mut self, _: Layout) -> Option<NonNull<u8>> {
        yield_now();
        None
    }

    unsafe fn deallocate(&mut self, _: NonNull<u8>, _: Layout) {}
}

#[expect(unsafe_code, reason = "makes a heap, and calls it")]
#[test]
fn nothing_unwinds_out_of_a_heap_whose_arena_is_waited_for() {
    let memory: *mut [u8] = Box::leak(Box::new([0; 16]));
    // SAFETY: the memory is never used.
    let arena = unsafe { drop_registry::Arena::new(Slow, memory) };
    let heap: &'static ArenaHeap<_, 1, Hosted, Panics> =
        Box::leak(Box::new(ArenaHeap::new([arena])));
    let mut machine = machine();
    // SAFETY: the layout is not empty.
    let allocate = move || _ = unsafe { heap.alloc(Layout::new::<u64>()) };
    let slow = machine.spawn(allocate);
    assert_eq!(machine.run(slow, None), Stop::Yielded);
    assert!(ends_the_program(&mut machine, allocate));
}
