//! Permits: those who have one, those who wait, and those who add some.

use drop_registry::hosted::{Hosted, Stop};
use drop_registry::{AddPermitsError, Ledger, LedgerFull, Semaphore};

use crate::machine;

#[test]
fn too_many_permits_are_refused_and_none_is_added() {
    static SEMAPHORE: Semaphore<Hosted> = Semaphore::new(Semaphore::<Hosted>::MAX_PERMITS);
    let machine = machine();
    machine.spawn(|| {
        assert_eq!(SEMAPHORE.add_permits(1), Err(AddPermitsError::TooMany));
        let permit = SEMAPHORE.acquire().unwrap();
        assert_eq!(SEMAPHORE.add_permits(u64::MAX), Err(AddPermitsError::TooMany));
        SEMAPHORE.add_permits(1).unwrap();
        drop(permit);
        assert_eq!(SEMAPHORE.available(), Semaphore::<Hosted>::MAX_PERMITS + 1);
        assert_eq!(SEMAPHORE.add_permits(0), Err(AddPermitsError::TooMany));
    });
    machine.run_all().unwrap();
}

#[test]
fn a_full_ledger_refuses_and_takes_no_permit() {
    static SEMAPHORE: Semaphore<Hosted> = Semaphore::new(100);
    let machine = machine();
    let task = machine.spawn(|| {
        let permits: Vec<_> = std::iter::from_fn(|| SEMAPHORE.try_acquire().ok()).collect();
        assert_eq!(permits.len(), Ledger::CAPACITY);
        assert_eq!(SEMAPHORE.acquire().unwrap_err(), LedgerFull);
        assert_eq!(SEMAPHORE.add_permits(1), Err(AddPermitsError::LedgerFull));
        assert_eq!(SEMAPHORE.available(), 100 - Ledger::CAPACITY as u64);
        drop(permits);
        assert_eq!(SEMAPHORE.available(), 100);
    });
    assert_eq!(machine.run(task, None), Stop::Finished);
}
