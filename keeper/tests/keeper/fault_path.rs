//! What the fault path must not do: from the post to the verdict nothing is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use drop_registry::{Mutex, Shared, TrackedBox};
use keeper::{Policy, Report, Verdict};

use crate::machine::{Current, Machine, keeper, page_fault, serve};

/// Counts what the calling thread allocates and frees.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: as the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: our caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: our caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static CALLS_AT_VERDICT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Notes how often the allocator was called when everything is settled and walked.
#[derive(Debug)]
struct Noting;

impl Policy for Noting {
    fn rule(&self, report: &Report, _: u32) -> Verdict {
        assert_eq!(report.resources.len(), 3);
        CALLS_AT_VERDICT.set(Some(CALLS.get()));
        Verdict::Exit
    }
}

#[test]
fn nothing_is_allocated_from_the_trap_to_the_verdict() {
    let machine = Machine::new();
    let lock = Mutex::<u32, Current>::new(1);
    let task = machine.spawn(Some(&Noting), true, || {
        std::mem::forget(TrackedBox::<_, Current>::new(7u64).unwrap());
        std::mem::forget(Shared::<_, Current>::new(7u64).unwrap());
        std::mem::forget(lock.lock().unwrap());
    });
    let keeper = keeper(&machine);
    let before = CALLS.get();
    keeper.post(task, page_fault(), 0).unwrap();
    serve(&keeper).unwrap();
    assert_eq!(CALLS_AT_VERDICT.get(), Some(before));
}
