//! Whoever comes after it was made shares the value.
use std::cell::Cell;

use drop_registry::Once;
use drop_registry::hosted::Hosted;

static ONCE: Once<Cell<u32>, Hosted> = Once::new();

fn main() {
    ONCE.call_once(|| Cell::new(1)).unwrap().set(2);
}
