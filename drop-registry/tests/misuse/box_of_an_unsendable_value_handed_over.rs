//! Another task would get what is in the box.
use std::rc::Rc;

use drop_registry::hosted::Hosted;
use drop_registry::{Slot, TrackedBox};

fn main() {
    let slot = Slot::new();
    let boxed = TrackedBox::<_, Hosted>::new(Rc::new(1)).unwrap();
    let _ = slot.put(boxed);
}
