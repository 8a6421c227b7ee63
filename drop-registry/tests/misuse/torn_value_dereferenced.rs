//! What says that the owner died is not a guard.
use drop_registry::hosted::Hosted;
use drop_registry::{LockError, Mutex};

static TEXT: Mutex<String, Hosted> = Mutex::new(String::new());

fn main() {
    if let Err(LockError::OwnerDied(died)) = TEXT.lock() {
        println!("{}", died.len());
    }
}
