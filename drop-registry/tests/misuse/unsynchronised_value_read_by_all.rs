//! A read-write lock shares its value.
use std::cell::Cell;

use drop_registry::RwLock;
use drop_registry::hosted::Hosted;

static LOCK: RwLock<Cell<u32>, Hosted> = RwLock::new(Cell::new(0));

fn main() {
    drop(LOCK.read());
}
