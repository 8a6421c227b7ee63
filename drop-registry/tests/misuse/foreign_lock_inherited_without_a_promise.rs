//! Not every raw lock can be taken over from a task that died inside of it.
use drop_registry::hosted::Hosted;
use drop_registry::lock_api::{RawMutex, TrackedRawMutex, lock_tracked};

type NoPromise = RawMutex<Hosted>;

static LOCK: lock_api::Mutex<TrackedRawMutex<NoPromise, Hosted>, u32> = lock_api::Mutex::new(1);

fn main() {
    let _ = lock_tracked(&LOCK);
}
