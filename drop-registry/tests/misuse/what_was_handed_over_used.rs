//! What is handed over is the slot's.
use drop_registry::hosted::Hosted;
use drop_registry::{Slot, TrackedBox};

fn main() {
    let slot = Slot::new();
    let boxed = TrackedBox::<_, Hosted>::new(1).unwrap();
    slot.put(boxed).unwrap();
    println!("{}", *boxed);
}
