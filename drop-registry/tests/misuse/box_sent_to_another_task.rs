//! A tracked box stands in its task's ledger.
use drop_registry::TrackedBox;
use drop_registry::hosted::Hosted;

fn main() {
    let boxed = TrackedBox::<u32, Hosted>::new(1).unwrap();
    std::thread::spawn(move || drop(boxed));
}
