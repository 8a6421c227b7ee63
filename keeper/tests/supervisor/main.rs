//! Supervision trees, of tasks that run and die in a hosted kernel.
#![expect(unsafe_code, reason = "tasks that fault")]

mod bad_input;
mod family;
mod intensity;
mod kinds;
mod nested;
mod strategies;

use keeper::Capacity;
use keeper::hosted::Kernel;

/// A kernel for this thread.
fn kernel() -> Kernel {
    // SAFETY: tasks here keep nothing in thread-locals, those that are stepped allocate nothing, and
    // what they share is static or leaked.
    unsafe { Kernel::new() }
}

/// A kernel that has room for so much.
fn kernel_with(capacity: Capacity) -> Kernel {
    // SAFETY: as above.
    unsafe { Kernel::with_capacity(capacity) }
}
