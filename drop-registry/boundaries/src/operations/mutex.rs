//! The mutexes, alone and with others at them; waiters take turns, or sleep.

use std::cell::Cell;

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{LockError, Mutex, OwnerDied, Park, RelaxStrategy};

use super::exclusive::{Answer, ExclusiveLock, Own, Raw, Tracked, next_answer};
use super::leak;
use super::tasks::{NOBODY, TaskMark, me, nobody_waits, owner};
use crate::machine::{machine, spawn};
use crate::operation::{Audit, Companion, Findings, Operation, World, begin, each_on, end};

/// Waits by letting the other tasks of the machine run.
#[derive(Debug)]
pub(super) struct Turns;

impl RelaxStrategy for Turns {
    fn relax() {
        yield_now();
    }
}

pub(super) type Lock<T, R = Turns> = Mutex<T, Hosted, R>;

/// The operations of one mutex.
macro_rules! operations {
    ($K:ty, $lock:literal) => {
        &[
            Operation {
                name: concat!($lock, " lock, write, unlock"),
                world: || alone::<$K>(lock_write_unlock),
            },
            Operation { name: concat!($lock, " try_lock"), world: || alone::<$K>(try_lock) },
            Operation {
                name: concat!($lock, " lock twice (refused)"),
                world: || alone::<$K>(lock_twice),
            },
            Operation {
                name: concat!($lock, " replace after a death"),
                world: || after_a_death::<$K>(replace, Answer::Held),
            },
            Operation {
                name: concat!($lock, " mend after a death"),
                world: || after_a_death::<$K>(mend, Answer::Held),
            },
            Operation {
                name: concat!($lock, " give up after a death"),
                world: || after_a_death::<$K>(give_up, Answer::NotRecoverable),
            },
            Operation {
                name: concat!($lock, " try_lock after a death"),
                world: || after_a_death::<$K>(try_lock, <$K>::TRIED_AFTER_A_DEATH),
            },
            Operation {
                name: concat!($lock, " lock, held by another"),
                world: || among::<$K>(locks, &[holds]),
            },
            Operation {
                name: concat!($lock, " lock, held by another, others wait"),
                world: || among::<$K>(locks, &[holds, waits, waits]),
            },
            Operation {
                name: concat!($lock, " lock, its holder dies first"),
                world: || among_the_dying::<$K>(Companion::First, &[dies, waits]),
            },
            Operation {
                name: concat!($lock, " lock, its holder dies next"),
                world: || among_the_dying::<$K>(Companion::Last, &[dies, waits]),
            },
            Operation {
                name: concat!($lock, " try_lock, held by another"),
                world: || among::<$K>(tries, &[holds]),
            },
            Operation {
                name: concat!($lock, " unlock, another takes it"),
                world: || among::<$K>(unlocks, &[snatches]),
            },
            Operation {
                name: concat!($lock, " unlock, others wait"),
                world: || among::<$K>(unlocks, &[comes_later, comes_later]),
            },
            Operation {
                name: concat!($lock, " give up, others wait"),
                world: || torn_among::<$K>(&[comes_later, comes_later]),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Own<Turns>, "mutex");
pub(super) const PARKING: &[Operation] = operations!(Own<Park>, "parking mutex");
pub(super) const LOCK_API: &[Operation] = operations!(Raw<Turns>, "lock_api mutex");
pub(super) const LOCK_API_PARKING: &[Operation] = operations!(Raw<Park>, "parking lock_api mutex");
pub(super) const FOREIGN: &[Operation] = operations!(Tracked<Turns>, "lock_api spin mutex");
pub(super) const FOREIGN_PARKING: &[Operation] =
    operations!(Tracked<Park>, "parking lock_api spin mutex");

/// By `lock_api`'s own way to lock, which has no way to tell of a death.
pub(super) const UNTOLD: &[Operation] = &[
    Operation {
        name: "lock_api mutex lock untold",
        world: || alone::<Raw<Turns>>(|lock| *lock.lock() += 1),
    },
    Operation {
        name: "lock_api mutex lock untold, held by another",
        world: || among::<Raw<Park>>(locks_untold, &[holds]),
    },
    Operation {
        name: "lock_api spin mutex lock untold",
        world: || alone::<Tracked<Turns>>(|lock| *lock.lock() += 1),
    },
];

fn lock_write_unlock<K: ExclusiveLock>(lock: &K) {
    if let Ok(mut guard) = lock.lock() {
        *guard += 1;
    }
}

fn try_lock<K: ExclusiveLock>(lock: &K) {
    if let Some(mut guard) = lock.try_lock() {
        *guard += 1;
    }
}

fn lock_twice<K: ExclusiveLock>(lock: &K) {
    let held = lock.lock();
    drop(lock.lock());
    drop(held);
}

fn replace<K: ExclusiveLock>(lock: &K) {
    if let Err(LockError::OwnerDied(died)) = lock.lock() {
        drop(OwnerDied::replace(died, 5));
    }
}

fn mend<K: ExclusiveLock>(lock: &K) {
    if let Err(LockError::OwnerDied(mut died)) = lock.lock() {
        *died.update() = 5;
        drop(died.mark_consistent());
    }
}

fn give_up<K: ExclusiveLock>(lock: &K) {
    drop(lock.lock());
}

/// Kills a task that holds the lock, on another machine, whose tasks are never heard of again.
fn kill_holder<K: ExclusiveLock>(lock: &'static K) {
    let mut machine = machine();
    let hold = move || {
        let _held = lock.lock();
        yield_now();
    };
    let task = spawn(&machine, Box::new(hold));
    machine.run(task, None);
    machine.kill(task);
}

/// One task and its lock.
struct Alone<K: ExclusiveLock> {
    lock: &'static K,
    operation: fn(&K),
    /// Whether the operation is over.
    done: &'static Cell<bool>,
    held_at_death: bool,
    /// What the lock answers if nobody holds it, before the operation and after it.
    when_free: (Answer, Answer),
}

fn alone_with<K: ExclusiveLock>(
    lock: &'static K,
    operation: fn(&K),
    when_free: (Answer, Answer),
) -> Box<dyn World> {
    let done = leak(Cell::new(false));
    Box::new(Alone { lock, operation, done, held_at_death: false, when_free })
}

pub(super) fn alone<K: ExclusiveLock>(operation: fn(&K)) -> Box<dyn World> {
    alone_with(leak(K::free()), operation, (Answer::Held, Answer::Held))
}

/// A lock whose last owner died, and what it answers after the operation.
fn after_a_death<K: ExclusiveLock>(operation: fn(&K), afterwards: Answer) -> Box<dyn World> {
    let lock: &'static K = leak(K::free());
    kill_holder(lock);
    alone_with(lock, operation, (Answer::OwnerDied, afterwards))
}

impl<K: ExclusiveLock> World for Alone<K> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (lock, operation, done) = (self.lock, self.operation, self.done);
        Box::new(move || {
            begin();
            operation(lock);
            done.set(true);
            end();
        })
    }

    fn at_death(&mut self) {
        self.held_at_death = self.lock.is_locked();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let lock = self.lock;
        audit.require(!lock.is_locked() && nobody_waits(lock.word()), Findings::LEAKED);
        let foreign_before = lock.is_foreign_locked();
        let Some(answer) = audit.run(move || next_answer(lock)) else { return };
        require_foreign_as_ours(foreign_before, answer, audit);
        let (before, afterwards) = self.when_free;
        let expected = match (self.held_at_death, self.done.get()) {
            (true, _) => answer == Answer::OwnerDied,
            (false, true) => answer == afterwards,
            (false, false) => answer == before || answer == afterwards,
        };
        audit.require(expected, Findings::UNTOLD);
        let later = audit.run(move || next_answer(lock));
        let gone = answer == Answer::NotRecoverable;
        let expected = if gone { Answer::NotRecoverable } else { Answer::Held };
        audit.require(later == Some(expected), Findings::UNTOLD);
        audit.require(gone || lock.is_foreign_locked() != Some(true), Findings::LEAKED);
    }
}

/// Requires that a foreign lock was free, if ours was, and without a death.
fn require_foreign_as_ours(locked: Option<bool>, answer: Answer, audit: &mut Audit<'_>) {
    audit.require(answer != Answer::Held || locked != Some(true), Findings::LEAKED);
}

/// A lock that several tasks use, and what they have written down themselves.
struct Site<K: ExclusiveLock> {
    lock: K,
    /// Who is inside.
    inside: Cell<TaskMark>,
    /// Whether two were inside at the same time.
    violated: Cell<bool>,
    /// How often somebody was told of a death.
    told: Cell<u64>,
    /// Who dies with the victim.
    companion: Cell<TaskMark>,
}

/// What one of several tasks does.
type Use<K> = fn(&Site<K>);

impl<K: ExclusiveLock> Site<K> {
    fn new() -> Self {
        Self {
            lock: K::free(),
            inside: Cell::default(),
            violated: Cell::new(false),
            told: Cell::new(0),
            companion: Cell::new(NOBODY),
        }
    }

    /// Goes in and out again, with `turns` of the others in between.
    fn inside(&self, turns: usize) {
        let alone = self.inside.replace(me()) == NOBODY;
        (0..turns).for_each(|_| yield_now());
        let still_alone = self.inside.replace(NOBODY) == me();
        self.violated.set(self.violated.get() || !alone || !still_alone);
    }

    fn locks(&self, turns: usize) {
        match self.lock.lock() {
            Ok(mut guard) => {
                *guard += 1;
                self.inside(turns);
            }
            Err(LockError::OwnerDied(died)) => {
                self.told.set(self.told.get() + 1);
                drop(OwnerDied::replace(died, 0));
            }
            Err(_) => {}
        }
    }
}

fn locks<K: ExclusiveLock>(site: &Site<K>) {
    begin();
    site.locks(0);
    end();
}

/// By `lock_api`'s own way.
fn locks_untold(site: &Site<Raw<Park>>) {
    begin();
    let mut guard = site.lock.lock();
    *guard += 1;
    site.inside(0);
    drop(guard);
    end();
}

fn tries<K: ExclusiveLock>(site: &Site<K>) {
    begin();
    if let Some(_guard) = site.lock.try_lock() {
        site.inside(0);
    }
    end();
}

fn unlocks<K: ExclusiveLock>(site: &Site<K>) {
    let guard = site.lock.lock();
    yield_now();
    begin();
    drop(guard);
    end();
}

fn holds<K: ExclusiveLock>(site: &Site<K>) {
    site.locks(3);
}

/// Holds it, and dies with the victim.
fn dies<K: ExclusiveLock>(site: &Site<K>) {
    site.companion.set(me());
    site.locks(3);
}

fn waits<K: ExclusiveLock>(site: &Site<K>) {
    site.locks(1);
}

/// Comes when the victim has the lock.
fn comes_later<K: ExclusiveLock>(site: &Site<K>) {
    yield_now();
    site.locks(1);
}

/// Takes the lock if it is free when its third turn comes: that is between the victim's death and
/// its settlement, when the victim's ledger may still list it.
fn snatches<K: ExclusiveLock>(site: &Site<K>) {
    yield_now();
    yield_now();
    if let Some(_guard) = site.lock.try_lock() {
        site.inside(1);
    }
}

/// Gives up a value that a death before has torn.
fn gives_up<K: ExclusiveLock>(site: &Site<K>) {
    let torn = site.lock.lock();
    yield_now();
    begin();
    drop(torn);
    end();
}

struct Among<K: ExclusiveLock> {
    site: &'static Site<K>,
    operation: Use<K>,
    others: &'static [Use<K>],
    /// Whether the value is given up by it.
    gives_up: bool,
    companion: Option<Companion>,
    victim: &'static Cell<TaskMark>,
    /// Whether whoever died owned it.
    owned_at_death: bool,
}

fn of<K: ExclusiveLock>(operation: Use<K>, others: &'static [Use<K>]) -> Among<K> {
    Among {
        site: leak(Site::new()),
        operation,
        others,
        gives_up: false,
        companion: None,
        victim: leak(Cell::default()),
        owned_at_death: false,
    }
}

fn among<K: ExclusiveLock>(operation: Use<K>, others: &'static [Use<K>]) -> Box<dyn World> {
    Box::new(of(operation, others))
}

fn among_the_dying<K: ExclusiveLock>(
    companion: Companion,
    others: &'static [Use<K>],
) -> Box<dyn World> {
    Box::new(Among { companion: Some(companion), ..of(locks, others) })
}

fn torn_among<K: ExclusiveLock>(others: &'static [Use<K>]) -> Box<dyn World> {
    let among = Among { gives_up: true, ..of(gives_up, others) };
    kill_holder(&among.site.lock);
    Box::new(among)
}

impl<K: ExclusiveLock> Among<K> {
    fn note_death_of(&mut self, task: TaskMark) {
        self.owned_at_death |= owner(self.site.lock.word()) == task;
        if self.site.inside.get() == task {
            self.site.inside.set(NOBODY);
        }
    }
}

impl<K: ExclusiveLock> World for Among<K> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation, victim) = (self.site, self.operation, self.victim);
        Box::new(move || {
            victim.set(me());
            operation(site);
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn companion(&self) -> Option<Companion> {
        self.companion
    }

    fn at_companion_death(&mut self) {
        self.note_death_of(self.site.companion.get());
    }

    fn at_death(&mut self) {
        self.note_death_of(self.victim.get());
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        let (inside, owner) = (site.inside.get(), owner(site.lock.word()));
        audit.require(inside == NOBODY || inside == owner, Findings::STOLEN);
        audit.require(inside != NOBODY || owner == NOBODY, Findings::LEAKED);
        audit.require(
            inside == NOBODY || site.lock.is_foreign_locked() != Some(false),
            Findings::STOLEN,
        );
        audit.finish_bystanders();
        audit.require(!site.violated.get(), Findings::STOLEN);
        audit.require(!site.lock.is_locked() && nobody_waits(site.lock.word()), Findings::LEAKED);
        let foreign_before = site.lock.is_foreign_locked();
        let Some(answer) = audit.run(|| next_answer(&site.lock)) else { return };
        require_foreign_as_ours(foreign_before, answer, audit);
        let gone = self.gives_up && !self.owned_at_death;
        audit.require((answer == Answer::NotRecoverable) == gone, Findings::UNTOLD);
        let told = site.told.get() + u64::from(answer == Answer::OwnerDied);
        audit.require(told == u64::from(self.owned_at_death), Findings::UNTOLD);
        audit.require(gone || site.lock.is_foreign_locked() != Some(true), Findings::LEAKED);
    }

    fn state(&self) -> String {
        format!("{:?}", self.site.lock.word())
    }
}
