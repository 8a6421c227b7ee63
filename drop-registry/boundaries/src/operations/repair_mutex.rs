//! The mutex with a routine for the keeper, which mends the value unless it dies in it itself.

use std::cell::Cell;
use std::hint::black_box;

use drop_registry::hosted::{Hosted, domain, yield_now};
use drop_registry::{LockError, MutexGuard, OwnerDied, Park, RepairMutex, settle};

use super::mutex::Turns;
use super::tasks::{NOBODY, TaskMark, me, nobody_waits, owner};
use super::{Waits, leak};
use crate::machine::machine;
use crate::operation::{Audit, Findings, Operation, World, begin, end, marked, settler_died};

/// Several words, written one by one and all equal: what is half old and half new shows.
type Value = [u64; 12];

type Lock<R> = RepairMutex<Value, Hosted, R>;
type Guard<R> = MutexGuard<'static, Value, Hosted, R>;

/// The operations of one wait strategy.
macro_rules! operations {
    ($R:ty, $lock:literal) => {
        &[
            Operation {
                name: concat!($lock, " lock, write, unlock"),
                world: || alone::<$R>(mend, write),
            },
            Operation { name: concat!($lock, " try_lock"), world: || alone::<$R>(mend, try_write) },
            Operation {
                name: concat!($lock, ", routine gives up"),
                world: || alone::<$R>(give_up, write),
            },
            Operation {
                name: concat!($lock, " lock, held by another"),
                world: || among::<$R>(Some(write), 1),
            },
            Operation {
                name: concat!($lock, " lock, held by another, others wait"),
                world: || among::<$R>(Some(write), 3),
            },
            Operation {
                name: concat!($lock, " unlock, others wait"),
                world: || among::<$R>(None, 2),
            },
            Operation {
                name: concat!($lock, ", next owner mends"),
                world: || after_a_death::<$R>(lock_repaired),
            },
            Operation {
                name: concat!($lock, ", next owner is told"),
                world: || after_a_death::<$R>(write),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Turns, "repair mutex");
pub(super) const PARKING: &[Operation] = operations!(Park, "parking repair mutex");

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

fn mend<R: Waits>(mut died: OwnerDied<Guard<R>>) -> Option<Guard<R>> {
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

fn give_up<R: Waits>(died: OwnerDied<Guard<R>>) -> Option<Guard<R>> {
    BEGUN.set(BEGUN.get() + 1);
    drop(died);
    ENDED.set(ENDED.get() + 1);
    None
}

/// What the victim does.
type Use<R> = fn(&'static Lock<R>);

fn change<R: Waits>(result: Result<Guard<R>, LockError<Guard<R>>>) {
    match result {
        Ok(mut guard) => {
            let next = guard[0] + 1;
            fill(&mut guard, next);
        }
        Err(LockError::OwnerDied(died)) => drop(died.replace([50; 12])),
        Err(_) => {}
    }
}

fn write<R: Waits>(lock: &'static Lock<R>) {
    change(lock.lock());
}

fn try_write<R: Waits>(lock: &'static Lock<R>) {
    if let Ok(mut guard) = lock.try_lock() {
        let next = guard[0] + 1;
        fill(&mut guard, next);
    }
}

fn lock_repaired<R: Waits>(lock: &'static Lock<R>) {
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

fn next_answer<R: Waits>(lock: &'static Lock<R>) -> Answer {
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

/// A lock that several tasks use, and what the others have written down themselves.
struct Site<R: Waits> {
    lock: Lock<R>,
    victim: Cell<TaskMark>,
    /// How many of the others have it: never two.
    others_inside: Cell<u64>,
    /// How many of the others were told of a death.
    told: Cell<u64>,
    /// Whether one of the others was given a value that is not whole, as good.
    torn: Cell<bool>,
}

impl<R: Waits> Site<R> {
    fn new(repair: fn(OwnerDied<Guard<R>>) -> Option<Guard<R>>) -> Self {
        Self {
            lock: Lock::new([0; 12], repair),
            victim: Cell::new(NOBODY),
            others_inside: Cell::new(0),
            told: Cell::new(0),
            torn: Cell::new(false),
        }
    }

    /// For another one: writes, with turns of the others in between.
    fn write_long(&'static self) {
        match self.lock.lock() {
            Ok(mut guard) => {
                self.others_inside.set(self.others_inside.get() + 1);
                self.torn.set(self.torn.get() || !is_whole(&guard));
                let next = guard[0] + 1;
                for _ in 0..3 {
                    yield_now();
                }
                fill(&mut guard, next);
                self.others_inside.set(self.others_inside.get() - 1);
            }
            Err(LockError::OwnerDied(died)) => {
                self.told.set(self.told.get() + 1);
                drop(died.replace([50; 12]));
            }
            Err(_) => {}
        }
    }
}

struct OneLock<R: Waits> {
    site: &'static Site<R>,
    /// If none, the victim only unlocks what it has half written, when the others have come to
    /// wait.
    operation: Option<Use<R>>,
    /// How many others there are. The first one comes first, unless the victim only unlocks.
    others: usize,
    gives_up: bool,
    /// Whether somebody died before, of whom nobody had been told.
    torn_before: bool,
    held_at_death: bool,
    /// How often the victim itself had begun and ended the routine.
    routine_at_death: [u64; 2],
}

fn one_lock<R: Waits>(site: &'static Site<R>, operation: Option<Use<R>>) -> OneLock<R> {
    OneLock {
        site,
        operation,
        others: 0,
        gives_up: false,
        torn_before: false,
        held_at_death: false,
        routine_at_death: [0; 2],
    }
}

fn alone<R: Waits>(
    routine: fn(OwnerDied<Guard<R>>) -> Option<Guard<R>>,
    operation: Use<R>,
) -> Box<dyn World> {
    let gives_up = std::ptr::fn_addr_eq(routine, give_up::<R> as fn(_) -> _);
    Box::new(OneLock { gives_up, ..one_lock(leak(Site::new(routine)), Some(operation)) })
}

fn among<R: Waits>(operation: Option<Use<R>>, others: usize) -> Box<dyn World> {
    Box::new(OneLock { others, ..one_lock(leak(Site::new(mend)), operation) })
}

/// A lock whose last owner died in the middle of a write, and to which no keeper has come yet.
fn after_a_death<R: Waits>(operation: Use<R>) -> Box<dyn World> {
    let site = leak(Site::<R>::new(mend));
    let lock = &site.lock;
    // On a thread of its own, for each has one machine, and this one's is never given up.
    let died = std::thread::spawn(move || {
        let machine = Box::leak(Box::new(machine()));
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
    Box::new(OneLock { torn_before: true, ..one_lock(site, Some(operation)) })
}

impl<R: Waits> World for OneLock<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation) = (self.site, self.operation);
        let unlock = || {
            let mut guard = site.lock.lock().expect("it comes first");
            fill(&mut guard, 1);
            yield_now();
            begin();
            drop(guard);
            end();
        };
        let work = operation.map_or_else(|| Box::new(unlock) as _, |it| marked(&site.lock, it));
        Box::new(move || {
            site.victim.set(me());
            work();
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let (site, unlocks) = (self.site, self.operation.is_none());
        let other = |n| {
            Box::new(move || {
                if n > 0 || unlocks {
                    yield_now();
                }
                site.write_long();
            }) as Box<dyn FnOnce()>
        };
        (0..self.others).map(other).collect()
    }

    fn bystanders_run_before_settlement(&self) -> bool {
        false
    }

    fn at_death(&mut self) {
        self.held_at_death = owner(&self.site.lock) == self.site.victim.get();
        self.routine_at_death = [BEGUN.get(), ENDED.get()];
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (site, [begun, ended]) = (self.site, self.routine_at_death);
        let run_by_keeper = BEGUN.get() - begun;
        let inside = site.others_inside.get();
        audit.require(inside <= 1, Findings::STOLEN);
        audit.require(site.lock.is_locked() == (inside > 0), {
            if inside > 0 { Findings::STOLEN } else { Findings::LEAKED }
        });
        audit.finish_bystanders();
        audit.require(!site.torn.get(), Findings::TORN);
        audit.require(!site.lock.is_locked() && nobody_waits(&site.lock), Findings::LEAKED);
        let Some(next) = audit.run(move || next_answer(&site.lock)) else { return };
        // The others come before the next one, and nobody is told after one of them.
        let answer = match site.told.get() {
            0 => next,
            told => {
                audit.require(told == 1 && next == Answer::Whole, Findings::UNTOLD);
                Answer::OwnerDied
            }
        };
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
        let later = audit.run(move || next_answer(&site.lock));
        let gone = answer == Answer::NotRecoverable;
        let expected = if gone { Answer::NotRecoverable } else { Answer::Whole };
        audit.require(later == Some(expected), Findings::UNTOLD);
    }

    fn state(&self) -> String {
        format!("{:?}", self.site.lock)
    }
}
