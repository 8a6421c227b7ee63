//! The software traps: how a task asks for something that ends with another task running.
#![expect(unsafe_code, reason = "software interrupts")]

use core::arch::asm;

use super::Vector;

/// Issues software interrupt `VECTOR` with `argument` in `rdi`.
///
/// Every register is as before when the task goes on, and nothing is written on its stack.
#[inline(always)]
fn trap<const VECTOR: u8>(argument: u64) {
    // SAFETY: the vectors of this file have handlers that restore all registers. The memory
    // clobber stays: other tasks run meanwhile.
    unsafe {
        asm!(
            "int {vector}",
            vector = const VECTOR,
            in("rdi") argument,
            options(nostack, preserves_flags),
        );
    }
}

/// Lets another task run.
pub(crate) fn yield_now() {
    trap::<{ Vector::YIELD }>(0);
}

/// Waits for a wake-up, unless the token of one is there already.
pub(crate) fn park() {
    trap::<{ Vector::PARK }>(0);
}

/// Waits for tick `deadline`, or a wake-up.
pub(crate) fn sleep(deadline: u64) {
    trap::<{ Vector::SLEEP }>(deadline);
}

/// Ends the calling task.
pub(crate) fn exit() -> ! {
    loop {
        trap::<{ Vector::EXIT }>(0);
    }
}

/// Stops the calling task as one that panicked.
pub(crate) fn panicked() -> ! {
    loop {
        trap::<{ Vector::PANICKED }>(0);
    }
}

/// Stops the calling task as one that was killed.
pub(crate) fn killed() {
    trap::<{ Vector::KILLED }>(0);
}
