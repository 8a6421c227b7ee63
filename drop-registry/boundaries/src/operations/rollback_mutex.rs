//! The mutex whose value a death puts back, alone, with somebody else at it, and inside others.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{DropAfterTear, Park, RollbackGuard, RollbackMutex, TrackedBox};

use super::exclusive::{Answer, next_answer};
use super::mutex::{self, Turns};
use super::tasks::{NOBODY, me, nobody_waits, owner};
use super::{Waits, leak};
use crate::operation::{Audit, Findings, Operation, World, begin, each_on, end, marked};

/// Several words, written one by one, so that a value that is half old and half new shows.
type Value = [u64; 12];

type Lock<R> = RollbackMutex<Value, Hosted, R>;
type Guard<R> = RollbackGuard<'static, Value, Hosted, R>;

/// The operations of one wait strategy.
macro_rules! operations {
    ($R:ty, $lock:literal) => {
        &[
            Operation {
                name: concat!($lock, " lock, write, unlock"),
                world: || alone::<$R>(write),
            },
            Operation { name: concat!($lock, " lock, read, unlock"), world: || alone::<$R>(read) },
            Operation { name: concat!($lock, " try_lock"), world: || alone::<$R>(try_lock) },
            Operation {
                name: concat!($lock, " lock twice (refused)"),
                world: || alone::<$R>(lock_twice),
            },
            Operation {
                name: concat!($lock, " commit half-way"),
                world: || one_lock::<$R>(Some(commit), &[], false),
            },
            Operation {
                name: concat!($lock, " roll back by hand"),
                world: || alone::<$R>(roll_back),
            },
            Operation { name: concat!($lock, " write twice"), world: || alone::<$R>(write_twice) },
            Operation {
                name: concat!($lock, " lock, held by another"),
                world: || contended::<$R>(write, &[writes_long]),
            },
            Operation {
                name: concat!($lock, " lock, held by another, others wait"),
                world: || contended::<$R>(write, &[writes_long, writes_later, writes_later]),
            },
            Operation {
                name: concat!($lock, " try_lock, held by another"),
                world: || contended::<$R>(try_lock, &[writes_long]),
            },
            Operation {
                name: concat!($lock, " unlock, others wait"),
                world: || one_lock::<$R>(None, &[writes_later, writes_later], true),
            },
            Operation {
                name: concat!($lock, " unlock, another takes it"),
                world: || snatched::<$R>(),
            },
            Operation { name: concat!($lock, " under a mutex"), world: || nested::<$R>() },
            Operation {
                name: concat!($lock, " in a destructor"),
                world: || one_lock::<$R>(Some(destructor), &[], false),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Turns, "rollback mutex");
pub(super) const PARKING: &[Operation] = operations!(Park, "parking rollback mutex");

/// A lock, and what its user has said of what it does.
struct Site<R: Waits> {
    lock: Lock<R>,
    /// The value, as far as the victim knows: what it saw under the lock, or what it unlocked with.
    known: AtomicU64,
    /// What the victim is about to commit, or to unlock with.
    next: AtomicU64,
    /// How many of the others have the lock: never two.
    others_inside: AtomicU64,
    victim: AtomicU64,
}

/// What the victim does.
type Use<R> = fn(&'static Site<R>);

impl<R: Waits> Site<R> {
    fn new() -> Self {
        Self {
            lock: Lock::new([0; 12]),
            known: AtomicU64::new(0),
            next: AtomicU64::new(0),
            others_inside: AtomicU64::new(0),
            victim: AtomicU64::new(NOBODY),
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

fn write<R: Waits>(site: &'static Site<R>) {
    if let Ok(guard) = site.lock.lock() {
        write_through(site, guard);
    }
}

fn write_through<R: Waits>(site: &'static Site<R>, mut guard: Guard<R>) {
    let now = guard[0];
    site.known.store(now, Relaxed);
    fill(&mut guard, now + 1);
    site.next.store(now + 1, Relaxed);
    drop(guard);
    site.known.store(now + 1, Relaxed);
}

fn write_twice<R: Waits>(site: &'static Site<R>) {
    write(site);
    write(site);
}

fn read<R: Waits>(site: &'static Site<R>) {
    if let Ok(guard) = site.lock.lock() {
        black_box(*guard);
    }
}

fn try_lock<R: Waits>(site: &'static Site<R>) {
    if let Ok(guard) = site.lock.try_lock() {
        write_through(site, guard);
    }
}

fn lock_twice<R: Waits>(site: &'static Site<R>) {
    let held = site.lock.lock();
    drop(site.lock.lock());
    drop(held);
}

fn commit<R: Waits>(site: &'static Site<R>) {
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

fn roll_back<R: Waits>(site: &'static Site<R>) {
    if let Ok(mut guard) = site.lock.lock() {
        fill(&mut guard, 7);
        guard.roll_back();
        drop(guard);
    }
}

struct WritesWhenDropped<R: Waits>(&'static Site<R>);

impl<R: Waits> Drop for WritesWhenDropped<R> {
    fn drop(&mut self) {
        // Once: should the settlement run this again, the value shows it.
        write(self.0);
    }
}

#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
// SAFETY: one pointer, which is never reassigned.
unsafe impl<R: Waits> DropAfterTear for WritesWhenDropped<R> {}

fn destructor<R: Waits>(site: &'static Site<R>) {
    // The settlement may run the destructor of a box that was whole.
    site.next.store(1, Relaxed);
    drop(TrackedBox::<_, Hosted>::new_droppable(WritesWhenDropped(site)));
}

/// Unlocks what it has written when others have come to wait.
fn unlocks<R: Waits>(site: &'static Site<R>) {
    if let Ok(mut guard) = site.lock.lock() {
        fill(&mut guard, 1);
        site.next.store(1, Relaxed);
        yield_now();
        begin();
        drop(guard);
        end();
        site.known.store(1, Relaxed);
    }
}

/// For another one: adds 1, and takes a while.
fn writes_long<R: Waits>(site: &'static Site<R>) {
    let mut guard = site.lock.lock().expect("nobody is told of a death");
    site.others_inside.fetch_add(1, Relaxed);
    let now = guard[0];
    for word in guard.iter_mut().take(6) {
        *black_box(word) = now + 1;
    }
    for _ in 0..3 {
        yield_now();
    }
    fill(&mut guard, now + 1);
    site.others_inside.fetch_sub(1, Relaxed);
    drop(guard);
}

/// The same, by one who comes later.
fn writes_later<R: Waits>(site: &'static Site<R>) {
    yield_now();
    writes_long(site);
}

/// One task at its lock, and perhaps others, each of which adds 1 to the value.
struct OneLock<R: Waits> {
    site: &'static Site<R>,
    /// If none, it only unlocks.
    operation: Option<Use<R>>,
    others: &'static [Use<R>],
    /// Whether the lock's word says which of the two the value is to be, what is known or what
    /// comes next: it does, if nothing is committed but by unlocking.
    exact: bool,
    held_at_death: bool,
    known_at_death: u64,
    next_at_death: u64,
}
fn one_lock<R: Waits>(
    operation: Option<Use<R>>,
    others: &'static [Use<R>],
    exact: bool,
) -> Box<dyn World> {
    Box::new(OneLock {
        site: leak(Site::new()),
        operation,
        others,
        exact,
        held_at_death: false,
        known_at_death: 0,
        next_at_death: 0,
    })
}

fn alone<R: Waits>(operation: Use<R>) -> Box<dyn World> {
    one_lock(Some(operation), &[], true)
}

fn contended<R: Waits>(operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    one_lock(Some(operation), others, true)
}

impl<R: Waits> Site<R> {
    /// Requires that the lock is with one of the others, or free, as these say themselves.
    fn require_in_order(&self, audit: &mut Audit<'_>) {
        let inside = self.others_inside.load(Relaxed);
        audit.require(inside <= 1, Findings::STOLEN);
        audit.require(self.lock.is_locked() == (inside > 0), {
            if inside > 0 { Findings::STOLEN } else { Findings::LEAKED }
        });
    }

    fn is_held_by_victim(&self) -> bool {
        owner(&self.lock) == self.victim.load(Relaxed)
    }
}

impl<R: Waits> World for OneLock<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation) = (self.site, self.operation);
        let work = operation.map_or_else(|| Box::new(|| unlocks(site)) as _, |it| marked(site, it));
        Box::new(move || {
            site.victim.store(me(), Relaxed);
            work();
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn bystanders_run_before_settlement(&self) -> bool {
        false
    }

    fn at_death(&mut self) {
        let site = self.site;
        self.held_at_death = site.is_held_by_victim();
        (self.known_at_death, self.next_at_death) =
            (site.known.load(Relaxed), site.next.load(Relaxed));
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (site, others) = (self.site, self.others.len() as u64);
        site.require_in_order(audit);
        audit.finish_bystanders();
        audit.require(!site.lock.is_locked() && nobody_waits(&site.lock), Findings::LEAKED);
        let Some(found) = audit.run(|| whole(&site.lock.lock().expect("it is free"))) else {
            return;
        };
        audit.require(found.is_some(), Findings::TORN);
        let Some(found) = found else { return };
        let (held, known) = (self.held_at_death, self.known_at_death);
        let next = known.max(self.next_at_death);
        let expected = match (self.exact, held) {
            // The victim has added 1, or nothing.
            _ if others > 0 => found == others + u64::from(!held && next > 0),
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

    fn state(&self) -> String {
        format!("{:?}", self.site.lock)
    }
}

/// Somebody else takes the lock as soon as it is free, and writes: also between the victim's death
/// and its settlement, when the victim's ledger may still list it.
struct Snatched<R: Waits> {
    site: &'static Site<R>,
    held_at_death: bool,
}

fn snatched<R: Waits>() -> Box<dyn World> {
    Box::new(Snatched { site: leak(Site::<R>::new()), held_at_death: false })
}

impl<R: Waits> World for Snatched<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let site = self.site;
        Box::new(move || {
            site.victim.store(me(), Relaxed);
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
                site.others_inside.fetch_add(1, Relaxed);
                let now = guard[0];
                fill(&mut guard, now + 10);
                yield_now();
                site.others_inside.fetch_sub(1, Relaxed);
                drop(guard);
                site.next.store(10, Relaxed);
            }
        })]
    }

    fn at_death(&mut self) {
        self.held_at_death = self.site.is_held_by_victim();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        site.require_in_order(audit);
        audit.finish_bystanders();
        let found = audit.run(|| whole(&site.lock.lock().expect("it is free")));
        let victims = u64::from(!self.held_at_death);
        audit.require(found == Some(Some(victims + site.next.load(Relaxed))), Findings::TORN);
    }
}

/// Both are written under both locks; the mutex tells of a death, and the other one has the value
/// from before.
struct Nested<R: Waits> {
    outer: &'static mutex::Lock<u64, R>,
    inner: &'static Site<R>,
    held_at_death: [bool; 2],
}

fn nested<R: Waits>() -> Box<dyn World> {
    let (outer, inner) = (leak(mutex::Lock::<_, R>::new(0)), leak(Site::new()));
    Box::new(Nested { outer, inner, held_at_death: [false; 2] })
}

impl<R: Waits> World for Nested<R> {
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
        let answer = audit.run(move || next_answer(outer));
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
