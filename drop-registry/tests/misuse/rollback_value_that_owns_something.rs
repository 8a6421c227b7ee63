//! A copy that is abandoned after a death can be neither dropped nor forgotten.
use drop_registry::RollbackMutex;
use drop_registry::hosted::Hosted;

static LOCK: RollbackMutex<String, Hosted> = RollbackMutex::new(String::new());

fn main() {
    LOCK.lock().unwrap().push('a');
}
