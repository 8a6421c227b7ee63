//! The ledger at its limits.

use std::sync::atomic::Ordering;

use drop_registry::hosted::Hosted;
use drop_registry::{Ledger, TrackedHeap};

use super::exclusive::{Answer, next_answer};
use super::leak;
use super::mutex::Lock;
use super::shared::{Drops, Handle, Value};
use super::slot::Place;
use crate::operation::{Audit, Findings, Operation, World, begin, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "ledger closing its gaps", world: || crowded(true) },
    Operation { name: "ledger full (refused)", world: || crowded(false) },
    Operation { name: "ledger closing its gaps between shares", world: shares },
];

/// As many locks as a ledger has entries, and one more.
struct Crowded {
    locks: &'static [Lock<u64>; Ledger::CAPACITY + 1],
    with_gaps: bool,
    held_at_death: [bool; Ledger::CAPACITY + 1],
}

fn crowded(with_gaps: bool) -> Box<dyn World> {
    Box::new(Crowded {
        locks: leak([const { Lock::new(0) }; Ledger::CAPACITY + 1]),
        with_gaps,
        held_at_death: [false; Ledger::CAPACITY + 1],
    })
}

impl World for Crowded {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (locks, with_gaps) = (self.locks, self.with_gaps);
        Box::new(move || {
            let (last, most) = locks.split_last().expect("there are locks");
            let mut guards: Vec<_> = most.iter().map(|lock| lock.lock().ok()).collect();
            if with_gaps {
                // Let go of out of order: the entries stay as gaps.
                guards[3] = None;
                guards[4] = None;
                guards[9] = None;
            }
            begin();
            let one_more = last.lock();
            end();
            drop(one_more);
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

/// As many shares of one value as a ledger has entries, so that an entry that counts twice shows.
struct Shares {
    drops: &'static Drops,
    place: &'static Place,
    locks: &'static [Lock<u64>; 2],
    heap_before: usize,
}

fn shares() -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    let (drops, place) = (leak(Drops::default()), leak(Place::new()));
    let value = Handle::new_droppable(Value(drops)).expect("room on the heap");
    place.slot().put(value).expect("an empty slot");
    let locks = leak([const { Lock::new(0) }; 2]);
    Box::new(Shares { drops, place, locks, heap_before })
}

impl World for Shares {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (place, locks) = (self.place, self.locks);
        Box::new(move || {
            let share = || place.slot().share().ok().flatten();
            // Two locks among the shares, let go of before them: their entries stay as gaps.
            let guards: Vec<_> = locks.iter().map(|lock| (lock.lock(), share())).collect();
            let shares: Vec<_> = (4..Ledger::CAPACITY).map(|_| share()).collect();
            let (guards, among): (Vec<_>, Vec<_>) = guards.into_iter().unzip();
            drop(guards);
            begin();
            let one_more = place.slot().share();
            end();
            drop((one_more, shares, among));
        })
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.begun.load(Ordering::Relaxed)
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let place = self.place;
        let count =
            audit.run(move || place.slot().share().ok().flatten().map(|one| Handle::count(&one)));
        let count = count.flatten().unwrap_or(0);
        audit.require(count <= 2, Findings::LEAKED);
        audit.require(count >= 2, Findings::DOUBLED);
        audit.run(move || drop(place.take()));
        audit.require_dropped(self.drops.begun.load(Ordering::Relaxed), self.heap_before);
    }
}
