//! The ledger that lists who writes is the writing task's own.
use drop_registry::RwLock;
use drop_registry::hosted::Hosted;

static LOCK: RwLock<u32, Hosted> = RwLock::new(0);

fn main() {
    let guard = LOCK.write().unwrap();
    std::thread::spawn(move || drop(guard));
}
