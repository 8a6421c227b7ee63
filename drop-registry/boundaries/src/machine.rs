//! Machines, and tasks of whatever an operation's world is made of.
#![expect(unsafe_code, reason = "the worlds promise what the compiler cannot see in boxed entries")]

use drop_registry::hosted::Machine;
use task_model::TaskId;

/// A machine for this thread.
pub(crate) fn machine() -> Machine {
    // SAFETY: of a world, everything that tasks use is leaked, and they allocate from the heaps
    // under test alone. By thread-locals they share words. No registers are written but by
    // recoveries.
    unsafe { Machine::new() }
}

/// A task that will run `entry`.
///
/// Entries are boxed and say nothing of `Send`. What the tasks of a world share is what is proved
/// here, which is `Sync`; and cells for an answer, which are looked at when the task that sets them
/// has ended.
pub(crate) fn spawn(machine: &Machine, entry: Box<dyn FnOnce()>) -> TaskId {
    // SAFETY: see above; worlds are this program's own, all of them.
    unsafe { machine.spawn_unchecked(entry) }
}
