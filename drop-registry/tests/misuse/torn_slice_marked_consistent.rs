//! Nor can it be declared whole without a promise.
use drop_registry::hosted::Hosted;
use drop_registry::{LockError, Mutex};

static SLICE: Mutex<&'static [u32], Hosted> = Mutex::new(&[]);

fn main() {
    if let Err(LockError::OwnerDied(died)) = SLICE.lock() {
        let _guard = died.mark_consistent();
    }
}
