//! The ledger that says who writes is its task's own.
use drop_registry::hosted::Hosted;
use drop_registry::lock_api::RawRwLock;

static LOCK: lock_api::RwLock<RawRwLock<Hosted>, u32> = lock_api::RwLock::new(1);

fn main() {
    let held = LOCK.write();
    std::thread::spawn(move || drop(held));
}
