//! The ledger that lists a held lock is its task's own.
use drop_registry::Mutex;
use drop_registry::hosted::Hosted;

static LOCK: Mutex<u32, Hosted> = Mutex::new(0);

fn main() {
    let guard = LOCK.lock().unwrap();
    std::thread::spawn(move || drop(guard));
}
