//! A lock names its owner, so a guard is no thing to be handed over.
use drop_registry::hosted::Hosted;
use drop_registry::{MutexGuard, Slot};

fn main() {
    let _ = Slot::<MutexGuard<'static, u32, Hosted>>::new();
}
