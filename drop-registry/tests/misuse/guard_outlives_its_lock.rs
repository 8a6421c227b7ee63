//! A guard borrows its lock.
use drop_registry::Mutex;
use drop_registry::hosted::Hosted;

fn main() {
    let _guard = {
        let lock = Mutex::<u32, Hosted>::new(0);
        lock.lock().unwrap()
    };
}
