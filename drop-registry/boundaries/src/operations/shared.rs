//! The counted pointer.

use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{DropAfterTear, Shared, TrackedBox, TrackedHeap};

use super::leak;
use super::slot::Place;
use crate::operation::{Audit, Findings, Operation, World, begin, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "shared new", world: || alone(create, 0) },
    Operation { name: "shared take a share, drop", world: || published(share_and_drop) },
    Operation { name: "shared clone, drop", world: || published(clone_and_drop) },
    Operation { name: "shared clone, drop out of order", world: || published(drop_out_of_order) },
    Operation { name: "shared drop before its clone's", world: || published(clone_outlives) },
    Operation { name: "shared drop of the last share", world: || alone(drop_last, 1) },
    Operation { name: "shared drop racing another's drop", world: || published(drop_with_others) },
];

/// How often a destructor has done something.
#[derive(Debug, Default)]
pub(super) struct Drops {
    pub(super) begun: AtomicU64,
}

/// A value that counts its drops.
#[derive(Debug)]
pub(super) struct Value(pub(super) &'static Drops);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
// SAFETY: nothing in it changes through a shared reference.
unsafe impl DropAfterTear for Value {}

pub(super) type Handle = Shared<Value, Hosted>;

/// A value of the victim alone.
struct Alone {
    drops: &'static Drops,
    operation: fn(&'static Drops),
    destructors: u64,
    heap_before: usize,
}

fn alone(operation: fn(&'static Drops), destructors: u64) -> Box<dyn World> {
    Box::new(Alone {
        drops: leak(Drops::default()),
        operation,
        destructors,
        heap_before: Hosted::heap().bytes_taken(),
    })
}

fn create(drops: &'static Drops) {
    begin();
    let shared = Handle::new_droppable(Value(drops));
    end();
    drop(shared);
}

fn drop_last(drops: &'static Drops) {
    let shared = Handle::new_droppable(Value(drops));
    begin();
    drop(shared);
    end();
}

impl World for Alone {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (drops, operation) = (self.drops, self.operation);
        Box::new(move || operation(drops))
    }

    fn destructors(&self) -> u64 {
        self.destructors
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.begun.load(Ordering::Relaxed)
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let begun = self.drops.begun.load(Ordering::Relaxed);
        audit.require(begun <= 1, Findings::DOUBLED);
        audit.require_heap(self.heap_before);
    }
}

/// A value that a slot, the victim and a bystander share.
struct Published {
    drops: &'static Drops,
    place: &'static Place,
    operation: fn(&'static Place),
    heap_before: usize,
}

fn published(operation: fn(&'static Place)) -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    let drops = leak(Drops::default());
    let place = leak(Place::new());
    let value = Handle::new_droppable(Value(drops)).expect("room on the heap");
    place.slot().put(value).expect("an empty slot");
    Box::new(Published { drops, place, operation, heap_before })
}

fn share_and_drop(place: &'static Place) {
    begin();
    let shared = place.slot().share();
    drop(shared);
    end();
}

fn clone_and_drop(place: &'static Place) {
    let shared = place.slot().share().expect("room in the ledger").expect("a value");
    begin();
    let another = shared.try_clone();
    drop(another);
    end();
}

fn drop_out_of_order(place: &'static Place) {
    begin();
    let first = place.slot().share();
    let between = TrackedBox::<_, Hosted>::new(7u64);
    let second = place.slot().share();
    let uncounted = place.slot().share();
    drop(between);
    let above = TrackedBox::<_, Hosted>::new(7u64);
    drop(first);
    drop(second);
    drop(uncounted);
    drop(above);
    end();
}

fn clone_outlives(place: &'static Place) {
    let shared = place.slot().share().expect("room in the ledger").expect("a value");
    begin();
    let another = shared.try_clone();
    drop(shared);
    drop(another);
    end();
}

fn drop_with_others(place: &'static Place) {
    let shared = place.slot().share();
    begin();
    drop(shared);
    end();
}

impl World for Published {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (place, operation) = (self.place, self.operation);
        Box::new(move || operation(place))
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let place = self.place;
        vec![Box::new(move || {
            let shared = place.slot().share();
            yield_now();
            drop(shared);
        })]
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.begun.load(Ordering::Relaxed)
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        audit.finish_bystanders();
        let place = self.place;
        let count = audit.run(move || {
            let shared = place.slot().share().ok().flatten()?;
            Some(Shared::count(&shared))
        });
        // The slot's, and the auditor's own.
        let count = count.flatten().unwrap_or(0);
        audit.require(count <= 2, Findings::LEAKED);
        audit.require(count >= 2, Findings::DOUBLED);
        audit.require(self.drops.begun.load(Ordering::Relaxed) == 0, Findings::DOUBLED);
        audit.run(move || drop(place.take()));
        audit.require_dropped(self.drops.begun.load(Ordering::Relaxed), self.heap_before);
    }
}
