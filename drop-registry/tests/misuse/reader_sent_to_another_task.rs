//! The ledger that lists a reader is its task's own.
use drop_registry::RwLock;
use drop_registry::hosted::Hosted;

static LOCK: RwLock<u32, Hosted> = RwLock::new(0);

fn main() {
    let reader = LOCK.read().unwrap();
    std::thread::spawn(move || drop(reader));
}
