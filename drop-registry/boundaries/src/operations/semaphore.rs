//! Permits: who has one, who waits for one, and who adds some.

use std::cell::Cell;

use drop_registry::Semaphore;
use drop_registry::hosted::{Hosted, yield_now};

use super::leak;
use super::tasks::{NOBODY, TaskMark, me, nobody_waits};
use crate::operation::{Audit, Companion, Findings, Operation, World, begin, each_on, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "semaphore acquire, release", world: || among(1, acquires, &[]) },
    Operation { name: "semaphore try_acquire", world: || among(1, tries, &[]) },
    Operation { name: "semaphore acquire of two", world: || among(2, acquires_two, &[]) },
    Operation { name: "semaphore acquire, empty", world: || among(1, acquires, &[holds]) },
    Operation {
        name: "semaphore acquire, empty, others wait",
        world: || among(1, acquires, &[holds, waits, waits]),
    },
    Operation {
        name: "semaphore acquire, empty, who has the permit dies first",
        world: || among_the_dying(Companion::First, &[dies, waits]),
    },
    Operation {
        name: "semaphore acquire, empty, who has the permit dies next",
        world: || among_the_dying(Companion::Last, &[dies, waits]),
    },
    Operation { name: "semaphore try_acquire, empty", world: || among(1, tries, &[holds]) },
    Operation {
        name: "semaphore release, another takes it",
        world: || among(1, releases, &[snatches]),
    },
    Operation {
        name: "semaphore release, others wait",
        world: || among(1, releases, &[comes_later, comes_later]),
    },
    Operation { name: "semaphore add permits", world: || adding(&[]) },
    Operation { name: "semaphore add permits, others wait", world: || adding(&[waits, waits]) },
    Operation { name: "semaphore forget a permit", world: || among(2, forgets, &[]) },
    Operation {
        name: "semaphore release, others come and go",
        world: || Box::new(Among { interleaved: true, ..of(3, releases, &[comes_and_goes]) }),
    },
];

/// A semaphore that several tasks use, and what they have written down themselves.
struct Site {
    semaphore: Semaphore<Hosted>,
    /// How many permits there are in all, at least and at most: a permit that the victim is about
    /// to forget may be there or not.
    least: Cell<u64>,
    most: Cell<u64>,
    victim: Cell<TaskMark>,
    /// Who dies with it.
    companion: Cell<TaskMark>,
    /// How many permits the others have.
    with_others: Cell<u64>,
    /// Whether the companion has one.
    companion_has: Cell<bool>,
    /// Whether who comes and goes is to come to an end.
    over: Cell<bool>,
}

/// What one of several tasks does.
type Use = fn(&Site);

impl Site {
    fn has_permit(&self, turns: usize) {
        if me() == self.victim.get() {
            return;
        }
        if me() == self.companion.get() {
            // What it has is not counted, once it is dead.
            self.companion_has.set(true);
            (0..turns).for_each(|_| yield_now());
            self.companion_has.set(false);
            return;
        }
        self.with_others.set(self.with_others.get() + 1);
        (0..turns).for_each(|_| yield_now());
        self.with_others.set(self.with_others.get() - 1);
    }

    fn acquires(&self, turns: usize) {
        if let Ok(_permit) = self.semaphore.acquire() {
            self.has_permit(turns);
        }
    }
}

fn acquires(site: &Site) {
    begin();
    site.acquires(0);
    end();
}

fn acquires_two(site: &Site) {
    begin();
    let (first, second) = (site.semaphore.acquire(), site.semaphore.acquire());
    drop(first);
    drop(second);
    end();
}

fn tries(site: &Site) {
    begin();
    drop(site.semaphore.try_acquire());
    end();
}

fn releases(site: &Site) {
    let permit = site.semaphore.acquire();
    yield_now();
    begin();
    drop(permit);
    end();
}

fn adds(site: &Site) {
    begin();
    let _ = site.semaphore.add_permits(2);
    end();
}

fn forgets(site: &Site) {
    if let Ok(permit) = site.semaphore.acquire() {
        site.least.set(1);
        begin();
        permit.forget();
        site.most.set(1);
        end();
    }
}

fn holds(site: &Site) {
    site.acquires(3);
}

/// Has the permit, and dies with the victim.
fn dies(site: &Site) {
    site.companion.set(me());
    holds(site);
}

fn waits(site: &Site) {
    site.acquires(1);
}

/// Comes when the victim has the permit.
fn comes_later(site: &Site) {
    yield_now();
    site.acquires(1);
}

/// Takes the permit if it is there when its third turn comes: that is between the victim's death
/// and its settlement, when the victim's ledger may still list it.
fn snatches(site: &Site) {
    yield_now();
    yield_now();
    if let Ok(_permit) = site.semaphore.try_acquire() {
        site.has_permit(1);
    }
}

/// Has a permit every now and then, so that the exchanges of others fail a few times; and rests for
/// so long that they come through. Irregularly, so that it is not in step with any of them.
fn comes_and_goes(site: &Site) {
    let turns = |count| (0..count).for_each(|_| yield_now());
    let mut pauses = [3, 8, 4, 11, 5, 7, 30].into_iter().cycle();
    while !site.over.get() {
        turns(pauses.next().unwrap_or(0));
        if let Ok(_permit) = site.semaphore.try_acquire() {
            site.has_permit(pauses.next().unwrap_or(0));
        }
    }
}

struct Among {
    site: &'static Site,
    operation: Use,
    others: &'static [Use],
    /// Whether the operation adds permits.
    adds: bool,
    companion: Option<Companion>,
    interleaved: bool,
}

fn among_the_dying(companion: Companion, others: &'static [Use]) -> Box<dyn World> {
    Box::new(Among { companion: Some(companion), ..of(1, acquires, others) })
}

fn adding(others: &'static [Use]) -> Box<dyn World> {
    Box::new(Among { adds: true, ..of(0, adds, others) })
}

fn among(permits: u64, operation: Use, others: &'static [Use]) -> Box<dyn World> {
    Box::new(of(permits, operation, others))
}

fn of(permits: u64, operation: Use, others: &'static [Use]) -> Among {
    let site = leak(Site {
        semaphore: Semaphore::new(permits),
        least: Cell::new(permits),
        most: Cell::new(permits),
        victim: Cell::new(NOBODY),
        companion: Cell::new(NOBODY),
        with_others: Cell::new(0),
        companion_has: Cell::new(false),
        over: Cell::new(false),
    });
    Among { site, operation, others, adds: false, companion: None, interleaved: false }
}

impl Among {
    /// Requires that each permit is with the semaphore or with one of the others.
    fn require_all_permits(&self, audit: &mut Audit<'_>, added: u64) {
        let site = self.site;
        let with_others = site.with_others.get() + u64::from(site.companion_has.get());
        let there = site.semaphore.available() + with_others;
        audit.require(there <= site.most.get() + added, Findings::DOUBLED);
        audit.require(there >= site.least.get() + added, Findings::LEAKED);
    }
}

impl World for Among {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation) = (self.site, self.operation);
        Box::new(move || {
            site.victim.set(me());
            operation(site);
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn companion(&self) -> Option<Companion> {
        self.companion
    }

    fn interleaved(&self) -> bool {
        self.interleaved
    }

    fn at_companion_death(&mut self) {
        self.site.companion_has.set(false);
    }

    fn at_death(&mut self) {
        let site = self.site;
        if self.adds {
            // Whether it has added them is what the count itself says: none, or both.
            let all = if site.semaphore.available() == 0 { 0 } else { 2 };
            site.least.set(all);
            site.most.set(all);
        }
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let semaphore = &self.site.semaphore;
        self.require_all_permits(audit, 0);
        self.site.over.set(true);
        // Nobody sleeps beside a permit.
        let waiting = audit.run_bystanders() as u64;
        audit.require(waiting == 0 || semaphore.available() == 0, Findings::STUCK);
        audit.require(waiting > 0 || nobody_waits(semaphore), Findings::LEAKED);
        // Who still waits gets one, and then all are there, and nobody waits.
        audit.run(move || semaphore.add_permits(waiting));
        audit.finish_bystanders();
        self.require_all_permits(audit, waiting);
        audit.require(nobody_waits(semaphore), Findings::LEAKED);
    }

    fn state(&self) -> String {
        format!("{:?}", self.site.semaphore)
    }
}
