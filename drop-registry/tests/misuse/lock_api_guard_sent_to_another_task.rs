//! The ledger that says who holds the lock is the locking task's own.
use drop_registry::hosted::Hosted;
use drop_registry::lock_api::RawMutex;

static LOCK: lock_api::Mutex<RawMutex<Hosted>, u32> = lock_api::Mutex::new(1);

fn main() {
    let held = LOCK.lock();
    std::thread::spawn(move || drop(held));
}
