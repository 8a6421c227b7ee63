//! Several things held at once.

use std::sync::atomic::Ordering;

use drop_registry::hosted::Hosted;
use drop_registry::{
    Channel, DropAfterTear, LockError, RwLock, Shared, Slot, TrackedBox, TrackedHeap,
};

use super::exclusive::{Answer, next_answer};
use super::leak;
use super::mutex::{Lock, Turns};
use super::shared::{Drops, Handle, Value};
use super::slot::Place;
use crate::operation::{Audit, Findings, Operation, World, begin, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "three nested locks", world: nested },
    Operation { name: "lock under a read lock", world: || under_a_read_write_lock(reads) },
    Operation { name: "lock under a write lock", world: || under_a_read_write_lock(writes) },
    Operation { name: "lock, share and box", world: mixed },
    Operation { name: "destructor that locks", world: destructor_that_locks },
    Operation { name: "hand-over under a lock", world: handed_over_under_a_lock },
    Operation { name: "hand-over from between, channel", world: || from_between(Places::send) },
    Operation { name: "hand-over from between, slot", world: || from_between(Places::put) },
];

struct Nested {
    locks: &'static [Lock<u64>; 3],
    held_at_death: [bool; 3],
}

fn nested() -> Box<dyn World> {
    Box::new(Nested { locks: leak([const { Lock::new(0) }; 3]), held_at_death: [false; 3] })
}

impl World for Nested {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let locks = self.locks;
        Box::new(move || {
            begin();
            let outer = locks[0].lock();
            let middle = locks[1].lock();
            let inner = locks[2].lock();
            // Not the order in which they were taken.
            drop(middle);
            drop(inner);
            drop(outer);
            end();
        })
    }

    fn at_death(&mut self) {
        self.held_at_death = self.locks.each_ref().map(|lock| lock.is_locked());
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        for (lock, held) in self.locks.iter().zip(self.held_at_death) {
            audit.require(!lock.is_locked(), Findings::LEAKED);
            let expected = if held { Answer::OwnerDied } else { Answer::Held };
            let answer = audit.run(move || next_answer(lock));
            audit.require(answer == Some(expected), Findings::UNTOLD);
        }
    }
}

struct UnderReadWriteLock {
    outer: &'static RwLock<u64, Hosted, Turns>,
    inner: &'static Lock<u64>,
    operation: fn(&RwLock<u64, Hosted, Turns>, &Lock<u64>),
    held_at_death: bool,
}

fn under_a_read_write_lock(
    operation: fn(&RwLock<u64, Hosted, Turns>, &Lock<u64>),
) -> Box<dyn World> {
    Box::new(UnderReadWriteLock {
        outer: leak(RwLock::new(0)),
        inner: leak(Lock::new(0)),
        operation,
        held_at_death: false,
    })
}

fn reads(outer: &RwLock<u64, Hosted, Turns>, inner: &Lock<u64>) {
    let outer = outer.read();
    let inner = inner.lock();
    drop(outer);
    drop(inner);
}

fn writes(outer: &RwLock<u64, Hosted, Turns>, inner: &Lock<u64>) {
    let outer = outer.write();
    let inner = inner.lock();
    drop(inner);
    drop(outer);
}

impl World for UnderReadWriteLock {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (outer, inner, operation) = (self.outer, self.inner, self.operation);
        Box::new(move || {
            begin();
            operation(outer, inner);
            end();
        })
    }

    fn at_death(&mut self) {
        self.held_at_death = self.inner.is_locked();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (outer, inner) = (self.outer, self.inner);
        audit.require(outer.reader_count() == 0 && !outer.is_write_locked(), Findings::LEAKED);
        audit.require(!inner.is_locked(), Findings::LEAKED);
        let expected = if self.held_at_death { Answer::OwnerDied } else { Answer::Held };
        let answer = audit.run(move || next_answer(inner));
        audit.require(answer == Some(expected), Findings::UNTOLD);
        let had = audit.run(move || match outer.write() {
            Ok(_) => true,
            Err(LockError::OwnerDied(died)) => {
                drop(died.replace(0));
                true
            }
            Err(_) => false,
        });
        audit.require(had == Some(true), Findings::STUCK);
    }
}

/// A box whose value takes a lock when it is dropped.
struct DestructorLocks {
    drops: &'static Drops,
    lock: &'static Lock<u64>,
    heap_before: usize,
    held_at_death: bool,
}

struct LocksWhenDropped(&'static Drops, &'static Lock<u64>);

impl Drop for LocksWhenDropped {
    fn drop(&mut self) {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut drops) = self.1.lock() {
            *drops += 1;
        }
    }
}

#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
// SAFETY: two pointers, which are never reassigned.
unsafe impl DropAfterTear for LocksWhenDropped {}

fn destructor_that_locks() -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    let (drops, lock) = (leak(Drops::default()), leak(Lock::new(0)));
    Box::new(DestructorLocks { drops, lock, heap_before, held_at_death: false })
}

impl World for DestructorLocks {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (drops, lock) = (self.drops, self.lock);
        Box::new(move || {
            let boxed = TrackedBox::<_, Hosted>::new_droppable(LocksWhenDropped(drops, lock));
            begin();
            drop(boxed);
            end();
        })
    }

    fn at_death(&mut self) {
        self.held_at_death = self.lock.is_locked();
    }

    fn at_settler_death(&mut self) {
        self.held_at_death |= self.lock.is_locked();
    }

    fn destructors(&self) -> u64 {
        1
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.begun.load(Ordering::Relaxed)
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let lock = self.lock;
        audit.require(!lock.is_locked(), Findings::LEAKED);
        audit.require_heap(self.heap_before);
        let expected = if self.held_at_death { Answer::OwnerDied } else { Answer::Held };
        let answer = audit.run(move || next_answer(lock));
        // A destructor that the settlement ran has locked, too, and left the lock in order.
        audit.require(answer == Some(expected), Findings::UNTOLD);
        let drops = audit.run(move || lock.lock().map_or(0, |drops| *drops));
        audit.require(drops.is_some_and(|drops| drops <= 1), Findings::DOUBLED);
    }
}

struct Mixed {
    lock: &'static Lock<u64>,
    place: &'static Place,
    drops: &'static Drops,
    heap_before: usize,
}

fn mixed() -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    let drops = leak(Drops::default());
    let place = leak(Place::new());
    place.slot().put(Handle::new_droppable(Value(drops)).expect("room")).expect("an empty slot");
    Box::new(Mixed { lock: leak(Lock::new(0)), place, drops, heap_before })
}

impl World for Mixed {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (lock, place) = (self.lock, self.place);
        Box::new(move || {
            begin();
            let guard = lock.lock();
            let share = place.slot().share();
            let boxed = TrackedBox::<_, Hosted>::new([1u64; 8]);
            drop(share);
            drop(boxed);
            drop(guard);
            end();
        })
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.begun.load(Ordering::Relaxed)
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (lock, place) = (self.lock, self.place);
        audit.require(!lock.is_locked(), Findings::LEAKED);
        let answer = audit.run(move || next_answer(lock));
        audit.require(answer.is_some_and(|answer| answer != Answer::Refused), Findings::STUCK);
        let count =
            audit.run(move || place.slot().share().ok().flatten().map(|one| Shared::count(&one)));
        audit.require(count.flatten() == Some(2), Findings::DOUBLED);
        audit.run(move || drop(place.take()));
        audit.require_dropped(self.drops.begun.load(Ordering::Relaxed), self.heap_before);
    }
}

struct HandedOver {
    lock: &'static Lock<Slot<Shared<Value, Hosted>>>,
    drops: &'static Drops,
    heap_before: usize,
}

fn handed_over_under_a_lock() -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    Box::new(HandedOver {
        lock: leak(Lock::new(Slot::new())),
        drops: leak(Drops::default()),
        heap_before,
    })
}

impl World for HandedOver {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (lock, drops) = (self.lock, self.drops);
        Box::new(move || {
            begin();
            if let (Ok(guard), Ok(value)) = (lock.lock(), Handle::new_droppable(Value(drops))) {
                let _ = guard.put(value);
            }
            end();
        })
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.begun.load(Ordering::Relaxed)
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let lock = self.lock;
        audit.require(!lock.is_locked(), Findings::LEAKED);
        // A slot is one word: whole, whenever its writer died.
        let emptied = audit.run(move || match lock.lock() {
            Ok(mut guard) => guard.take().is_ok(),
            Err(LockError::OwnerDied(died)) => {
                #[expect(unsafe_code, reason = "a slot cannot be torn")]
                // SAFETY: every change of a slot is one store of one word.
                let mut guard = unsafe { died.assume_consistent() };
                guard.take().is_ok()
            }
            Err(_) => false,
        });
        audit.require(emptied == Some(true), Findings::STUCK);
        let begun = self.drops.begun.load(Ordering::Relaxed);
        audit.require(begun <= 1, Findings::DOUBLED);
        audit.require_heap(self.heap_before);
    }
}

type Boxed = TrackedBox<Value, Hosted>;

/// Where a box can go.
struct Places {
    channel: Channel<Boxed, 1, Turns>,
    slot: Place<Boxed>,
}

impl Places {
    fn send(&self, boxed: Boxed) {
        self.channel.try_send(boxed).expect("an empty channel");
    }

    fn put(&self, boxed: Boxed) {
        self.slot.slot().put(boxed).expect("an empty slot");
    }

    fn len(&self) -> usize {
        self.channel.len() + usize::from(!self.slot.slot().is_empty())
    }

    fn clear(&self) {
        drop((self.channel.try_recv(), self.slot.take()));
    }
}

/// A box is handed over that lies between two other things in the ledger; then the lower one goes,
/// and the upper one is still the task's.
struct FromBetween {
    lock: &'static Lock<u64>,
    later: &'static [Lock<u64>; 3],
    places: &'static Places,
    hand_over: fn(&Places, Boxed),
    drops: [&'static Drops; 2],
    heap_before: usize,
    len_at_death: usize,
}

fn from_between(hand_over: fn(&Places, Boxed)) -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    Box::new(FromBetween {
        lock: leak(Lock::new(0)),
        later: leak([const { Lock::new(0) }; 3]),
        places: leak(Places { channel: Channel::new(), slot: Place::new() }),
        hand_over,
        drops: [leak(Drops::default()), leak(Drops::default())],
        heap_before,
        len_at_death: 0,
    })
}

impl World for FromBetween {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (lock, later, places) = (self.lock, self.later, self.places);
        let (hand_over, drops) = (self.hand_over, self.drops);
        Box::new(move || {
            let guard = lock.lock();
            let [given, kept] =
                drops.map(|drops| Boxed::new_droppable(Value(drops)).expect("room on the heap"));
            begin();
            hand_over(places, given);
            drop(guard);
            // Behind what is kept, whatever there is before it.
            let later = later.each_ref().map(Lock::lock);
            drop(later);
            drop(kept);
            end();
        })
    }

    fn at_death(&mut self) {
        self.len_at_death = self.places.len();
    }

    fn destructors(&self) -> u64 {
        1
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.iter().map(|drops| drops.begun.load(Ordering::Relaxed)).sum()
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (lock, places) = (self.lock, self.places);
        for lock in self.later.iter().chain([lock]) {
            audit.require(!lock.is_locked(), Findings::LEAKED);
            let answer = audit.run(move || next_answer(lock));
            audit.require(answer.is_some_and(|answer| answer != Answer::Refused), Findings::STUCK);
        }
        audit.require(places.len() == self.len_at_death, Findings::STOLEN);
        audit.run(move || places.clear());
        // Each box has gone, once: its own way, with the place, or with the task.
        for drops in self.drops {
            audit.require_dropped(drops.begun.load(Ordering::Relaxed), self.heap_before);
        }
    }
}
