//! Who was told of a death holds the lock, by an entry of its own ledger.
use drop_registry::hosted::Hosted;
use drop_registry::{LockError, Mutex};

static LOCK: Mutex<u32, Hosted> = Mutex::new(0);

fn main() {
    let Err(LockError::OwnerDied(died)) = LOCK.lock() else { return };
    std::thread::spawn(move || drop(died));
}
