//! Sections in which the task is not killed; it can be cut off there all the same, by a fault.

use drop_registry::NoKill;
use drop_registry::hosted::Hosted;

use super::mutex::{Lock, alone};
use crate::operation::Operation;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "no-kill sections, and a lock in them", world: || alone(lock_inside) },
    Operation { name: "no-kill section in a lock, left later", world: || alone(left_later) },
];

fn section() -> NoKill<Hosted> {
    NoKill::enter().expect("room in the ledger")
}

fn lock_inside(lock: &Lock<u64>) {
    let outer = section();
    let inner = section();
    if let Ok(mut guard) = lock.lock() {
        *guard += 1;
    }
    drop(inner);
    drop(outer);
}

fn left_later(lock: &Lock<u64>) {
    let guard = lock.lock();
    let section = section();
    drop(guard);
    drop(section);
}
