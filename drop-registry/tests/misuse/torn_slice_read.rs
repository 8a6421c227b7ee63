//! A slice may have the new pointer and the old length: there is no reading it after a death.
use drop_registry::hosted::Hosted;
use drop_registry::{LockError, Mutex};

static SLICE: Mutex<&'static [u32], Hosted> = Mutex::new(&[]);

fn main() {
    if let Err(LockError::OwnerDied(died)) = SLICE.lock() {
        let _len = died.peek().len();
    }
}
