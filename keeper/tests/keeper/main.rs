//! The keeper, and tasks that run and die, in a hosted kernel.
#![expect(unsafe_code, reason = "tasks that fault, and an allocator that counts")]

mod chain;
mod deadlock;
mod deaths;
mod ends;
mod fault_path;
mod faults;
mod keeper_tasks;
mod kills;
mod landing_pads;
mod meters;
mod peers;
mod post_mortem;
mod recovery;
mod rulings;
mod verdicts;

use keeper::Capacity;
use keeper::hosted::Kernel;

/// A kernel for this thread.
fn kernel() -> Kernel {
    // SAFETY: by thread-locals, tasks here share words alone; those that are stepped allocate
    // nothing; and whatever else they share is static or leaked, and their test's own.
    unsafe { Kernel::new() }
}

/// A kernel that has room for so much.
fn kernel_with(capacity: Capacity) -> Kernel {
    // SAFETY: as above.
    unsafe { Kernel::with_capacity(capacity) }
}
