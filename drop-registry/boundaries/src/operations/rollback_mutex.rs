//! The mutex whose value a death puts back, alone, with somebody else at it, and inside others.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{DropAfterTear, RollbackGuard, RollbackMutex, TrackedBox};

use super::leak;
use super::mutex::{self, Answer, Turns, next_answer};
use crate::operation::{Audit, Findings, Operation, World, begin, end, marked};

/// Several words, written one by one, so that a value that is half old and half new shows.
type Value = [u64; 12];

type Lock = RollbackMutex<Value, Hosted, Turns>;
type Guard = RollbackGuard<'static, Value, Hosted, Turns>;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "rollback mutex lock, write, unlock", world: || alone(write) },
    Operation { name: "rollback mutex lock, read, unlock", world: || alone(read) },
    Operation { name: "rollback mutex try_lock", world: || alone(try_lock) },
    Operation { name: "rollback mutex lock twice (refused)", world: || alone(lock_twice) },
    Operation { name: "rollback mutex commit half-way", world: || one_lock(commit, false, false) },
    Operation { name: "rollback mutex roll back by hand", world: || alone(roll_back) },
    Operation { name: "rollback mutex write twice", world: || alone(write_twice) },
    Operation { name: "rollback mutex lock, held by another", world: || contended(write) },
    Operation { name: "rollback mutex try_lock, held by another", world: || contended(try_lock) },
    Operation { name: "rollback mutex unlock, another takes it", world: snatched },
    Operation { name: "rollback mutex under a mutex", world: nested },
    Operation {
        name: "rollback mutex in a destructor",
        world: || one_lock(destructor, false, false),
    },
];

/// A lock, and what its user has said of what it does.
struct Site {
    lock: Lock,
    /// The value, as far as the victim knows: what it saw under the lock, or what it unlocked with.
    known: AtomicU64,
    /// What the victim is about to commit, or to unlock with.
    next: AtomicU64,
    other_holds: AtomicBool,
}

/// What the victim does.
type Use = fn(&'static Site);

impl Site {
    fn new() -> Self {
        Self {
            lock: Lock::new([0; 12]),
            known: AtomicU64::new(0),
            next: AtomicU64::new(0),
            other_holds: AtomicBool::new(false),
        }
    }
}

fn fill(value: &mut Value, with: u64) {
    for word in value {
        // One store each.
        *black_box(word) = with;
    }
}

/// What all words of the value are; `None` if they differ.
fn whole(value: &Value) -> Option<u64> {
    value.iter().all(|word| *word == value[0]).then_some(value[0])
}

fn write(site: &'static Site) {
    if let Ok(guard) = site.lock.lock() {
        write_through(site, guard);
    }
}

fn write_through(site: &'static Site, mut guard: Guard) {
    let now = guard[0];
    site.known.store(now, Relaxed);
    fill(&mut guard, now + 1);
    site.next.store(now + 1, Relaxed);
    drop(guard);
    site.known.store(now + 1, Relaxed);
}

fn write_twice(site: &'static Site) {
    write(site);
    write(site);
}

fn read(site: &'static Site) {
    if let Ok(guard) = site.lock.lock() {
        black_box(*guard);
    }
}

fn try_lock(site: &'static Site) {
    if let Ok(guard) = site.lock.try_lock() {
        write_through(site, guard);
    }
}

fn lock_twice(site: &'static Site) {
    let held = site.lock.lock();
    drop(site.lock.lock());
    drop(held);
}

fn commit(site: &'static Site) {
    if let Ok(mut guard) = site.lock.lock() {
        for now in 1..3 {
            fill(&mut guard, now);
            site.next.store(now, Relaxed);
            guard.commit();
            site.known.store(now, Relaxed);
        }
        fill(&mut guard, 3);
        site.next.store(3, Relaxed);
        drop(guard);
        site.known.store(3, Relaxed);
    }
}

fn roll_back(site: &'static Site) {
    if let Ok(mut guard) = site.lock.lock() {
        fill(&mut guard, 7);
        guard.roll_back();
        drop(guard);
    }
}

struct WritesWhenDropped(&'static Site);

impl Drop for WritesWhenDropped {
    fn drop(&mut self) {
        // Once: should the settlement run this again, the value shows it.
        write(self.0);
    }
}

#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
// SAFETY: one pointer, which is never reassigned.
unsafe impl DropAfterTear for WritesWhenDropped {}

fn destructor(site: &'static Site) {
    // The settlement may run the destructor of a box that was whole.
    site.next.store(1, Relaxed);
    drop(TrackedBox::<_, Hosted>::new_droppable(WritesWhenDropped(site)));
}

/// One task at its lock, and perhaps another one.
struct OneLock {
    site: &'static Site,
    operation: Use,
    /// Whether another one uses the lock for a while first: it adds 1 to the value.
    contended: bool,
    /// Whether the lock's word says which of the two the value is to be, what is known or what
    /// comes next: it does, if nothing is committed but by unlocking.
    exact: bool,
    held_at_death: bool,
    known_at_death: u64,
    next_at_death: u64,
}

fn one_lock(operation: Use, contended: bool, exact: bool) -> Box<dyn World> {
    Box::new(OneLock {
        site: leak(Site::new()),
        operation,
        contended,
        exact,
        held_at_death: false,
        known_at_death: 0,
        next_at_death: 0,
    })
}

fn alone(operation: Use) -> Box<dyn World> {
    one_lock(operation, false, true)
}

fn contended(operation: Use) -> Box<dyn World> {
    one_lock(operation, true, true)
}

impl World for OneLock {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.site, self.operation)
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let site = self.site;
        if !self.contended {
            return Vec::new();
        }
        vec![Box::new(move || {
            let mut guard = site.lock.lock().expect("it comes first");
            site.other_holds.store(true, Relaxed);
            let now = guard[0];
            for word in guard.iter_mut().take(6) {
                *black_box(word) = now + 1;
            }
            for _ in 0..3 {
                yield_now();
            }
            fill(&mut guard, now + 1);
            site.other_holds.store(false, Relaxed);
            drop(guard);
        })]
    }

    fn bystanders_run_before_settlement(&self) -> bool {
        false
    }

    fn at_death(&mut self) {
        let site = self.site;
        self.held_at_death = site.lock.is_locked() && !site.other_holds.load(Relaxed);
        (self.known_at_death, self.next_at_death) =
            (site.known.load(Relaxed), site.next.load(Relaxed));
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (site, known) = (self.site, self.known_at_death);
        audit.require(site.lock.is_locked() == site.other_holds.load(Relaxed), {
            if site.other_holds.load(Relaxed) { Findings::STOLEN } else { Findings::LEAKED }
        });
        audit.finish_bystanders();
        audit.require(!site.lock.is_locked(), Findings::LEAKED);
        let Some(found) = audit.run(|| whole(&site.lock.lock().expect("it is free"))) else {
            return;
        };
        audit.require(found.is_some(), Findings::TORN);
        let Some(found) = found else { return };
        // What the bystander has added, if the victim never saw it.
        let known = known.max(u64::from(self.contended));
        let next = known.max(self.next_at_death);
        let expected = match (self.exact, self.held_at_death) {
            (true, true) => found == known,
            (true, false) => found == next,
            (false, _) => found == known || found == next,
        };
        audit.require(expected, Findings::TORN);
        let later = audit.run(|| {
            write(site);
            whole(&site.lock.lock().expect("it is free"))
        });
        audit.require(later == Some(Some(found + 1)), Findings::TORN);
    }
}

/// Somebody else takes the lock as soon as it is free, and writes: also between the victim's death
/// and its settlement, when the victim's ledger may still list it.
struct Snatched {
    site: &'static Site,
    held_at_death: bool,
}

fn snatched() -> Box<dyn World> {
    Box::new(Snatched { site: leak(Site::new()), held_at_death: false })
}

impl World for Snatched {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let site = self.site;
        Box::new(move || {
            let mut guard = site.lock.lock().expect("it comes first");
            fill(&mut guard, 1);
            begin();
            drop(guard);
            end();
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let site = self.site;
        vec![Box::new(move || {
            // Its first turn comes before the victim has the lock.
            yield_now();
            if let Ok(mut guard) = site.lock.try_lock() {
                site.other_holds.store(true, Relaxed);
                let now = guard[0];
                fill(&mut guard, now + 10);
                yield_now();
                site.other_holds.store(false, Relaxed);
                drop(guard);
                site.next.store(10, Relaxed);
            }
        })]
    }

    fn at_death(&mut self) {
        self.held_at_death = self.site.lock.is_locked() && !self.site.other_holds.load(Relaxed);
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        audit.require(site.lock.is_locked() == site.other_holds.load(Relaxed), {
            if site.other_holds.load(Relaxed) { Findings::STOLEN } else { Findings::LEAKED }
        });
        audit.finish_bystanders();
        let found = audit.run(|| whole(&site.lock.lock().expect("it is free")));
        let victims = u64::from(!self.held_at_death);
        audit.require(found == Some(Some(victims + site.next.load(Relaxed))), Findings::TORN);
    }
}

/// Both are written under both locks; the mutex tells of a death, and the other one has the value
/// from before.
struct Nested {
    outer: &'static mutex::Lock<u64>,
    inner: &'static Site,
    held_at_death: [bool; 2],
}

fn nested() -> Box<dyn World> {
    let (outer, inner) = (leak(mutex::Lock::new(0)), leak(Site::new()));
    Box::new(Nested { outer, inner, held_at_death: [false; 2] })
}

impl World for Nested {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (outer, inner) = (self.outer, self.inner);
        Box::new(move || {
            begin();
            if let (Ok(mut outer), Ok(mut value)) = (outer.lock(), inner.lock.lock()) {
                *outer += 1;
                fill(&mut value, 1);
                // Not the order in which they were taken.
                drop(outer);
                drop(value);
                inner.known.store(1, Relaxed);
            }
            end();
        })
    }

    fn at_death(&mut self) {
        self.held_at_death = [self.outer.is_locked(), self.inner.lock.is_locked()];
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (outer, inner, [outer_held, inner_held]) = (self.outer, self.inner, self.held_at_death);
        audit.require(!outer.is_locked() && !inner.lock.is_locked(), Findings::LEAKED);
        let expected = if outer_held { Answer::OwnerDied } else { Answer::Held };
        let answer = audit.run(move || next_answer(outer, 0));
        audit.require(answer == Some(expected), Findings::UNTOLD);
        let found = audit.run(|| whole(&inner.lock.lock().expect("it is free")));
        audit.require(found.is_some_and(|found| found.is_some()), Findings::TORN);
        if inner_held {
            audit.require(found == Some(Some(0)), Findings::TORN);
        } else if inner.known.load(Relaxed) == 1 {
            audit.require(found == Some(Some(1)), Findings::TORN);
        }
    }
}
