//! Taking a share out of a slot needs the slot to oneself.
use drop_registry::Slot;
use drop_registry::hosted::Hosted;

static SLOT: Slot<u32, Hosted> = Slot::new();

fn main() {
    let _ = SLOT.take();
}
