//! What a value borrows may be gone when the keeper drops it: a handle can be forgotten.
use std::cell::Cell;

use drop_registry::hosted::Hosted;
use drop_registry::{DropAfterTear, Shared, TrackedBox};

struct Writes<'a>(&'a std::sync::Mutex<Cell<u8>>);

unsafe impl DropAfterTear for Writes<'_> {}

impl Drop for Writes<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().set(1);
    }
}

fn main() {
    let local = std::sync::Mutex::new(Cell::new(0));
    std::mem::forget(TrackedBox::<_, Hosted>::new_droppable(Writes(&local)));
    let other = std::sync::Mutex::new(Cell::new(0));
    std::mem::forget(Shared::<_, Hosted>::new_droppable(Writes(&other)));
}
