//! A walk allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use keeper::unwind::{EhFrameRules, Walk, WalkEnd};

use crate::task::StoppedTask;
use crate::{image, live};

/// The system's allocator, and a count of each thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` unchanged; the count needs no allocation (a `const` thread
// local without a destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: our caller's promise is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, and all our blocks are `System`'s.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_in(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn a_walk_and_its_preparation_allocate_nothing() {
    let mut task = StoppedTask::run(live::entry);
    let frozen = task.frozen();
    assert!(allocations_in(|| drop(black_box(Box::new(1)))) > 0, "the count counts");
    for tables in image::both() {
        let count = allocations_in(|| {
            let mut rules = EhFrameRules::new(tables);
            let mut walk = Walk::new(frozen.registers(), &frozen, &mut rules);
            assert!(walk.by_ref().count() > 10);
            assert_eq!(walk.end(), Some(WalkEnd::Complete));
        });
        assert_eq!(count, 0);
    }
}

#[test]
fn the_decoders_storage_is_as_small_as_documented() {
    const { assert!(EhFrameRules::SIZE < 3 * 1024) };
}
