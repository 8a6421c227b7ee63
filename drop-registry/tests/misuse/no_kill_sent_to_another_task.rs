//! The section is the task's that entered it.
use drop_registry::NoKill;
use drop_registry::hosted::Hosted;

fn main() {
    let section = NoKill::<Hosted>::enter().unwrap();
    std::thread::spawn(move || drop(section));
}
