//! The ledger that lists a permit is its task's own.
use drop_registry::Semaphore;
use drop_registry::hosted::Hosted;

static PERMITS: Semaphore<Hosted> = Semaphore::new(1);

fn main() {
    let permit = PERMITS.acquire().unwrap();
    std::thread::spawn(move || drop(permit));
}
