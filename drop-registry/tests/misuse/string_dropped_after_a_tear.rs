//! A `String` makes no promise about being dropped after a tear.
use drop_registry::TrackedBox;
use drop_registry::hosted::Hosted;

fn main() {
    let _boxed = TrackedBox::<String, Hosted>::new_droppable(String::new());
}
