//! What the fault path must not do: from the trap to the verdict nothing is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use drop_registry::{Mutex, Shared, TrackedBox};
use keeper::hosted::Current;
use keeper::{Case, Policy, Verdict};

use crate::{faults, kernel};

/// Counts what the calling thread allocates and frees.
struct Counting;

thread_local! {
    pub(crate) static CALLS: Cell<u64> = const { Cell::new(0) };
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
    static CALLS_AT_FAULT: Cell<u64> = const { Cell::new(0) };
    static CALLS_AT_VERDICT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Notes how often the allocator was called when everything is settled and walked.
#[derive(Debug)]
struct Noting;

impl Policy for Noting {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        assert_eq!(case.settle().resources.len(), 3);
        CALLS_AT_VERDICT.set(Some(CALLS.get()));
        Verdict::Exit
    }
}

#[test]
fn nothing_is_allocated_from_the_trap_to_the_verdict() {
    static LOCK: Mutex<u32, Current> = Mutex::new(1);
    let kernel = kernel();
    // Tasks share the thread, so they share what it counts.
    kernel.spawn_with_policy(&Noting, || {
        let _block = TrackedBox::<_, Current>::new(7u64).unwrap();
        let _share = Shared::<_, Current>::new(7u64).unwrap();
        let _guard = LOCK.lock().unwrap();
        CALLS_AT_FAULT.set(CALLS.get());
        faults::invalid_opcode();
    });
    assert_eq!(kernel.run().len(), 1);
    assert_eq!(CALLS_AT_VERDICT.get(), Some(CALLS_AT_FAULT.get()));
}
