//! Not every raw read-write lock can be freed of what dead tasks left in it.
use drop_registry::hosted::Hosted;
use drop_registry::lock_api::{RawRwLock, TrackedRawRwLock, write_tracked};

type NoPromise = RawRwLock<Hosted>;

static LOCK: lock_api::RwLock<TrackedRawRwLock<NoPromise, Hosted>, u32> = lock_api::RwLock::new(1);

fn main() {
    let _ = write_tracked(&LOCK);
}
