//! Two hosted tasks share a count that is no atomic: they interrupt each other in the middle of it.
use std::rc::Rc;

use drop_registry::hosted::Machine;

fn main() {
    // SAFETY: it is not compiled.
    let machine = unsafe { Machine::new() };
    let shared = Rc::new(());
    let other = Rc::clone(&shared);
    machine.spawn(move || drop(shared));
    machine.spawn(move || drop(other));
}
