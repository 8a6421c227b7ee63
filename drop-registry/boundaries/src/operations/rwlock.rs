//! The read-write lock, alone and with readers or a writer at it.

use std::cell::Cell;

use drop_registry::hosted::{Hosted, Machine, yield_now};
use drop_registry::{LockError, RwLock, WaitStrategy};

use super::leak;
use super::mutex::{Answer, Turns};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

type Lock<R> = RwLock<u64, Hosted, R>;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "rwlock read", world: || alone::<Turns>(read) },
    Operation {
        name: "rwlock read twice, the first ends first",
        world: || alone::<Turns>(read_twice),
    },
    Operation { name: "rwlock try_read", world: || alone::<Turns>(try_read) },
    Operation { name: "rwlock write", world: || alone::<Turns>(write) },
    Operation { name: "rwlock try_write", world: || alone::<Turns>(try_write) },
    Operation { name: "rwlock write while reading (refused)", world: || alone::<Turns>(upgrade) },
    Operation { name: "rwlock replace after a death", world: || after_a_death::<Turns>(write) },
    Operation { name: "rwlock give up after a death", world: || after_a_death::<Turns>(give_up) },
    Operation { name: "rwlock read, another writes", world: || with_writer::<Turns>(read) },
    Operation { name: "rwlock try_read, another writes", world: || with_writer::<Turns>(try_read) },
    Operation { name: "rwlock write, another writes", world: || with_writer::<Turns>(write) },
    Operation { name: "rwlock read, others read", world: || with_readers::<Turns>(read) },
    Operation { name: "rwlock write, others read", world: || with_readers::<Turns>(write) },
    Operation { name: "rwlock try_write, others read", world: || with_readers::<Turns>(try_write) },
    Operation {
        name: "rwlock read, another waits to write",
        world: || before_writer::<Turns>(read_long),
    },
];

/// A lock, and who is inside by what the tasks themselves have written down.
struct Site<R: WaitStrategy<Hosted>> {
    lock: Lock<R>,
    victim: Inside,
    others: Inside,
    /// Whether a writer was inside with anybody else.
    violated: Cell<bool>,
    /// How often somebody was told that a writer died, since the victim did.
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

impl<R: WaitStrategy<Hosted>> Site<R> {
    fn new() -> Self {
        Self {
            lock: Lock::new(0),
            victim: Inside::default(),
            others: Inside::default(),
            violated: Cell::new(false),
            told: Cell::new(0),
        }
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
        if let Ok(_guard) = self.lock.read() {
            self.inside(&who(self).readers, turns);
        }
    }

    fn writes(&self, who: Who<R>, turns: usize) {
        match self.lock.write() {
            Ok(mut guard) => {
                *guard += 1;
                self.inside(&who(self).writers, turns);
            }
            Err(LockError::OwnerDied(died)) => {
                self.told.set(self.told.get() + 1);
                drop(died.replace(0));
            }
            Err(_) => {}
        }
    }

    /// Takes the lock as the next writer would, and leaves it in good order if it can.
    fn next_answer(&self) -> Answer {
        match self.lock.write() {
            Ok(_) => Answer::Held,
            Err(LockError::OwnerDied(died)) => {
                drop(died.replace(0));
                Answer::OwnerDied
            }
            Err(LockError::NotRecoverable) => Answer::NotRecoverable,
            Err(_) => Answer::Refused,
        }
    }
}

fn read<R: WaitStrategy<Hosted>>(site: &'static Site<R>, who: Who<R>) {
    site.reads(who, 0);
}

fn read_long<R: WaitStrategy<Hosted>>(site: &'static Site<R>, who: Who<R>) {
    site.reads(who, 2);
    site.reads(who, 0);
}

fn read_twice<R: WaitStrategy<Hosted>>(site: &'static Site<R>, _: Who<R>) {
    let first = site.lock.read();
    let second = site.lock.read();
    drop(first);
    drop(second);
}

fn try_read<R: WaitStrategy<Hosted>>(site: &'static Site<R>, who: Who<R>) {
    if let Ok(_guard) = site.lock.try_read() {
        site.inside(&who(site).readers, 0);
    }
}

fn write<R: WaitStrategy<Hosted>>(site: &'static Site<R>, who: Who<R>) {
    site.writes(who, 0);
}

fn try_write<R: WaitStrategy<Hosted>>(site: &'static Site<R>, who: Who<R>) {
    if let Ok(_guard) = site.lock.try_write() {
        site.inside(&who(site).writers, 0);
    }
}

fn upgrade<R: WaitStrategy<Hosted>>(site: &'static Site<R>, _: Who<R>) {
    let reading = site.lock.read();
    drop(site.lock.write());
    drop(reading);
}

fn give_up<R: WaitStrategy<Hosted>>(site: &'static Site<R>, _: Who<R>) {
    drop(site.lock.write());
}

struct ReadWrite<R: WaitStrategy<Hosted> + 'static> {
    site: &'static Site<R>,
    operation: Use<R>,
    bystanders: &'static [Use<R>],
    /// Whether a writer had died before, and it is the victim's to put that right.
    torn_before: bool,
    /// How often somebody is to be told of the victim's death, at least and at most.
    told: (u64, u64),
}

fn world<R: WaitStrategy<Hosted> + 'static>(
    site: &'static Site<R>,
    operation: Use<R>,
    bystanders: &'static [Use<R>],
    torn_before: bool,
) -> Box<dyn World> {
    Box::new(ReadWrite { site, operation, bystanders, torn_before, told: (0, 0) })
}

fn alone<R: WaitStrategy<Hosted> + 'static>(operation: Use<R>) -> Box<dyn World> {
    world(leak(Site::new()), operation, &[], false)
}

fn after_a_death<R: WaitStrategy<Hosted> + 'static>(operation: Use<R>) -> Box<dyn World> {
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

fn with_writer<R: WaitStrategy<Hosted> + 'static>(operation: Use<R>) -> Box<dyn World> {
    world(leak(Site::new()), operation, leak([|site, who| site.writes(who, 3)]), false)
}

fn with_readers<R: WaitStrategy<Hosted> + 'static>(operation: Use<R>) -> Box<dyn World> {
    let (short, long): (Use<R>, Use<R>) =
        (|site, who| site.reads(who, 2), |site, who| site.reads(who, 4));
    world(leak(Site::new()), operation, leak([short, long]), false)
}

/// The victim reads first, and a writer comes that has to wait for it.
fn before_writer<R: WaitStrategy<Hosted> + 'static>(operation: Use<R>) -> Box<dyn World> {
    let comes_later: Use<R> = |site, who| {
        yield_now();
        site.writes(who, 1);
    };
    world(leak(Site::new()), operation, leak([comes_later]), false)
}

impl<R: WaitStrategy<Hosted> + 'static> World for ReadWrite<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation) = (self.site, self.operation);
        Box::new(move || {
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
        let (wrote, owned) = (victim.writers.get() > 0, lock.is_write_locked());
        let victims = owned && others.writers.get() == 0;
        // From the moment that it owns the lock until it says that it is inside, the victim may
        // have written or not; and as long as a death before this one is not put right, that is
        // told of.
        self.told = (u64::from(wrote), u64::from(wrote || victims || self.torn_before));
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
        audit.require(!site.lock.is_write_locked(), Findings::LEAKED);
        let answer = audit.run(|| site.next_answer());
        let later = audit.run(|| site.next_answer());
        let gone = answer == Some(Answer::NotRecoverable);
        let expected = if gone { Answer::NotRecoverable } else { Answer::Held };
        audit.require(later == Some(expected), Findings::UNTOLD);
        audit.require(!gone || self.torn_before, Findings::UNTOLD);
        let told = site.told.get() + u64::from(answer == Some(Answer::OwnerDied));
        audit.require((self.told.0..=self.told.1).contains(&told), Findings::UNTOLD);
    }
}
