//! A share goes to another owner through a slot, in one window.
use drop_registry::Shared;
use drop_registry::hosted::Hosted;

fn main() {
    let share = Shared::<u32, Hosted>::new(1).unwrap();
    std::thread::spawn(move || drop(share));
}
