//! The read-write lock, alone and with readers or a writer at it; its waiters take turns, or sleep.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, Machine, yield_now};
use drop_registry::{LockError, Park, RwLock, UntornByReaders};

use super::mutex::{Answer, Turns};
use super::tasks::{TaskMark, me, nobody_waits, owner};
use super::{Waits, leak};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

type Lock<R> = RwLock<Value, Hosted, R>;

/// Two words that are equal, but for somebody who is between changing the one and the other: readers
/// do so too, unless the lock is made for a value that they do not tear.
#[derive(Default)]
struct Value([AtomicU64; 2]);

#[expect(unsafe_code, reason = "promises that readers do not tear a value")]
// SAFETY: those of a lock that is made so do not change it: see `Site::enter`.
unsafe impl UntornByReaders for Value {}

impl Value {
    fn change(&self) {
        for word in &self.0 {
            word.fetch_add(1, Relaxed);
        }
    }

    fn is_whole(&self) -> bool {
        self.0[0].load(Relaxed) == self.0[1].load(Relaxed)
    }
}

/// The operations of one wait strategy.
macro_rules! operations {
    ($R:ty, $lock:literal) => {
        &[
            Operation { name: concat!($lock, " read"), world: || alone::<$R>(read) },
            Operation {
                name: concat!($lock, " read twice, the first ends first"),
                world: || alone::<$R>(read_twice),
            },
            Operation { name: concat!($lock, " try_read"), world: || alone::<$R>(try_read) },
            Operation { name: concat!($lock, " write"), world: || alone::<$R>(write) },
            Operation { name: concat!($lock, " try_write"), world: || alone::<$R>(try_write) },
            Operation {
                name: concat!($lock, " write while reading (refused)"),
                world: || alone::<$R>(upgrade),
            },
            Operation {
                name: concat!($lock, " replace after a death"),
                world: || after_a_death::<$R>(write),
            },
            Operation {
                name: concat!($lock, " give up after a death"),
                world: || after_a_death::<$R>(give_up),
            },
            Operation {
                name: concat!($lock, " read, another writes"),
                world: || with_writer::<$R>(read),
            },
            Operation {
                name: concat!($lock, " try_read, another writes"),
                world: || with_writer::<$R>(try_read),
            },
            Operation {
                name: concat!($lock, " write, another writes"),
                world: || with_writer::<$R>(write),
            },
            Operation {
                name: concat!($lock, " read, others read"),
                world: || with_readers::<$R>(read),
            },
            Operation {
                name: concat!($lock, " write, others read"),
                world: || with_readers::<$R>(write),
            },
            Operation {
                name: concat!($lock, " try_write, others read"),
                world: || with_readers::<$R>(try_write),
            },
            Operation {
                name: concat!($lock, " read, another waits to write"),
                world: || before_writer::<$R>(Site::new(), read_long),
            },
            Operation {
                name: concat!($lock, " read what readers do not tear"),
                world: || world::<$R>(leak(Site::new_untorn()), read, &[], false),
            },
            Operation {
                name: concat!($lock, " read what they do not tear, another waits to write"),
                world: || before_writer::<$R>(Site::new_untorn(), read_long),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Turns, "rwlock");
pub(super) const PARKING: &[Operation] = operations!(Park, "parking rwlock");

/// A lock, and who is inside by what the tasks themselves have written down.
struct Site<R: Waits> {
    lock: Lock<R>,
    /// Whether readers change the value, and their deaths are told of.
    readers_change: bool,
    victim: Inside,
    others: Inside,
    /// Whether a writer was inside with anybody else.
    violated: Cell<bool>,
    /// Whether a value was handed out to be changed that was not whole.
    torn: Cell<bool>,
    /// How often somebody was told of a death, since the victim's.
    told: Cell<u64>,
}

#[derive(Default)]
struct Inside {
    readers: Cell<u64>,
    writers: Cell<u64>,
}

/// Who uses the lock.
type Who<R> = fn(&Site<R>) -> &Inside;
/// What a task does with it.
type Use<R> = fn(&'static Site<R>, Who<R>);

impl<R: Waits> Site<R> {
    fn new() -> Self {
        Self::around(Lock::new(Value::default()), true)
    }

    fn new_untorn() -> Self {
        Self::around(Lock::new_untorn(Value::default()), false)
    }

    fn around(lock: Lock<R>, readers_change: bool) -> Self {
        Self {
            lock,
            readers_change,
            victim: Inside::default(),
            others: Inside::default(),
            violated: Cell::new(false),
            torn: Cell::new(false),
            told: Cell::new(0),
        }
    }

    /// What a reader does with the value.
    fn enter(&self, value: &Value) {
        if self.readers_change {
            value.change();
        }
    }

    /// What a writer does with a value that it got as a whole one.
    fn rewrite(&self, value: &mut Value) {
        if !value.is_whole() {
            self.torn.set(true);
        }
        value.change();
    }

    /// Goes in and out again, with `turns` of the others in between.
    fn inside(&self, count: &Cell<u64>, turns: usize) {
        count.set(count.get() + 1);
        self.look();
        for _ in 0..turns {
            yield_now();
            self.look();
        }
        count.set(count.get() - 1);
    }

    fn look(&self) {
        let readers = self.victim.readers.get() + self.others.readers.get();
        let writers = self.victim.writers.get() + self.others.writers.get();
        if writers > 1 || writers == 1 && readers > 0 {
            self.violated.set(true);
        }
    }

    fn reads(&self, who: Who<R>, turns: usize) {
        if let Ok(guard) = self.lock.read() {
            self.enter(&guard);
            self.inside(&who(self).readers, turns);
        }
    }

    fn writes(&self, who: Who<R>, turns: usize) {
        match self.lock.write() {
            Ok(mut guard) => {
                self.rewrite(&mut guard);
                self.inside(&who(self).writers, turns);
            }
            Err(LockError::OwnerDied(died)) => {
                self.told.set(self.told.get() + 1);
                drop(died.replace(Value::default()));
            }
            Err(_) => {}
        }
    }

    /// Takes the lock as the next writer would, and leaves it in good order if it can.
    fn next_answer(&self) -> Answer {
        match self.lock.write() {
            Ok(mut guard) => {
                self.rewrite(&mut guard);
                Answer::Held
            }
            Err(LockError::OwnerDied(died)) => {
                drop(died.replace(Value::default()));
                Answer::OwnerDied
            }
            Err(LockError::NotRecoverable) => Answer::NotRecoverable,
            Err(_) => Answer::Refused,
        }
    }
}

fn read<R: Waits>(site: &'static Site<R>, who: Who<R>) {
    site.reads(who, 0);
}

fn read_long<R: Waits>(site: &'static Site<R>, who: Who<R>) {
    site.reads(who, 2);
    site.reads(who, 0);
}

fn read_twice<R: Waits>(site: &'static Site<R>, _: Who<R>) {
    let first = site.lock.read().expect("nobody writes");
    let second = site.lock.read().expect("nobody writes");
    site.enter(&first);
    drop(first);
    site.enter(&second);
    drop(second);
}

fn try_read<R: Waits>(site: &'static Site<R>, who: Who<R>) {
    if let Ok(guard) = site.lock.try_read() {
        site.enter(&guard);
        site.inside(&who(site).readers, 0);
    }
}

fn write<R: Waits>(site: &'static Site<R>, who: Who<R>) {
    site.writes(who, 0);
}

fn try_write<R: Waits>(site: &'static Site<R>, who: Who<R>) {
    if let Ok(mut guard) = site.lock.try_write() {
        site.rewrite(&mut guard);
        site.inside(&who(site).writers, 0);
    }
}

fn upgrade<R: Waits>(site: &'static Site<R>, _: Who<R>) {
    let reading = site.lock.read();
    drop(site.lock.write());
    drop(reading);
}

fn give_up<R: Waits>(site: &'static Site<R>, _: Who<R>) {
    drop(site.lock.write());
}

struct ReadWrite<R: Waits> {
    site: &'static Site<R>,
    operation: Use<R>,
    bystanders: &'static [Use<R>],
    /// Whether a writer had died before, and it is the victim's to put that right.
    torn_before: bool,
    /// How often somebody is to be told of a death, at least and at most.
    told: (u64, u64),
    /// The victim.
    victim: &'static Cell<TaskMark>,
}

fn world<R: Waits>(
    site: &'static Site<R>,
    operation: Use<R>,
    bystanders: &'static [Use<R>],
    torn_before: bool,
) -> Box<dyn World> {
    Box::new(ReadWrite {
        site,
        operation,
        bystanders,
        torn_before,
        told: (0, u64::from(torn_before)),
        victim: leak(Cell::default()),
    })
}

fn alone<R: Waits>(operation: Use<R>) -> Box<dyn World> {
    world(leak(Site::new()), operation, &[], false)
}

fn after_a_death<R: Waits>(operation: Use<R>) -> Box<dyn World> {
    let site: &'static Site<R> = leak(Site::new());
    let mut machine = Machine::new();
    let task = machine.spawn(move || {
        let _held = site.lock.write();
        yield_now();
    });
    machine.run(task, None);
    machine.kill(task);
    drop(machine);
    world(site, operation, &[], true)
}

fn with_writer<R: Waits>(operation: Use<R>) -> Box<dyn World> {
    world(leak(Site::new()), operation, leak([|site, who| site.writes(who, 3)]), false)
}

fn with_readers<R: Waits>(operation: Use<R>) -> Box<dyn World> {
    let (short, long): (Use<R>, Use<R>) =
        (|site, who| site.reads(who, 2), |site, who| site.reads(who, 4));
    world(leak(Site::new()), operation, leak([short, long]), false)
}

/// The victim reads first, and a writer comes that has to wait for it.
fn before_writer<R: Waits>(site: Site<R>, operation: Use<R>) -> Box<dyn World> {
    let comes_later: Use<R> = |site, who| {
        yield_now();
        site.writes(who, 1);
    };
    world(leak(site), operation, leak([comes_later]), false)
}

impl<R: Waits> World for ReadWrite<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation, victim) = (self.site, self.operation, self.victim);
        Box::new(move || {
            victim.set(me());
            begin();
            operation(site, |site| &site.victim);
            end();
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let site = self.site;
        let boxed = |task: &Use<R>| -> Box<dyn FnOnce()> {
            let task = *task;
            Box::new(move || task(site, |site| &site.others))
        };
        self.bystanders.iter().map(boxed).collect()
    }

    fn at_death(&mut self) {
        let Site { lock, victim, others, .. } = self.site;
        let (wrote, owned) = (victim.writers.get() > 0, owner(lock) == self.victim.get());
        // Whoever is counted and does not say that it is inside is the victim; or one of the others,
        // if they have been stopped anywhere.
        let counted = lock.reader_count() > others.readers.get();
        let reads = victim.readers.get() > 0 || counted && self.bystanders.is_empty();
        // From the moment that it owns the lock until it says that it is inside, the victim may
        // have written or not; and as long as a death before this one is not put right, that is
        // told of. A reader may have changed something from the moment that it is counted.
        let tells = self.site.readers_change;
        let at_least = wrote || tells && reads;
        let at_most = at_least || owned || self.torn_before || tells && counted;
        self.told = (u64::from(at_least), u64::from(at_most));
        victim.readers.set(0);
        victim.writers.set(0);
        self.site.told.set(0);
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        let inside = site.others.readers.get();
        audit.require(site.lock.reader_count() >= inside, Findings::STOLEN);
        audit.require(site.lock.reader_count() <= inside, Findings::LEAKED);
        audit.finish_bystanders();
        audit.require(!site.violated.get(), Findings::STOLEN);
        audit.require(site.lock.reader_count() == 0, Findings::LEAKED);
        audit.require(!site.lock.is_write_locked() && nobody_waits(&site.lock), Findings::LEAKED);
        let answer = audit.run(|| site.next_answer());
        let later = audit.run(|| site.next_answer());
        let gone = answer == Some(Answer::NotRecoverable);
        let expected = if gone { Answer::NotRecoverable } else { Answer::Held };
        audit.require(later == Some(expected), Findings::UNTOLD);
        audit.require(!gone || self.torn_before, Findings::UNTOLD);
        let told = site.told.get() + u64::from(answer == Some(Answer::OwnerDied));
        audit.require((self.told.0..=self.told.1).contains(&told), Findings::UNTOLD);
        audit.require(!site.torn.get(), Findings::TORN);
    }

    fn state(&self) -> String {
        format!("{:?}", self.site.lock)
    }
}
