//! The windows of the drop registry: locks, shares, boxes, outside of any task.

use std::hint::black_box;

use drop_registry::hosted::Hosted;
use drop_registry::{Mutex, RwLock, Shared, TrackedBox};

static OUTER: Mutex<u64, Hosted> = Mutex::new(1);
static INNER: Mutex<u64, Hosted> = Mutex::new(2);
static READ: RwLock<u64, Hosted> = RwLock::new(3);

pub(super) extern "C" fn registry() {
    if let (Ok(mut outer), Ok(inner), Ok(read)) = (OUTER.lock(), INNER.try_lock(), READ.read()) {
        *outer += *inner + *read;
        black_box(OUTER.try_lock().is_ok());
    }
    let share = Shared::<_, Hosted>::new(black_box(5u64));
    let another = share.as_ref().ok().and_then(|share| share.try_clone().ok());
    drop(share);
    let kept = TrackedBox::<_, Hosted>::new(black_box([7u64; 9]));
    black_box((another.map(|share| *share), kept.map(|kept| kept[3]).ok()));
}
