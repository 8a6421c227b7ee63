//! The condition variable, with a lock whose waiters take turns, or sleep.

use std::cell::Cell;

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Condvar, LockError, LockResult, MutexGuard, Park};

use super::mutex::{Lock, Turns};
use super::tasks::{NOBODY, TaskMark, me, nobody_waits, owner};
use super::{Waits, leak};
use crate::operation::{Audit, Companion, Findings, Operation, World, begin, each_on, end};

/// The operations with one wait strategy of the lock.
macro_rules! operations {
    ($R:ty, $condvar:literal) => {
        &[
            Operation {
                name: concat!($condvar, " wait_until, true at once"),
                world: || among::<$R>(1, takes, &[]),
            },
            Operation {
                name: concat!($condvar, " wait_until, notified"),
                world: || among::<$R>(0, takes, &[posts_later]),
            },
            Operation {
                name: concat!($condvar, " wait_until, one of two is notified"),
                world: || among::<$R>(0, takes, &[takes, posts_later]),
            },
            Operation {
                name: concat!($condvar, " wait_until, its notifier dies first"),
                world: || dying::<$R>(Companion::First, &[posts_and_dies, takes]),
            },
            Operation {
                name: concat!($condvar, " wait_until, its notifier dies next"),
                world: || dying::<$R>(Companion::Last, &[posts_and_dies, takes]),
            },
            Operation {
                name: concat!($condvar, " wait, notified"),
                world: || among::<$R>(0, takes_by_wait, &[posts_later]),
            },
            Operation {
                name: concat!($condvar, " wait, one of two is notified"),
                world: || plain::<$R>(0, takes_by_wait, &[takes_by_wait, posts_later]),
            },
            Operation {
                name: concat!($condvar, " notify_one, nobody waits"),
                world: || among::<$R>(0, posts, &[]),
            },
            Operation {
                name: concat!($condvar, " notify_one, others wait"),
                world: || among::<$R>(0, posts, &[takes, takes]),
            },
            Operation {
                name: concat!($condvar, " notify_all, others wait"),
                world: || among::<$R>(0, posts_two, &[takes, takes_by_wait]),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Turns, "condvar");
pub(super) const PARKING: &[Operation] = operations!(Park, "parking condvar");

/// A queue of jobs, of which only the length matters.
struct Site<R: Waits> {
    jobs: Lock<u64, R>,
    posted: Condvar<Hosted>,
    /// How often somebody was told of a death.
    told: Cell<u64>,
    /// Who dies with the victim.
    companion: Cell<TaskMark>,
    /// Whether whoever is told of a death notifies the others, as users of plain `wait` have to.
    told_notify: bool,
}

/// What one of several tasks does.
type Use<R> = fn(&Site<R>);

impl<R: Waits> Site<R> {
    /// What became of an attempt to lock. A number cannot be torn.
    fn locked<'a>(
        &self,
        result: LockResult<MutexGuard<'a, u64, Hosted, R>>,
    ) -> Option<MutexGuard<'a, u64, Hosted, R>> {
        match result {
            Ok(jobs) => Some(jobs),
            Err(LockError::OwnerDied(died)) => {
                self.told.set(self.told.get() + 1);
                if self.told_notify {
                    let _ = self.posted.notify_all();
                }
                Some(died.mark_consistent())
            }
            Err(_) => None,
        }
    }

    fn post(&self, jobs: u64) {
        if let Some(mut posted) = self.locked(self.jobs.lock()) {
            *posted += jobs;
        }
    }
}

fn takes<R: Waits>(site: &Site<R>) {
    loop {
        let taken = site.posted.wait_until(&site.jobs, |jobs| {
            *jobs = jobs.checked_sub(1)?;
            Some(())
        });
        match taken {
            Ok(()) => return,
            Err(LockError::OwnerDied(died)) => drop(site.locked(Err(LockError::OwnerDied(died)))),
            Err(_) => return,
        }
    }
}

fn takes_by_wait<R: Waits>(site: &Site<R>) {
    let mut jobs = site.locked(site.jobs.lock());
    while let Some(mut held) = jobs {
        if *held > 0 {
            *held -= 1;
            return;
        }
        jobs = site.locked(site.posted.wait(held));
    }
}

fn posts<R: Waits>(site: &Site<R>) {
    let _ = site.posted.notify_one_after(|| site.post(1));
}

fn posts_two<R: Waits>(site: &Site<R>) {
    let _ = site.posted.notify_all_after(|| site.post(2));
}

fn posts_later<R: Waits>(site: &Site<R>) {
    yield_now();
    posts(site);
}

fn posts_and_dies<R: Waits>(site: &Site<R>) {
    site.companion.set(me());
    posts_later(site);
}

struct Among<R: Waits> {
    site: &'static Site<R>,
    operation: Use<R>,
    others: &'static [Use<R>],
    companion: Option<Companion>,
    victim: &'static Cell<TaskMark>,
    /// Whether whoever died owned the lock.
    owned_at_death: bool,
}

fn of<R: Waits>(
    jobs: u64,
    operation: Use<R>,
    others: &'static [Use<R>],
    told_notify: bool,
) -> Among<R> {
    let (jobs, posted) = (Lock::new(jobs), Condvar::new());
    let (told, companion) = (Cell::new(0), Cell::new(NOBODY));
    Among {
        site: leak(Site { jobs, posted, told, companion, told_notify }),
        operation,
        others,
        companion: None,
        victim: leak(Cell::new(NOBODY)),
        owned_at_death: false,
    }
}

fn among<R: Waits>(jobs: u64, operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(of(jobs, operation, others, false))
}

/// With a notifier that dies with the victim.
fn dying<R: Waits>(companion: Companion, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(Among { companion: Some(companion), ..of(0, takes, others, false) })
}

/// With tasks that use plain `wait`.
fn plain<R: Waits>(jobs: u64, operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(of(jobs, operation, others, true))
}

impl<R: Waits> World for Among<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation, victim) = (self.site, self.operation, self.victim);
        Box::new(move || {
            victim.set(me());
            begin();
            operation(site);
            end();
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn at_death(&mut self) {
        self.owned_at_death |= owner(&self.site.jobs) == self.victim.get();
    }

    fn companion(&self) -> Option<Companion> {
        self.companion
    }

    fn at_companion_death(&mut self) {
        self.owned_at_death |= owner(&self.site.jobs) == self.site.companion.get();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        audit.require(owner(&site.jobs) != self.victim.get(), Findings::LEAKED);
        audit.run_bystanders();
        let left = audit.run(|| site.locked(site.jobs.lock()).map(|jobs| *jobs)).flatten();
        // Nobody sleeps beside a job, and the victim's death was told once, if it owned the lock.
        let waiting = audit.run_bystanders() as u64;
        audit.require(waiting == 0 || left == Some(0), Findings::STUCK);
        audit.require(site.told.get() == u64::from(self.owned_at_death), Findings::UNTOLD);
        // Who still waits gets a job, and then nobody is left.
        audit.run(move || site.posted.notify_all_after(|| site.post(waiting)));
        audit.finish_bystanders();
        audit.require(!site.jobs.is_locked() && nobody_waits(&site.jobs), Findings::LEAKED);
        audit.require(site.posted.is_idle(), Findings::LEAKED);
    }

    fn state(&self) -> String {
        format!("{:?} {:?}", self.site.jobs, self.site.posted)
    }
}
