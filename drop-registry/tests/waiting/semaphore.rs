//! Permits: those who have one, those who wait, and those who add some.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::{AddPermitsError, Ledger, LedgerFull, Semaphore, TryAcquireError};

use crate::sweep::{Scene, kill_everywhere};

/// What three tasks share.
struct Shared {
    semaphore: Semaphore<Hosted>,
    /// Who has done what it has a permit for, and not yet given that back.
    busy: [AtomicBool; 3],
    served: AtomicU32,
}

impl Shared {
    fn leaked(permits: u64) -> &'static Self {
        Box::leak(Box::new(Self {
            semaphore: Semaphore::new(permits),
            busy: Default::default(),
            served: AtomicU32::new(0),
        }))
    }

    fn work(&self, role: usize, most: usize) {
        let permit = match self.semaphore.try_acquire() {
            Ok(permit) => permit,
            Err(TryAcquireError::WouldBlock) => self.semaphore.acquire().unwrap(),
            Err(error) => panic!("{error}"),
        };
        self.busy[role].store(true, Ordering::Relaxed);
        let busy = self.busy.iter().filter(|busy| busy.load(Ordering::Relaxed)).count();
        assert!(busy <= most, "more at work than there are permits");
        yield_now();
        self.busy[role].store(false, Ordering::Relaxed);
        drop(permit);
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    fn assert_idle(&self, permits: u64) {
        assert_eq!(
            format!("{:?}", self.semaphore),
            format!("Semaphore {{ available: {permits}, waiters: {{}} }}")
        );
    }
}

fn every_permit_comes_back(permits: u64) {
    let played = kill_everywhere(|machine| {
        let shared = Shared::leaked(permits);
        let script = move |role| {
            move || {
                yield_now();
                shared.work(role, permits as usize);
                shared.work(role, permits as usize);
            }
        };
        Scene {
            tasks: (0..3).map(|role| machine.spawn(script(role))).collect(),
            died: Box::new(move |role| shared.busy[role].store(false, Ordering::Relaxed)),
            check: Box::new(move |_, _, asleep| {
                assert_eq!(asleep, []);
                assert!(shared.served.load(Ordering::Relaxed) >= 4);
                shared.assert_idle(permits);
            }),
        }
    });
    assert!(played.killed > 100, "{played:?}");
}

#[test]
fn whoever_dies_its_one_permit_comes_back_once_and_wakes_a_waiter() {
    every_permit_comes_back(1);
}

#[test]
fn whoever_dies_of_two_permits_each_comes_back_once() {
    every_permit_comes_back(2);
}

#[test]
fn permits_are_added_all_or_none_and_wake_as_many() {
    kill_everywhere(|machine| {
        let shared = Shared::leaked(0);
        let adds = move || {
            yield_now();
            shared.semaphore.add_permits(2).unwrap();
        };
        let waits = move |role| {
            move || {
                yield_now();
                shared.work(role, 2);
            }
        };
        Scene {
            tasks: vec![machine.spawn(waits(0)), machine.spawn(adds), machine.spawn(waits(2))],
            died: Box::new(move |role| shared.busy[role].store(false, Ordering::Relaxed)),
            check: Box::new(move |_, _, asleep| {
                if asleep.is_empty() {
                    shared.assert_idle(2);
                } else {
                    assert_eq!(asleep, [0, 2]);
                    assert_eq!(shared.semaphore.available(), 0);
                }
            }),
        }
    });
}

#[test]
fn a_permit_is_forgotten_for_good_or_comes_back() {
    kill_everywhere(|machine| {
        let shared = Shared::leaked(2);
        let forgets = move || {
            yield_now();
            shared.semaphore.acquire().unwrap().forget();
            shared.served.fetch_add(1, Ordering::Relaxed);
        };
        Scene {
            tasks: vec![machine.spawn(forgets)],
            died: Box::new(|_| ()),
            check: Box::new(move |_, _, _| {
                let available = shared.semaphore.available();
                let is_forgotten = shared.served.load(Ordering::Relaxed) == 1;
                assert!(available == 1 || (available == 2 && !is_forgotten), "{available}");
                shared.assert_idle(available);
            }),
        }
    });
}

#[test]
fn too_many_permits_are_refused_and_none_is_added() {
    static SEMAPHORE: Semaphore<Hosted> = Semaphore::new(Semaphore::<Hosted>::MAX_PERMITS);
    let mut machine = Machine::new();
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
    let mut machine = Machine::new();
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
