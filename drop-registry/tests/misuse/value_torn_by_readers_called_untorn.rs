//! A reader could leave it torn, behind a lock of another crate.
use drop_registry::RwLock;
use drop_registry::hosted::Hosted;

fn main() {
    let _lock = RwLock::<std::sync::Mutex<u32>, Hosted>::new_untorn(std::sync::Mutex::new(1));
}
