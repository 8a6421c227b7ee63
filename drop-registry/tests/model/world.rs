//! The resources, and the model: what each task has said that it holds, and which deaths are to be
//! told.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{
    Channel, Condvar, CurrentLedger, DropAfterTear, LockError, Mutex, Once, Park, RelaxStrategy,
    RepairMutex, RollbackMutex, RwLock, Semaphore, Shared, Slot, TryLockError, Undo,
};

use crate::program::{MUTEXES, SLOTS};

pub(crate) const TASKS: usize = 4;
pub(crate) const PERMITS: u64 = 2;
/// How many shares the channel has room for.
pub(crate) const CAPACITY: usize = 2;
/// How many values can be shared in one run.
pub(crate) const SHARED: usize = 16;

/// Waits by letting the other tasks run.
#[derive(Debug)]
pub(crate) struct Turns;

impl RelaxStrategy for Turns {
    fn relax() {
        yield_now();
    }
}

/// What the locks protect: 0, or the number of who is changing it, from 1. So a value that is not
/// 0 under a new guard was torn, or somebody else is at it.
pub(crate) type Value = u64;

/// A value on the heap that counts its drops.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) &'static AtomicU64);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

// SAFETY: one pointer, never reassigned.
unsafe impl DropAfterTear for Counted {}

/// How often the values of boxes were dropped, and those of shares. (Several tasks count, and any
/// of them may stop between two instructions: so each count is one.)
#[derive(Debug, Default)]
pub(crate) struct Drops {
    pub(crate) of_boxes: AtomicU64,
    /// By value: the first is the one that the first slot begins with.
    pub(crate) of_shared: [AtomicU64; SHARED],
}

thread_local! {
    static DROPS: &'static Drops = Box::leak(Box::default());
}

/// An obligation: to put the flag down.
pub(crate) struct Flag(pub(crate) AtomicBool);

// SAFETY: one store, however often.
unsafe impl Undo for Flag {
    fn undo(&self) {
        self.0.store(false, Relaxed);
    }
}

/// What the model knows of one lock's deaths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nobody is to be told.
    Nothing,
    /// The next owner is to be told.
    Death,
    /// A task died between taking the lock for writing and writing, or before it had said that it
    /// reads: told or not is as good.
    Either,
}

pub(crate) struct World {
    pub(crate) spinning: [Mutex<Value, Hosted, Turns>; MUTEXES - 1],
    pub(crate) sleeping: Mutex<Value, Hosted, Park>,
    pub(crate) rwlock: RwLock<Value, Hosted, Turns>,
    pub(crate) accounts: RollbackMutex<[u64; 2], Hosted, Turns>,
    pub(crate) mended: RepairMutex<[u64; 2], Hosted, Park>,
    pub(crate) once: Once<Value, Hosted, Park>,
    pub(crate) jobs: Mutex<u64, Hosted, Park>,
    pub(crate) posted: Condvar<Hosted>,
    pub(crate) permits: Semaphore<Hosted>,
    pub(crate) channel: Channel<Shared<Counted, Hosted>, CAPACITY, Park>,
    pub(crate) slots: [Slot<Shared<Counted, Hosted>>; SLOTS],
    pub(crate) flags: [Flag; TASKS],
    /// How often values were dropped; outlives the world, whose slots drop one.
    pub(crate) drops: &'static Drops,

    // From here on it is the model.
    /// By lock: the mutexes, then the read-write lock.
    pub(crate) told: [Cell<Told>; MUTEXES + 1],
    /// The same of the read-write lock's readers, of whose deaths the next writer alone is told.
    pub(crate) told_of_reader: Cell<Told>,
    /// Which tasks read, and which write.
    pub(crate) reading: [Cell<bool>; TASKS],
    pub(crate) writing: [Cell<bool>; TASKS],
    pub(crate) permits_held: [Cell<u64>; TASKS],
    pub(crate) transfers_begun: AtomicU64,
    pub(crate) transfers_done: AtomicU64,
    pub(crate) posts_begun: AtomicU64,
    pub(crate) posts_done: AtomicU64,
    pub(crate) takes_begun: AtomicU64,
    pub(crate) takes_done: AtomicU64,
    /// Which tasks wait for a job, or have one without having said so.
    pub(crate) taking: [Cell<bool>; TASKS],
    pub(crate) boxes_begun: AtomicU64,
    pub(crate) shared_begun: AtomicU64,
    /// What was made once, as far as somebody has seen it.
    pub(crate) made: Cell<Option<Value>>,
    violation: Cell<Option<&'static str>>,
}

impl World {
    pub(crate) fn new() -> Self {
        DROPS.with(|drops| {
            drops.of_boxes.store(0, Relaxed);
            drops.of_shared.iter().for_each(|drops| drops.store(0, Relaxed));
        });
        Self {
            spinning: [const { Mutex::new(0) }; MUTEXES - 1],
            sleeping: Mutex::new(0),
            rwlock: RwLock::new(0),
            accounts: RollbackMutex::new([0, 0]),
            mended: RepairMutex::new([0, 0], |mut died| {
                let sums = died.update();
                sums[1] = sums[0];
                Some(died.mark_consistent())
            }),
            once: Once::new(),
            jobs: Mutex::new(0),
            posted: Condvar::new(),
            permits: Semaphore::new(PERMITS),
            channel: Channel::new(),
            slots: [const { Slot::new() }; SLOTS],
            flags: [const { Flag(AtomicBool::new(false)) }; TASKS],
            drops: DROPS.with(|drops| *drops),
            told: [const { Cell::new(Told::Nothing) }; MUTEXES + 1],
            told_of_reader: Cell::new(Told::Nothing),
            reading: [const { Cell::new(false) }; TASKS],
            writing: [const { Cell::new(false) }; TASKS],
            permits_held: [const { Cell::new(0) }; TASKS],
            transfers_begun: AtomicU64::new(0),
            transfers_done: AtomicU64::new(0),
            posts_begun: AtomicU64::new(0),
            posts_done: AtomicU64::new(0),
            takes_begun: AtomicU64::new(0),
            takes_done: AtomicU64::new(0),
            taking: [const { Cell::new(false) }; TASKS],
            boxes_begun: AtomicU64::new(0),
            shared_begun: AtomicU64::new(1),
            made: Cell::new(None),
            violation: Cell::new(None),
        }
    }

    /// Notes that the model does not allow this, unless `holds`.
    pub(crate) fn require(&self, holds: bool, otherwise: &'static str) {
        if !holds && self.violation.get().is_none() {
            self.violation.set(Some(otherwise));
        }
    }

    /// What the next task to have this lock for itself is to be told.
    pub(crate) fn told_to_owner(&self, lock: usize) -> Told {
        match (self.told[lock].get(), self.told_of_reader.get()) {
            (told, _) if lock < MUTEXES => told,
            (Told::Death, _) | (_, Told::Death) => Told::Death,
            (Told::Nothing, Told::Nothing) => Told::Nothing,
            _ => Told::Either,
        }
    }

    /// Notes that it has been told, and has put the value right.
    pub(crate) fn put_right(&self, lock: usize) {
        self.told[lock].set(Told::Nothing);
        if lock == MUTEXES {
            self.told_of_reader.set(Told::Nothing);
        }
    }

    /// Posts a job, and notifies one waiter.
    pub(crate) fn post(&self) {
        let notified = self.posted.notify_one_after(|| {
            let mut jobs = match self.jobs.lock() {
                Ok(jobs) => jobs,
                // One store changes the number, so that it is whole whoever died.
                Err(LockError::OwnerDied(died)) => died.mark_consistent(),
                Err(_) => return,
            };
            self.posts_begun.fetch_add(1, Relaxed);
            *jobs += 1;
            drop(jobs);
            self.posts_done.fetch_add(1, Relaxed);
        });
        self.require(notified.is_ok(), "no room in a ledger");
    }

    /// Takes a job, waiting for one.
    pub(crate) fn take(&self) {
        loop {
            let begin = |jobs: &mut u64| {
                let left = jobs.checked_sub(1)?;
                self.takes_begun.fetch_add(1, Relaxed);
                *jobs = left;
                Some(())
            };
            match self.posted.wait_until(&self.jobs, begin) {
                Ok(()) => break,
                // As in `post`; what was to wake this task has gone on to another.
                Err(LockError::OwnerDied(died)) => drop(died.mark_consistent()),
                Err(_) => return self.require(false, "a job was refused without a reason"),
            }
        }
        self.takes_done.fetch_add(1, Relaxed);
    }

    /// How many jobs nobody has taken; `None` if the lock is held. For who is no task, and so does
    /// not wait.
    pub(crate) fn jobs_left(&self) -> Option<u64> {
        match self.jobs.try_lock() {
            Ok(jobs) => Some(*jobs),
            Err(TryLockError::Lock(LockError::OwnerDied(died))) => Some(*died.mark_consistent()),
            Err(_) => None,
        }
    }

    pub(crate) fn violation(&self) -> Option<&'static str> {
        self.violation.get()
    }

    /// Which locks the task owns whose ledger is at this address, by what their words say: of
    /// those whose deaths are told.
    pub(crate) fn owned_by(&self, ledger: u64) -> [bool; MUTEXES + 1] {
        let [first, second] = &self.spinning;
        let names = |word: u64| word & !63 == ledger;
        let offsets = WORDS.with(|words| *words);
        [
            names(word(first, offsets[0])),
            names(word(second, offsets[0])),
            names(word(&self.sleeping, offsets[1])),
            names(word(&self.rwlock, offsets[2])),
        ]
    }
}

thread_local! {
    /// Where the words of the three kinds of lock are.
    static WORDS: [usize; 3] = [
        word_offset(&Mutex::<Value, Hosted, Turns>::new(0), |lock, held| {
            let _guard = lock.lock();
            held();
        }),
        word_offset(&Mutex::<Value, Hosted, Park>::new(0), |lock, held| {
            let _guard = lock.lock();
            held();
        }),
        word_offset(&RwLock::<Value, Hosted, Turns>::new(0), |lock, held| {
            let _guard = lock.write();
            held();
        }),
    ];
}

/// Where the owner's ledger stands in a lock while it is held. `hold` calls back with the lock
/// held.
fn word_offset<T>(lock: &T, hold: impl FnOnce(&T, &mut dyn FnMut())) -> usize {
    let owner = Hosted::current().addr().get() as u64;
    let mut found = None;
    hold(lock, &mut || {
        found = (0..size_of::<T>()).step_by(8).find(|offset| word(lock, *offset) == owner);
    });
    found.expect("a held lock names its owner")
}

fn word<T>(lock: &T, offset: usize) -> u64 {
    // SAFETY: whole words of a lock, all of which are initialised and may change behind a `&`.
    unsafe { std::ptr::from_ref(lock).byte_add(offset).cast::<u64>().read_volatile() }
}
