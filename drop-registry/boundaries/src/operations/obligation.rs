//! The obligation, alone, and with another one who takes the same thing on as soon as it can.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Channel, Obligation, Park, Undo};

use super::mutex::{Lock, Turns};
use super::tasks::{NOBODY, TaskMark, me};
use super::{Waits, leak};
use crate::operation::{Audit, Findings, Operation, World, begin, each_on, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "obligation new, drop", world: || owed::<Turns>(takes_on, &[]) },
    Operation {
        name: "obligation under a lock, another is next",
        world: || owed::<Turns>(takes_on_under_a_lock, &[takes_on_next, takes_on_next]),
    },
    Operation {
        name: "obligation under a parking lock, another is next",
        world: || owed::<Park>(takes_on_under_a_lock, &[takes_on_next, takes_on_next]),
    },
    Operation {
        name: "obligation sent, another is next",
        world: || owed::<Turns>(sends, &[receives]),
    },
    Operation {
        name: "obligation received, another had it",
        world: || owed::<Turns>(receives_and_drops, &[sends_first]),
    },
];

/// A flag that is raised for a while: by whoever has it, and what it holds then is their mark.
#[derive(Debug, Default)]
pub(super) struct Flag(pub(super) AtomicU64);

#[expect(unsafe_code, reason = "promises that undoing twice is undoing once")]
// SAFETY: one store.
unsafe impl Undo for Flag {
    fn undo(&self) {
        self.0.store(0, Relaxed);
    }
}

type Duty = Obligation<Flag, Hosted>;

/// The flag, what says whose turn it is to raise it, and a way from one task to another.
struct Site<R: Waits> {
    flag: Flag,
    lock: Lock<(), R>,
    channel: Channel<Duty, 1, R>,
    /// Who of the others has raised the flag, and wants it up.
    raised_by: AtomicU64,
    /// How often one of the others found that the flag was not as it had left it.
    lowered: AtomicU64,
}

/// What one of several tasks does.
type Use<R> = fn(&'static Site<R>);

impl<R: Waits> Site<R> {
    fn take_on(&'static self) -> Duty {
        Duty::new(&self.flag).expect("room in the ledger")
    }

    /// For another one, which has the duty: the flag stays up until it is met.
    fn hold(&self, duty: Duty) {
        self.flag.0.store(me(), Relaxed);
        self.raised_by.store(me(), Relaxed);
        for _ in 0..2 {
            yield_now();
            self.lowered.fetch_add(u64::from(self.flag.0.load(Relaxed) != me()), Relaxed);
        }
        self.raised_by.store(NOBODY, Relaxed);
        drop(duty);
    }
}

fn takes_on<R: Waits>(site: &'static Site<R>) {
    begin();
    let duty = site.take_on();
    site.flag.0.store(me(), Relaxed);
    drop(duty);
    end();
}

fn takes_on_under_a_lock<R: Waits>(site: &'static Site<R>) {
    begin();
    let turn = site.lock.lock();
    let duty = site.take_on();
    site.flag.0.store(me(), Relaxed);
    drop(duty);
    drop(turn);
    end();
}

/// For another one: as soon as the lock is free, if only by a death.
fn takes_on_next<R: Waits>(site: &'static Site<R>) {
    yield_now();
    // Whether somebody died with the lock or not, the flag is down, and this one's now.
    let turn = site.lock.lock();
    site.lowered.fetch_add(u64::from(site.flag.0.load(Relaxed) != NOBODY), Relaxed);
    site.hold(site.take_on());
    match turn {
        Err(drop_registry::LockError::OwnerDied(died)) => drop(died.mark_consistent()),
        turn => drop(turn),
    }
}

fn sends<R: Waits>(site: &'static Site<R>) {
    let duty = site.take_on();
    site.flag.0.store(me(), Relaxed);
    begin();
    let _ = site.channel.try_send(duty);
    end();
}

/// For another one: takes the duty over from whoever had it.
fn receives<R: Waits>(site: &'static Site<R>) {
    yield_now();
    if let Ok(duty) = site.channel.try_recv() {
        site.hold(duty);
    }
}

/// For another one, which comes first.
fn sends_first<R: Waits>(site: &'static Site<R>) {
    let duty = site.take_on();
    site.flag.0.store(me(), Relaxed);
    site.channel.try_send(duty).expect("an empty channel");
}

fn receives_and_drops<R: Waits>(site: &'static Site<R>) {
    begin();
    drop(site.channel.try_recv());
    end();
}

struct Owed<R: Waits> {
    site: &'static Site<R>,
    operation: Use<R>,
    others: &'static [Use<R>],
    sent_at_death: bool,
}

fn owed<R: Waits>(operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    let site = leak(Site {
        flag: Flag::default(),
        lock: Lock::new(()),
        channel: Channel::new(),
        raised_by: AtomicU64::new(NOBODY),
        lowered: AtomicU64::new(0),
    });
    Box::new(Owed { site, operation, others, sent_at_death: false })
}

impl<R: Waits> Owed<R> {
    fn is_up(&self) -> TaskMark {
        self.site.flag.0.load(Relaxed)
    }
}

impl<R: Waits> World for Owed<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation) = (self.site, self.operation);
        Box::new(move || operation(site))
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn at_death(&mut self) {
        self.sent_at_death = !self.site.channel.is_empty();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (site, raised_by) = (self.site, self.site.raised_by.load(Relaxed));
        if raised_by != NOBODY {
            // The settlement has met what was the victim's, and not what is another's.
            audit.require(self.is_up() == raised_by, Findings::STOLEN);
        } else if self.sent_at_death && !site.channel.is_empty() {
            audit.require(self.is_up() != NOBODY, Findings::DOUBLED);
        } else {
            audit.require(self.is_up() == NOBODY, Findings::LEAKED);
        }
        audit.finish_bystanders();
        audit.run(|| drop(site.channel.try_recv()));
        audit.require(site.lowered.load(Relaxed) == 0, Findings::STOLEN);
        audit.require(self.is_up() == NOBODY && !site.lock.is_locked(), Findings::LEAKED);
    }

    fn state(&self) -> String {
        format!("{:?} {:?}", self.site.lock, self.site.channel)
    }
}
