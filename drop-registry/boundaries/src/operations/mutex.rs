//! The mutex, alone and with somebody else at it.

use std::cell::Cell;

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{LockError, Mutex, RelaxStrategy};

use super::leak;
use crate::operation::{Audit, Findings, Operation, World, begin, end};

/// Waits by letting the other tasks of the machine run.
#[derive(Debug)]
pub(super) struct Turns;

impl RelaxStrategy for Turns {
    fn relax() {
        yield_now();
    }
}

pub(super) type Lock<T> = Mutex<T, Hosted, Turns>;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "mutex lock, write, unlock", world: || alone(lock_write_unlock) },
    Operation { name: "mutex try_lock", world: || alone(try_lock) },
    Operation { name: "mutex lock twice (refused)", world: || alone(lock_twice) },
    Operation { name: "mutex replace after a death", world: || after_a_death(replace) },
    Operation { name: "mutex mend after a death", world: || after_a_death(mend) },
    Operation { name: "mutex give up after a death", world: || after_a_death(give_up) },
    Operation { name: "mutex lock, held by another", world: || contended(lock_write_unlock) },
    Operation { name: "mutex try_lock, held by another", world: || contended(try_lock) },
    Operation { name: "mutex unlock, another takes it", world: snatched },
];

fn lock_write_unlock(lock: &'static Lock<u64>) {
    if let Ok(mut guard) = lock.lock() {
        *guard += 1;
    }
}

fn try_lock(lock: &'static Lock<u64>) {
    if let Ok(mut guard) = lock.try_lock() {
        *guard += 1;
    }
}

fn lock_twice(lock: &'static Lock<u64>) {
    let held = lock.lock();
    drop(lock.lock());
    drop(held);
}

fn replace(lock: &'static Lock<u64>) {
    if let Err(LockError::OwnerDied(died)) = lock.lock() {
        drop(died.replace(5));
    }
}

fn mend(lock: &'static Lock<u64>) {
    if let Err(LockError::OwnerDied(mut died)) = lock.lock() {
        *died.update() = 5;
        drop(died.mark_consistent());
    }
}

fn give_up(lock: &'static Lock<u64>) {
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
pub(super) fn next_answer<T>(lock: &'static Lock<T>, good: T) -> Answer {
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

/// One task and its lock.
struct Alone {
    lock: &'static Lock<u64>,
    operation: fn(&'static Lock<u64>),
    held_at_death: bool,
    /// What a lock that nobody held answers.
    when_free: fn(Answer) -> bool,
}

fn alone(operation: fn(&'static Lock<u64>)) -> Box<dyn World> {
    Box::new(Alone {
        lock: leak(Lock::new(0)),
        operation,
        held_at_death: false,
        when_free: |answer| answer == Answer::Held,
    })
}

impl World for Alone {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (lock, operation) = (self.lock, self.operation);
        Box::new(move || {
            begin();
            operation(lock);
            end();
        })
    }

    fn at_death(&mut self) {
        self.held_at_death = self.lock.is_locked();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let lock = self.lock;
        audit.require(!lock.is_locked(), Findings::LEAKED);
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

/// A lock whose last owner died: killed on another machine, whose tasks are never heard of again.
fn after_a_death(operation: fn(&'static Lock<u64>)) -> Box<dyn World> {
    let lock: &'static Lock<u64> = leak(Lock::new(0));
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

/// Somebody else holds the lock for a while.
struct Contended {
    lock: &'static Lock<u64>,
    operation: fn(&'static Lock<u64>),
    other_holds: &'static Cell<bool>,
    held_at_death: bool,
}

fn contended(operation: fn(&'static Lock<u64>)) -> Box<dyn World> {
    Box::new(Contended {
        lock: leak(Lock::new(0)),
        operation,
        other_holds: leak(Cell::new(false)),
        held_at_death: false,
    })
}

impl World for Contended {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (lock, operation) = (self.lock, self.operation);
        Box::new(move || {
            begin();
            operation(lock);
            end();
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let (lock, holds) = (self.lock, self.other_holds);
        vec![Box::new(move || {
            let guard = lock.lock();
            holds.set(true);
            for _ in 0..3 {
                yield_now();
            }
            holds.set(false);
            drop(guard);
        })]
    }

    fn bystanders_run_before_settlement(&self) -> bool {
        false
    }

    fn at_death(&mut self) {
        self.held_at_death = self.lock.is_locked() && !self.other_holds.get();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let lock = self.lock;
        audit.require(lock.is_locked() == self.other_holds.get(), {
            if self.other_holds.get() { Findings::STOLEN } else { Findings::LEAKED }
        });
        audit.finish_bystanders();
        let expected = if self.held_at_death { Answer::OwnerDied } else { Answer::Held };
        let answer = audit.run(move || next_answer(lock, 0));
        audit.require(answer == Some(expected), Findings::UNTOLD);
    }
}

/// Somebody else takes the lock as soon as it is free: also between the victim's death and its
/// settlement, when the victim's ledger may still list it.
struct Snatched {
    lock: &'static Lock<u64>,
    other_holds: &'static Cell<bool>,
}

fn snatched() -> Box<dyn World> {
    Box::new(Snatched { lock: leak(Lock::new(0)), other_holds: leak(Cell::new(false)) })
}

impl World for Snatched {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let lock = self.lock;
        Box::new(move || {
            let guard = lock.lock();
            begin();
            drop(guard);
            end();
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let (lock, holds) = (self.lock, self.other_holds);
        vec![Box::new(move || {
            // Its first turn comes before the victim has the lock.
            yield_now();
            if let Ok(guard) = lock.try_lock() {
                holds.set(true);
                yield_now();
                holds.set(false);
                drop(guard);
            }
        })]
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let lock = self.lock;
        if self.other_holds.get() {
            audit.require(lock.is_locked(), Findings::STOLEN);
        } else {
            audit.require(!lock.is_locked(), Findings::LEAKED);
        }
        audit.finish_bystanders();
        let answer = audit.run(move || next_answer(lock, 0));
        audit.require(answer.is_some_and(|answer| answer != Answer::Refused), Findings::STUCK);
    }
}

/// Kills a task that holds the lock.
fn kill_holder(lock: &'static Lock<u64>) {
    let mut machine = drop_registry::hosted::Machine::new();
    let task = machine.spawn(move || {
        let _held = lock.lock();
        yield_now();
    });
    machine.run(task, None);
    machine.kill(task);
}
