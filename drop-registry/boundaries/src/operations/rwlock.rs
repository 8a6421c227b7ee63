//! The read-write locks, alone and with readers or a writer at them; waiters take turns, or sleep.

use std::cell::Cell;

use drop_registry::hosted::yield_now;
use drop_registry::{LockError, OwnerDied, Park};

use super::exclusive::Answer;
use super::leak;
use super::mutex::Turns;
use super::read_write::{Foreign, Own, Raw, ReadWriteLock, Tracked, Value};
use super::tasks::{NOBODY, TaskMark, me, nobody_waits, owner, readers};
use crate::machine::{machine, spawn};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

/// The operations of one lock.
macro_rules! operations {
    ($K:ty, $lock:literal) => {
        &[
            Operation { name: concat!($lock, " read"), world: || alone::<$K>(read) },
            Operation {
                name: concat!($lock, " read twice, the first ends first"),
                world: || alone::<$K>(read_twice),
            },
            Operation { name: concat!($lock, " try_read"), world: || alone::<$K>(try_read) },
            Operation { name: concat!($lock, " write"), world: || alone::<$K>(write) },
            Operation { name: concat!($lock, " try_write"), world: || alone::<$K>(try_write) },
            Operation {
                name: concat!($lock, " write while reading (refused)"),
                world: || alone::<$K>(upgrade),
            },
            Operation {
                name: concat!($lock, " replace after a death"),
                world: || after_a_death::<$K>(write),
            },
            Operation {
                name: concat!($lock, " give up after a death"),
                world: || after_a_death::<$K>(give_up),
            },
            Operation {
                name: concat!($lock, " write after readers' deaths"),
                world: || after_readers_deaths::<$K>(Site::new(), true),
            },
            Operation {
                name: concat!($lock, " write after the deaths of readers that do not tear"),
                world: || after_readers_deaths::<$K>(Site::new_untorn(), false),
            },
            Operation {
                name: concat!($lock, " read, another writes"),
                world: || with_writer::<$K>(read),
            },
            Operation {
                name: concat!($lock, " try_read, another writes"),
                world: || with_writer::<$K>(try_read),
            },
            Operation {
                name: concat!($lock, " write, another writes"),
                world: || with_writer::<$K>(write),
            },
            Operation {
                name: concat!($lock, " read, others read"),
                world: || with_readers::<$K>(read),
            },
            Operation {
                name: concat!($lock, " write, others read"),
                world: || with_readers::<$K>(write),
            },
            Operation {
                name: concat!($lock, " try_write, others read"),
                world: || with_readers::<$K>(try_write),
            },
            Operation {
                name: concat!($lock, " read, another waits to write"),
                world: || before::<$K>(Site::new(), read_long, leak([comes_later_to_write])),
            },
            Operation {
                name: concat!($lock, " write, another waits to write"),
                world: || before::<$K>(Site::new(), write_long, leak([comes_later_to_write])),
            },
            Operation {
                name: concat!($lock, " read what readers do not tear"),
                world: || world::<$K>(leak(Site::new_untorn()), read, &[], false),
            },
            Operation {
                name: concat!($lock, " read what they do not tear, another waits to write"),
                world: || before::<$K>(Site::new_untorn(), read_long, leak([comes_later_to_write])),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Own<Turns>, "rwlock");
pub(super) const PARKING: &[Operation] = operations!(Own<Park>, "parking rwlock");
pub(super) const LOCK_API: &[Operation] = operations!(Raw<Turns>, "lock_api rwlock");
pub(super) const LOCK_API_PARKING: &[Operation] = operations!(Raw<Park>, "parking lock_api rwlock");
pub(super) const FOREIGN: &[Operation] = operations!(Tracked<Turns>, "lock_api spin rwlock");
pub(super) const FOREIGN_PARKING: &[Operation] =
    operations!(Tracked<Park>, "parking lock_api spin rwlock");

/// Those of `lock_api` have no way to tell a reader of a death: they panic.
pub(super) const READERS_WAIT: &[Operation] = &[
    Operation {
        name: "rwlock write, others wait to read and to write",
        world: before_both::<Own<Turns>>,
    },
    Operation {
        name: "parking rwlock write, others wait to read and to write",
        world: before_both::<Own<Park>>,
    },
];

/// By `lock_api`'s own way to write, which has no way to tell of a death.
pub(super) const UNTOLD: &[Operation] = &[
    Operation {
        name: "lock_api rwlock write untold",
        world: || alone::<Raw<Turns>>(|site, who| site.writes_untold(who, &mut site.lock.write())),
    },
    Operation {
        name: "parking lock_api rwlock write untold, others read",
        world: || {
            with_readers::<Raw<Park>>(|site, who| site.writes_untold(who, &mut site.lock.write()))
        },
    },
    Operation {
        name: "lock_api spin rwlock write untold, others read",
        world: || {
            with_readers::<Tracked<Turns>>(|site, who| {
                site.writes_untold(who, &mut site.lock.write());
            })
        },
    },
    Operation {
        name: "lock_api spin rwlock write untold what readers do not tear, others read",
        world: || {
            let others: &[Use<_>] = leak([|site, who| site.reads(who, 2)]);
            let write: Use<Tracked<Turns>> =
                |site, who| site.writes_untold(who, &mut site.lock.write());
            world(leak(Site::new_untorn()), write, others, false)
        },
    },
];

/// A lock, and who is inside by what the tasks themselves have written down.
struct Site<K: ReadWriteLock> {
    lock: K,
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
type Who<K> = fn(&Site<K>) -> &Inside;
/// What a task does with it.
type Use<K> = fn(&'static Site<K>, Who<K>);

impl<K: ReadWriteLock> Site<K> {
    fn new() -> Self {
        Self::around(K::free(), true)
    }

    fn new_untorn() -> Self {
        Self::around(K::free_untorn(), false)
    }

    fn around(lock: K, readers_change: bool) -> Self {
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

    fn reads(&self, who: Who<K>, turns: usize) {
        if let Some(guard) = self.lock.read() {
            self.enter(&guard);
            self.inside(&who(self).readers, turns);
        }
    }

    fn writes(&self, who: Who<K>, turns: usize) {
        match self.lock.write() {
            Ok(mut guard) => {
                self.rewrite(&mut guard);
                self.inside(&who(self).writers, turns);
            }
            Err(LockError::OwnerDied(died)) => {
                self.told.set(self.told.get() + 1);
                drop(OwnerDied::replace(died, Value::default()));
            }
            Err(_) => {}
        }
    }

    /// What a writer does that holds the lock already.
    fn writes_untold(&self, who: Who<K>, value: &mut Value) {
        self.rewrite(value);
        self.inside(&who(self).writers, 0);
    }

    /// Takes the lock as the next writer would, and leaves it in good order if it can.
    fn next_answer(&self) -> Answer {
        match self.lock.write() {
            Ok(mut guard) => {
                self.rewrite(&mut guard);
                Answer::Held
            }
            Err(LockError::OwnerDied(died)) => {
                drop(OwnerDied::replace(died, Value::default()));
                Answer::OwnerDied
            }
            Err(LockError::NotRecoverable) => Answer::NotRecoverable,
            Err(_) => Answer::Refused,
        }
    }
}

fn read<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    site.reads(who, 0);
}

fn read_long<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    site.reads(who, 2);
    site.reads(who, 0);
}

fn read_twice<K: ReadWriteLock>(site: &'static Site<K>, _: Who<K>) {
    let first = site.lock.read().expect("nobody writes");
    let second = site.lock.read().expect("nobody writes");
    site.enter(&first);
    drop(first);
    site.enter(&second);
    drop(second);
}

fn try_read<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    if let Some(guard) = site.lock.try_read() {
        site.enter(&guard);
        site.inside(&who(site).readers, 0);
    }
}

fn write<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    site.writes(who, 0);
}

fn write_long<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    site.writes(who, 2);
    site.writes(who, 0);
}

fn comes_later_to_read<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    yield_now();
    site.reads(who, 1);
}

fn comes_later_to_write<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    yield_now();
    site.writes(who, 1);
}

fn try_write<K: ReadWriteLock>(site: &'static Site<K>, who: Who<K>) {
    if let Some(mut guard) = site.lock.try_write() {
        site.rewrite(&mut guard);
        site.inside(&who(site).writers, 0);
    }
}

fn upgrade<K: ReadWriteLock>(site: &'static Site<K>, _: Who<K>) {
    let reading = site.lock.read();
    drop(site.lock.write());
    drop(reading);
}

fn give_up<K: ReadWriteLock>(site: &'static Site<K>, _: Who<K>) {
    drop(site.lock.write());
}

struct ReadWrite<K: ReadWriteLock> {
    site: &'static Site<K>,
    operation: Use<K>,
    bystanders: &'static [Use<K>],
    /// Whether a writer had died before, and it is the victim's to put that right.
    torn_before: bool,
    /// How often somebody is to be told of a death, at least and at most.
    told: (u64, u64),
    /// The victim.
    victim: &'static Cell<TaskMark>,
}

fn world<K: ReadWriteLock>(
    site: &'static Site<K>,
    operation: Use<K>,
    bystanders: &'static [Use<K>],
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

fn alone<K: ReadWriteLock>(operation: Use<K>) -> Box<dyn World> {
    world(leak(Site::new()), operation, &[], false)
}

fn after_a_death<K: ReadWriteLock>(operation: Use<K>) -> Box<dyn World> {
    let site: &'static Site<K> = leak(Site::new());
    kill(|| {
        let _held = site.lock.write();
        yield_now();
    });
    world(site, operation, &[], true)
}

fn after_readers_deaths<K: ReadWriteLock>(site: Site<K>, told: bool) -> Box<dyn World> {
    let site: &'static Site<K> = leak(site);
    for _ in 0..2 {
        kill(|| {
            let _held = site.lock.read();
            yield_now();
        });
    }
    world(site, write, &[], told)
}

/// Runs a task until it yields, and kills it there, on another machine.
fn kill(body: impl FnOnce() + 'static) {
    let mut machine = machine();
    let task = spawn(&machine, Box::new(body));
    machine.run(task, None);
    machine.kill(task);
}

fn with_writer<K: ReadWriteLock>(operation: Use<K>) -> Box<dyn World> {
    world(leak(Site::new()), operation, leak([|site, who| site.writes(who, 3)]), false)
}

fn with_readers<K: ReadWriteLock>(operation: Use<K>) -> Box<dyn World> {
    let (short, long): (Use<K>, Use<K>) =
        (|site, who| site.reads(who, 2), |site, who| site.reads(who, 4));
    world(leak(Site::new()), operation, leak([short, long]), false)
}

/// The victim is inside first, and others come that have to wait for it.
fn before<K: ReadWriteLock>(
    site: Site<K>,
    operation: Use<K>,
    later: &'static [Use<K>],
) -> Box<dyn World> {
    world(leak(site), operation, later, false)
}

fn before_both<K: ReadWriteLock>() -> Box<dyn World> {
    before::<K>(Site::new(), write_long, leak([comes_later_to_read, comes_later_to_write]))
}

impl<K: ReadWriteLock> World for ReadWrite<K> {
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
        let boxed = |task: &Use<K>| -> Box<dyn FnOnce()> {
            let task = *task;
            Box::new(move || task(site, |site| &site.others))
        };
        self.bystanders.iter().map(boxed).collect()
    }

    fn at_death(&mut self) {
        let Site { lock, victim, others, .. } = self.site;
        let (wrote, owned) = (victim.writers.get() > 0, owner(lock.words()) == self.victim.get());
        // Whoever is counted and does not say that it is inside is the victim; or one of the
        // others, if they have been stopped anywhere.
        let counted = readers(lock.words()) > others.readers.get();
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
        let words = site.lock.words();
        let (reading, writing) = (site.others.readers.get(), site.others.writers.get());
        audit.require(readers(words) >= reading, Findings::STOLEN);
        audit.require(readers(words) <= reading, Findings::LEAKED);
        if let Some(foreign) = site.lock.foreign() {
            audit.require(foreign.readers >= reading, Findings::STOLEN);
            audit.require(foreign.writers >= writing, Findings::STOLEN);
        }
        audit.finish_bystanders();
        audit.require(!site.violated.get(), Findings::STOLEN);
        audit.require(readers(words) == 0, Findings::LEAKED);
        audit.require(owner(words) == NOBODY && nobody_waits(words), Findings::LEAKED);
        let reads = audit.run(|| site.lock.try_read().is_some());
        let answer = audit.run(|| site.next_answer());
        // Readers get in wherever a writer need not be told of anything.
        audit.require(reads == Some(true) || answer != Some(Answer::Held), Findings::STUCK);
        let later = audit.run(|| site.next_answer());
        let gone = answer == Some(Answer::NotRecoverable);
        let expected = if gone { Answer::NotRecoverable } else { Answer::Held };
        audit.require(later == Some(expected), Findings::UNTOLD);
        audit.require(!gone || self.torn_before, Findings::UNTOLD);
        if let Some(foreign) = site.lock.foreign().filter(|_| !gone) {
            let below_zero = foreign.readers > u64::MAX / 8;
            audit.require(!below_zero, Findings::DOUBLED);
            let free = Foreign { readers: 0, writers: 0 };
            audit.require(below_zero || foreign == free, Findings::LEAKED);
        }
        let told = site.told.get() + u64::from(answer == Some(Answer::OwnerDied));
        audit.require((self.told.0..=self.told.1).contains(&told), Findings::UNTOLD);
        audit.require(!site.torn.get(), Findings::TORN);
    }

    fn state(&self) -> String {
        format!("{:?}", self.site.lock.words())
    }
}
