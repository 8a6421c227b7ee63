//! The ledger that lists a duty is its task's own.
use std::sync::atomic::{AtomicBool, Ordering};

use drop_registry::hosted::Hosted;
use drop_registry::{Obligation, Undo};

struct Masked(AtomicBool);

unsafe impl Undo for Masked {
    fn undo(&self) {
        self.0.store(false, Ordering::Release);
    }
}

static DISK: Masked = Masked(AtomicBool::new(false));

fn main() {
    let owed = Obligation::<_, Hosted>::new(&DISK).unwrap();
    std::thread::spawn(move || drop(owed));
}
