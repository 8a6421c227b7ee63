//! Taking a share out of a slot needs the slot to oneself.
use drop_registry::{Shared, Slot};
use drop_registry::hosted::Hosted;

static SLOT: Slot<Shared<u32, Hosted>> = Slot::new();

fn main() {
    let _ = SLOT.take();
}
