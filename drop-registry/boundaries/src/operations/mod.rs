//! The operations, by primitive.

mod arena_heap;
mod channel;
mod composites;
mod condvar;
mod exclusive;
mod heap;
mod ledger;
mod lent;
mod mutex;
mod no_kill;
mod obligation;
mod once;
mod read_write;
mod recovery_point;
mod repair_mutex;
mod rollback_mutex;
mod rwlock;
mod scattered;
mod semaphore;
mod shared;
mod slot;
mod tasks;
mod tracked_box;
mod wait_queue;

use drop_registry::WaitStrategy;
use drop_registry::hosted::Hosted;

use crate::operation::Operation;

/// All operations.
pub(crate) fn all() -> impl Iterator<Item = &'static Operation> {
    [
        mutex::OPERATIONS,
        mutex::PARKING,
        repair_mutex::OPERATIONS,
        repair_mutex::PARKING,
        rollback_mutex::OPERATIONS,
        rollback_mutex::PARKING,
        once::OPERATIONS,
        once::PARKING,
        rwlock::OPERATIONS,
        rwlock::PARKING,
        rwlock::READERS_WAIT,
        wait_queue::OPERATIONS,
        wait_queue::WIDE,
        semaphore::OPERATIONS,
        condvar::OPERATIONS,
        condvar::PARKING,
        shared::OPERATIONS,
        mutex::LOCK_API,
        mutex::LOCK_API_PARKING,
        mutex::FOREIGN,
        mutex::FOREIGN_PARKING,
        mutex::UNTOLD,
        rwlock::LOCK_API,
        rwlock::LOCK_API_PARKING,
        rwlock::FOREIGN,
        rwlock::FOREIGN_PARKING,
        rwlock::UNTOLD,
        slot::OPERATIONS,
        channel::OPERATIONS,
        channel::PARKING,
        tracked_box::OPERATIONS,
        lent::OPERATIONS,
        obligation::OPERATIONS,
        heap::OPERATIONS,
        arena_heap::OPERATIONS,
        ledger::OPERATIONS,
        no_kill::OPERATIONS,
        recovery_point::OPERATIONS,
        composites::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}

/// A resource that outlives every task.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// How those who want a lock wait for it.
trait Waits: WaitStrategy<Hosted> + 'static {}
impl<R: WaitStrategy<Hosted> + 'static> Waits for R {}
