//! The keeper may come to a dead task's lock long after it was freed.
use drop_registry::RepairMutex;
use drop_registry::hosted::Hosted;

fn main() {
    let lock = RepairMutex::<u32, Hosted>::new(0, |died| Some(died.replace(0)));
    *lock.lock().unwrap() += 1;
}
