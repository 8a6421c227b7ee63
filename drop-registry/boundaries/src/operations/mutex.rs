//! The mutex, alone and with others at it; its waiters take turns, or sleep.

use std::cell::Cell;

use drop_registry::hosted::{Hosted, Machine, yield_now};
use drop_registry::{LockError, Mutex, Park, RelaxStrategy};

use super::tasks::{NOBODY, TaskMark, me, nobody_waits, owner};
use super::{Waits, leak};
use crate::operation::{Audit, Companion, Findings, Operation, World, begin, each_on, end, marked};

/// Waits by letting the other tasks of the machine run.
#[derive(Debug)]
pub(super) struct Turns;

impl RelaxStrategy for Turns {
    fn relax() {
        yield_now();
    }
}

pub(super) type Lock<T, R = Turns> = Mutex<T, Hosted, R>;

/// The operations of one wait strategy.
macro_rules! operations {
    ($R:ty, $lock:literal) => {
        &[
            Operation {
                name: concat!($lock, " lock, write, unlock"),
                world: || alone::<$R>(lock_write_unlock),
            },
            Operation { name: concat!($lock, " try_lock"), world: || alone::<$R>(try_lock) },
            Operation {
                name: concat!($lock, " lock twice (refused)"),
                world: || alone::<$R>(lock_twice),
            },
            Operation {
                name: concat!($lock, " replace after a death"),
                world: || after_a_death::<$R>(replace),
            },
            Operation {
                name: concat!($lock, " mend after a death"),
                world: || after_a_death::<$R>(mend),
            },
            Operation {
                name: concat!($lock, " give up after a death"),
                world: || after_a_death::<$R>(give_up),
            },
            Operation {
                name: concat!($lock, " lock, held by another"),
                world: || among::<$R>(locks, &[holds]),
            },
            Operation {
                name: concat!($lock, " lock, held by another, others wait"),
                world: || among::<$R>(locks, &[holds, waits, waits]),
            },
            Operation {
                name: concat!($lock, " lock, its holder dies first"),
                world: || among_the_dying::<$R>(Companion::First, &[dies, waits]),
            },
            Operation {
                name: concat!($lock, " lock, its holder dies next"),
                world: || among_the_dying::<$R>(Companion::Last, &[dies, waits]),
            },
            Operation {
                name: concat!($lock, " try_lock, held by another"),
                world: || among::<$R>(tries, &[holds]),
            },
            Operation {
                name: concat!($lock, " unlock, another takes it"),
                world: || among::<$R>(unlocks, &[snatches]),
            },
            Operation {
                name: concat!($lock, " unlock, others wait"),
                world: || among::<$R>(unlocks, &[comes_later, comes_later]),
            },
            Operation {
                name: concat!($lock, " give up, others wait"),
                world: || torn_among::<$R>(&[comes_later, comes_later]),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Turns, "mutex");
pub(super) const PARKING: &[Operation] = operations!(Park, "parking mutex");

fn lock_write_unlock<R: Waits>(lock: &Lock<u64, R>) {
    if let Ok(mut guard) = lock.lock() {
        *guard += 1;
    }
}

fn try_lock<R: Waits>(lock: &Lock<u64, R>) {
    if let Ok(mut guard) = lock.try_lock() {
        *guard += 1;
    }
}

fn lock_twice<R: Waits>(lock: &Lock<u64, R>) {
    let held = lock.lock();
    drop(lock.lock());
    drop(held);
}

fn replace<R: Waits>(lock: &Lock<u64, R>) {
    if let Err(LockError::OwnerDied(died)) = lock.lock() {
        drop(died.replace(5));
    }
}

fn mend<R: Waits>(lock: &Lock<u64, R>) {
    if let Err(LockError::OwnerDied(mut died)) = lock.lock() {
        *died.update() = 5;
        drop(died.mark_consistent());
    }
}

fn give_up<R: Waits>(lock: &Lock<u64, R>) {
    drop(lock.lock());
}

/// What a lock answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is held, as usual.
    Held,
    /// It is held, and its last owner died.
    OwnerDied,
    /// It is given up.
    NotRecoverable,
    /// Something else.
    Refused,
}

/// Takes the lock as the next owner would, and leaves it in good order if it can.
pub(super) fn next_answer<T, R: Waits>(lock: &Lock<T, R>, good: T) -> Answer {
    match lock.lock() {
        Ok(_) => Answer::Held,
        Err(LockError::OwnerDied(died)) => {
            drop(died.replace(good));
            Answer::OwnerDied
        }
        Err(LockError::NotRecoverable) => Answer::NotRecoverable,
        Err(_) => Answer::Refused,
    }
}

/// Kills a task that holds the lock, on another machine, whose tasks are never heard of again.
fn kill_holder<R: Waits>(lock: &'static Lock<u64, R>) {
    let mut machine = Machine::new();
    let task = machine.spawn(move || {
        let _held = lock.lock();
        yield_now();
    });
    machine.run(task, None);
    machine.kill(task);
}

/// One task and its lock.
struct Alone<R: Waits> {
    lock: &'static Lock<u64, R>,
    operation: fn(&Lock<u64, R>),
    held_at_death: bool,
    /// What a lock that nobody held answers.
    when_free: fn(Answer) -> bool,
}

fn alone<R: Waits>(operation: fn(&Lock<u64, R>)) -> Box<dyn World> {
    Box::new(Alone {
        lock: leak(Lock::new(0)),
        operation,
        held_at_death: false,
        when_free: |answer| answer == Answer::Held,
    })
}

fn after_a_death<R: Waits>(operation: fn(&Lock<u64, R>)) -> Box<dyn World> {
    let lock: &'static Lock<u64, R> = leak(Lock::new(0));
    kill_holder(lock);
    Box::new(Alone {
        lock,
        operation,
        held_at_death: false,
        // Before the operation has the lock: not told yet. After it: mended, or given up.
        when_free: |answer| {
            matches!(answer, Answer::OwnerDied | Answer::Held | Answer::NotRecoverable)
        },
    })
}

impl<R: Waits> World for Alone<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.lock, self.operation)
    }

    fn at_death(&mut self) {
        self.held_at_death = self.lock.is_locked();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let lock = self.lock;
        audit.require(!lock.is_locked() && nobody_waits(lock), Findings::LEAKED);
        let Some(answer) = audit.run(move || next_answer(lock, 0)) else { return };
        if self.held_at_death {
            audit.require(answer == Answer::OwnerDied, Findings::UNTOLD);
        } else {
            audit.require((self.when_free)(answer), Findings::UNTOLD);
        }
        let later = audit.run(move || next_answer(lock, 0));
        let gone = answer == Answer::NotRecoverable;
        let expected = if gone { Answer::NotRecoverable } else { Answer::Held };
        audit.require(later == Some(expected), Findings::UNTOLD);
    }
}

/// A lock that several tasks use, and what they have written down themselves.
struct Site<R: Waits> {
    lock: Lock<u64, R>,
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
type Use<R> = fn(&Site<R>);

impl<R: Waits> Site<R> {
    fn new() -> Self {
        Self {
            lock: Lock::new(0),
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
                drop(died.replace(0));
            }
            Err(_) => {}
        }
    }
}

fn locks<R: Waits>(site: &Site<R>) {
    begin();
    site.locks(0);
    end();
}

fn tries<R: Waits>(site: &Site<R>) {
    begin();
    if let Ok(_guard) = site.lock.try_lock() {
        site.inside(0);
    }
    end();
}

fn unlocks<R: Waits>(site: &Site<R>) {
    let guard = site.lock.lock();
    yield_now();
    begin();
    drop(guard);
    end();
}

fn holds<R: Waits>(site: &Site<R>) {
    site.locks(3);
}

/// Holds it, and dies with the victim.
fn dies<R: Waits>(site: &Site<R>) {
    site.companion.set(me());
    site.locks(3);
}

fn waits<R: Waits>(site: &Site<R>) {
    site.locks(1);
}

/// Comes when the victim has the lock.
fn comes_later<R: Waits>(site: &Site<R>) {
    yield_now();
    site.locks(1);
}

/// Takes the lock if it is free when its third turn comes: that is between the victim's death and
/// its settlement, when the victim's ledger may still list it.
fn snatches<R: Waits>(site: &Site<R>) {
    yield_now();
    yield_now();
    if let Ok(_guard) = site.lock.try_lock() {
        site.inside(1);
    }
}

/// Gives up a value that a death before has torn.
fn gives_up<R: Waits>(site: &Site<R>) {
    let torn = site.lock.lock();
    yield_now();
    begin();
    drop(torn);
    end();
}

struct Among<R: Waits> {
    site: &'static Site<R>,
    operation: Use<R>,
    others: &'static [Use<R>],
    /// Whether the value is given up by it.
    gives_up: bool,
    companion: Option<Companion>,
    victim: &'static Cell<TaskMark>,
    /// Whether whoever died owned it.
    owned_at_death: bool,
}

fn of<R: Waits>(operation: Use<R>, others: &'static [Use<R>]) -> Among<R> {
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

fn among<R: Waits>(operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(of(operation, others))
}

fn among_the_dying<R: Waits>(companion: Companion, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(Among { companion: Some(companion), ..of(locks, others) })
}

fn torn_among<R: Waits>(others: &'static [Use<R>]) -> Box<dyn World> {
    let among = Among { gives_up: true, ..of(gives_up, others) };
    kill_holder(&among.site.lock);
    Box::new(among)
}

impl<R: Waits> Among<R> {
    fn note_death_of(&mut self, task: TaskMark) {
        self.owned_at_death |= owner(&self.site.lock) == task;
        if self.site.inside.get() == task {
            self.site.inside.set(NOBODY);
        }
    }
}

impl<R: Waits> World for Among<R> {
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
        let (inside, owner) = (site.inside.get(), owner(&site.lock));
        audit.require(inside == NOBODY || inside == owner, Findings::STOLEN);
        audit.require(inside != NOBODY || owner == NOBODY, Findings::LEAKED);
        audit.finish_bystanders();
        audit.require(!site.violated.get(), Findings::STOLEN);
        audit.require(!site.lock.is_locked() && nobody_waits(&site.lock), Findings::LEAKED);
        let answer = audit.run(|| next_answer(&site.lock, 0));
        let gone = self.gives_up && !self.owned_at_death;
        audit.require((answer == Some(Answer::NotRecoverable)) == gone, Findings::UNTOLD);
        let told = site.told.get() + u64::from(answer == Some(Answer::OwnerDied));
        audit.require(told == u64::from(self.owned_at_death), Findings::UNTOLD);
    }

    fn state(&self) -> String {
        format!("{:?}", self.site.lock)
    }
}
