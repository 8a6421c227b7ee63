//! A mutex of ours in `lock_api`'s hands, and a spin lock in ours. (Read-write locks are in `rwlock`.)

use ::lock_api::Mutex;
use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::lock_api::{RawMutex, TrackedRawMutex, lock, lock_tracked};
use drop_registry::{LockError, OwnerDied};

use super::leak;
use super::mutex::{Answer, Turns};
use crate::operation::{Audit, Findings, Operation, World, marked};
use crate::spawn::spawn;

type Ours = Mutex<RawMutex<Hosted, Turns>, u64>;
type Tracked = Mutex<TrackedRawMutex<spin::Mutex<()>, Hosted, Turns>, u64>;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "lock_api mutex lock, unlock", world: || ours(|lock| *lock.lock() += 1) },
    Operation {
        name: "lock_api mutex try_lock, unlock",
        world: || ours(|lock| drop(lock.try_lock())),
    },
    Operation {
        name: "lock_api mutex try_lock after a death",
        world: || after_a_death(one_of_ours(|lock| drop(lock.try_lock()), false)),
    },
    Operation {
        name: "lock_api mutex lock, held by another",
        world: || ours_contended(|lock| *lock.lock() += 1),
    },
    Operation { name: "lock_api spin lock, unlock", world: || tracked(|lock| *lock.lock() += 1) },
    Operation {
        name: "lock_api spin try_lock, unlock",
        world: || tracked(|lock| drop(lock.try_lock())),
    },
    Operation {
        name: "lock_api spin recovered after a death",
        world: || after_a_death(one_tracked(|lock| _ = answer!(lock_tracked(lock)), false)),
    },
    Operation {
        name: "lock_api spin lock, held by another",
        world: || tracked_contended(|lock| *lock.lock() += 1),
    },
];

/// A lock with an operation, and how to take it with all that it may say.
struct OneLock<M: 'static> {
    lock: &'static M,
    operation: fn(&'static M),
    contended: bool,
    hold: fn(&'static M),
    is_locked: fn(&'static M) -> bool,
    try_lock: fn(&'static M) -> bool,
    next_answer: fn(&'static M) -> Answer,
    held_at_death: bool,
    /// Whether a task before the victim died with it, so that the next one may be told of that.
    died_before: bool,
}

fn ours(operation: fn(&'static Ours)) -> Box<dyn World> {
    Box::new(one_of_ours(operation, false))
}

fn ours_contended(operation: fn(&'static Ours)) -> Box<dyn World> {
    Box::new(one_of_ours(operation, true))
}

fn one_of_ours(operation: fn(&'static Ours), contended: bool) -> OneLock<Ours> {
    one_lock(operation, |one| answer!(lock(one)), contended)
}

fn tracked(operation: fn(&'static Tracked)) -> Box<dyn World> {
    Box::new(one_tracked(operation, false))
}

fn tracked_contended(operation: fn(&'static Tracked)) -> Box<dyn World> {
    Box::new(one_tracked(operation, true))
}

fn one_tracked(operation: fn(&'static Tracked), contended: bool) -> OneLock<Tracked> {
    one_lock(operation, |one| answer!(lock_tracked(one)), contended)
}

fn one_lock<R: ::lock_api::RawMutex>(
    operation: fn(&'static Mutex<R, u64>),
    next_answer: fn(&'static Mutex<R, u64>) -> Answer,
    contended: bool,
) -> OneLock<Mutex<R, u64>> {
    OneLock {
        lock: leak(Mutex::new(0)),
        operation,
        contended,
        hold: |one| {
            let held = one.lock();
            yield_now();
            drop(held);
        },
        is_locked: Mutex::is_locked,
        try_lock: |one| one.try_lock().is_some(),
        next_answer,
        held_at_death: false,
        died_before: false,
    }
}

/// What a lock says; its value is put right, if it may be torn.
macro_rules! answer {
    ($result:expr) => {
        match $result {
            Ok(_) => Answer::Held,
            Err(LockError::OwnerDied(died)) => {
                drop(OwnerDied::replace(died, 0));
                Answer::OwnerDied
            }
            Err(LockError::NotRecoverable) => Answer::NotRecoverable,
            Err(_) => Answer::Refused,
        }
    };
}
use answer;

/// The same, after the death of a task that held the lock, on another machine.
fn after_a_death<M: 'static>(mut one: OneLock<M>) -> Box<dyn World> {
    let (lock, hold) = (one.lock, one.hold);
    let mut machine = Machine::new();
    let task = spawn(&machine, Box::new(move || hold(lock)));
    assert_eq!(machine.run(task, None), Stop::Yielded);
    machine.kill(task);
    one.died_before = true;
    Box::new(one)
}

impl<M: 'static> World for OneLock<M> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.lock, self.operation)
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let (lock, hold) = (self.lock, self.hold);
        let holds = self.contended.then(|| Box::new(move || hold(lock)) as Box<dyn FnOnce()>);
        holds.into_iter().collect()
    }

    /// A lock that its dead owner has let go of halfway is the next one's; and the bystander holds
    /// it already.
    fn bystanders_run_before_settlement(&self) -> bool {
        !self.contended
    }

    fn at_death(&mut self) {
        self.held_at_death = (self.is_locked)(self.lock);
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        audit.finish_bystanders();
        let (lock, next_answer) = (self.lock, self.next_answer);
        audit.require(!(self.is_locked)(lock), Findings::LEAKED);
        if !self.held_at_death && !self.died_before {
            let try_lock = self.try_lock;
            let taken = audit.run(move || try_lock(lock));
            audit.require(taken == Some(true), Findings::STUCK);
        }
        let answer = audit.run(move || next_answer(lock));
        let told = match answer {
            Some(Answer::OwnerDied) => self.held_at_death || self.died_before,
            Some(Answer::Held) => !self.held_at_death || self.contended,
            _ => false,
        };
        audit.require(told, Findings::UNTOLD);
        // Mended, it is a lock like any other.
        let later = audit.run(move || next_answer(lock));
        audit.require(later == Some(Answer::Held), Findings::STUCK);
        audit.require(!(self.is_locked)(lock), Findings::LEAKED);
    }
}
