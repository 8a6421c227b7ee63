//! A lock gives its value to any task.
use std::rc::Rc;

use drop_registry::Mutex;
use drop_registry::hosted::Hosted;

static LOCK: Mutex<Option<Rc<u32>>, Hosted> = Mutex::new(None);

fn main() {
    drop(LOCK.lock());
}
