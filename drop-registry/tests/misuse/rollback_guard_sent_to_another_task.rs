//! The ledger that lists a held lock is its task's own.
use drop_registry::RollbackMutex;
use drop_registry::hosted::Hosted;

static LOCK: RollbackMutex<u32, Hosted> = RollbackMutex::new(0);

fn main() {
    let guard = LOCK.lock().unwrap();
    std::thread::spawn(move || drop(guard));
}
