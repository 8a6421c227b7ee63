//! Instructions of one operation: counted by single steps, not timed.

use core::hint::black_box;

use drop_registry::hosted::{Machine, Stop, yield_now};

use crate::operation::{Nothing, Operation};

/// How many instructions one operation executes, uncontended.
pub(crate) fn instructions<O: Operation>(make: impl FnOnce() -> O + Send + 'static) -> u64 {
    between_marks(make) - between_marks(|| Nothing)
}

fn between_marks<O: Operation>(make: impl FnOnce() -> O + Send + 'static) -> u64 {
    #[expect(unsafe_code, reason = "makes a machine")]
    // SAFETY: the task is stepped through one operation, which allocates nothing; it is not killed.
    let machine = unsafe { Machine::new() };
    let task = machine.spawn(move || {
        let operation = &make();
        // What it works on is somewhere in memory, as it would be.
        let operation = black_box(operation);
        // Once before it counts: lazy binding.
        operation.run();
        yield_now();
        operation.run();
        yield_now();
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    let (steps, stop) = machine.count_instructions(task);
    assert_eq!((stop, machine.run(task, None)), (Stop::Yielded, Stop::Finished));
    steps
}
