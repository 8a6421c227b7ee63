//! What a share points at is used by several tasks.
use std::cell::Cell;

use drop_registry::Shared;
use drop_registry::hosted::Hosted;

fn main() {
    let _share = Shared::<Cell<u32>, Hosted>::new(Cell::new(1));
}
