//! The mutex with a routine for the keeper, which mends the value unless it dies in it itself.

use std::cell::Cell;
use std::hint::black_box;

use drop_registry::hosted::{Hosted, Machine, domain, yield_now};
use drop_registry::{LockError, MutexGuard, OwnerDied, RepairMutex, settle};

use super::leak;
use super::mutex::Turns;
use crate::operation::{Audit, Findings, Operation, World, marked, settler_died};

/// Several words, written one by one and all equal: what is half old and half new shows.
type Value = [u64; 12];

type Lock = RepairMutex<Value, Hosted, Turns>;
type Guard = MutexGuard<'static, Value, Hosted, Turns>;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "repair mutex lock, write, unlock", world: || alone(mend, write) },
    Operation { name: "repair mutex try_lock", world: || alone(mend, try_write) },
    Operation { name: "repair mutex, routine gives up", world: || alone(give_up, write) },
    Operation { name: "repair mutex lock, held by another", world: contended },
    Operation { name: "repair mutex, next owner mends", world: || after_a_death(lock_repaired) },
    Operation { name: "repair mutex, next owner is told", world: || after_a_death(write) },
];

thread_local! {
    /// How often the routine was begun, and how often it came to its end.
    static BEGUN: Cell<u64> = const { Cell::new(0) };
    static ENDED: Cell<u64> = const { Cell::new(0) };
}

fn fill(value: &mut Value, with: u64) {
    for word in value {
        // One store each.
        *black_box(word) = with;
    }
}

fn is_whole(value: &Value) -> bool {
    value.iter().all(|word| *word == value[0])
}

fn mend(mut died: OwnerDied<Guard>) -> Option<Guard> {
    BEGUN.set(BEGUN.get() + 1);
    let value = died.update();
    let first = value[0];
    // Torn on the way, should this die.
    value[1] = first + 100;
    fill(value, first);
    let guard = died.mark_consistent();
    ENDED.set(ENDED.get() + 1);
    Some(guard)
}

fn give_up(died: OwnerDied<Guard>) -> Option<Guard> {
    BEGUN.set(BEGUN.get() + 1);
    drop(died);
    ENDED.set(ENDED.get() + 1);
    None
}

/// What the victim does.
type Use = fn(&'static Lock);

fn change(result: Result<Guard, LockError<Guard>>) {
    match result {
        Ok(mut guard) => {
            let next = guard[0] + 1;
            fill(&mut guard, next);
        }
        Err(LockError::OwnerDied(died)) => drop(died.replace([50; 12])),
        Err(_) => {}
    }
}

fn write(lock: &'static Lock) {
    change(lock.lock());
}

fn try_write(lock: &'static Lock) {
    if let Ok(mut guard) = lock.try_lock() {
        let next = guard[0] + 1;
        fill(&mut guard, next);
    }
}

fn lock_repaired(lock: &'static Lock) {
    change(lock.lock_repaired());
}

/// What the lock answers to the next owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Whole,
    Torn,
    OwnerDied,
    NotRecoverable,
    Refused,
}

fn next_answer(lock: &'static Lock) -> Answer {
    match lock.lock() {
        Ok(guard) if is_whole(&guard) => Answer::Whole,
        Ok(_) => Answer::Torn,
        Err(LockError::OwnerDied(died)) => {
            drop(died.replace([0; 12]));
            Answer::OwnerDied
        }
        Err(LockError::NotRecoverable) => Answer::NotRecoverable,
        Err(_) => Answer::Refused,
    }
}

struct OneLock {
    lock: &'static Lock,
    operation: Use,
    gives_up: bool,
    /// Whether somebody died before, of whom nobody had been told.
    torn_before: bool,
    contended: bool,
    other_holds: &'static Cell<bool>,
    held_at_death: bool,
    /// How often the victim itself had begun and ended the routine.
    routine_at_death: [u64; 2],
}

fn one_lock(lock: &'static Lock, operation: Use) -> OneLock {
    OneLock {
        lock,
        operation,
        gives_up: false,
        torn_before: false,
        contended: false,
        other_holds: leak(Cell::new(false)),
        held_at_death: false,
        routine_at_death: [0; 2],
    }
}

fn alone(routine: fn(OwnerDied<Guard>) -> Option<Guard>, operation: Use) -> Box<dyn World> {
    let gives_up = std::ptr::fn_addr_eq(routine, give_up as fn(_) -> _);
    Box::new(OneLock { gives_up, ..one_lock(leak(Lock::new([0; 12], routine)), operation) })
}

fn contended() -> Box<dyn World> {
    Box::new(OneLock { contended: true, ..one_lock(leak(Lock::new([0; 12], mend)), write) })
}

/// A lock whose last owner died in the middle of a write, and to which no keeper has come yet.
fn after_a_death(operation: Use) -> Box<dyn World> {
    let lock: &'static Lock = leak(Lock::new([0; 12], mend));
    // On a thread of its own, for each has one machine, and this one's is never given up.
    let died = std::thread::spawn(move || {
        let machine = Box::leak(Box::new(Machine::new()));
        let task = machine.spawn(move || {
            let mut guard = lock.lock().expect("it is free");
            *black_box(&mut guard[0]) = 7;
            yield_now();
        });
        machine.run(task, None);
        let (frozen, ledger) = machine.frozen(task);
        #[expect(unsafe_code, reason = "settles, and leaves the rest to be done")]
        // SAFETY: the task is never run again, and its lock is static.
        unsafe {
            settle(&frozen, ledger, &domain(), |_| ());
        }
    });
    died.join().expect("it settles");
    Box::new(OneLock { torn_before: true, ..one_lock(lock, operation) })
}

impl World for OneLock {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.lock, self.operation)
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let (lock, holds) = (self.lock, self.other_holds);
        if !self.contended {
            return Vec::new();
        }
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
        self.routine_at_death = [BEGUN.get(), ENDED.get()];
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (lock, [begun, ended]) = (self.lock, self.routine_at_death);
        let run_by_keeper = BEGUN.get() - begun;
        audit.require(lock.is_locked() == self.other_holds.get(), {
            if self.other_holds.get() { Findings::STOLEN } else { Findings::LEAKED }
        });
        audit.finish_bystanders();
        let Some(answer) = audit.run(move || next_answer(lock)) else { return };
        audit.require(answer != Answer::Torn, Findings::TORN);
        let mended = if self.gives_up { Answer::NotRecoverable } else { Answer::Whole };
        // What may be answered, after how many runs of the routine by a keeper.
        let (mut allowed, died) = (Vec::new(), Answer::OwnerDied);
        match self.held_at_death {
            // The victim had died in the routine, which nobody runs again.
            true if begun > ended => allowed.push((died, 0)),
            true => allowed.push((mended, 1)),
            false => allowed.push((Answer::Whole, 0)),
        }
        if self.held_at_death && settler_died() {
            // In the routine, too, perhaps, or right before it.
            allowed.extend([(died, 0), (died, 1)]);
        }
        if self.torn_before {
            // Nobody had come to it yet, or the victim stood right before the routine or after it.
            allowed.push((died, 0));
        }
        audit.require(allowed.iter().any(|(it, _)| *it == answer), Findings::UNTOLD);
        audit.require(allowed.contains(&(answer, run_by_keeper)), Findings::DOUBLED);
        let later = audit.run(move || next_answer(lock));
        let gone = answer == Answer::NotRecoverable;
        let expected = if gone { Answer::NotRecoverable } else { Answer::Whole };
        audit.require(later == Some(expected), Findings::UNTOLD);
    }
}
