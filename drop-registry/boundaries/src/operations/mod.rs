//! The operations, by primitive.

mod arena_heap;
mod composites;
mod ledger;
mod mutex;
mod once;
mod rollback_mutex;
mod rwlock;
mod shared;
mod slot;
mod tracked_box;

use crate::operation::Operation;

/// All operations.
pub(crate) fn all() -> impl Iterator<Item = &'static Operation> {
    [
        mutex::OPERATIONS,
        rollback_mutex::OPERATIONS,
        once::OPERATIONS,
        rwlock::OPERATIONS,
        shared::OPERATIONS,
        slot::OPERATIONS,
        tracked_box::OPERATIONS,
        arena_heap::OPERATIONS,
        ledger::OPERATIONS,
        composites::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}

/// A resource that outlives every task.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
