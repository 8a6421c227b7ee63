//! The tracked box.

use std::sync::atomic::Ordering;

use drop_registry::hosted::Hosted;
use drop_registry::{Channel, Slot, TrackedBox, TrackedHeap};

use super::leak;
use super::shared::{Drops, Value};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "box new, drop", world: || boxed(plain, 0) },
    Operation { name: "box of a droppable value, new", world: || boxed(create, 0) },
    Operation { name: "box of a droppable value, drop", world: || boxed(destroy, 1) },
    Operation { name: "box dropped out of order", world: || boxed(out_of_order, 0) },
    Operation { name: "box of a slot with a box, drop", world: || holding(slot, 4) },
    Operation { name: "box of a channel with a box, drop", world: || holding(channel, 6) },
];

struct Boxed {
    drops: &'static Drops,
    operation: fn(&'static Drops),
    destructors: u64,
    way_into_destructor: u64,
    heap_before: usize,
}

fn boxed(operation: fn(&'static Drops), destructors: u64) -> Box<dyn World> {
    Box::new(of(operation, destructors))
}

/// A box of something that holds the value.
fn holding(operation: fn(&'static Drops), way_into_destructor: u64) -> Box<dyn World> {
    Box::new(Boxed { way_into_destructor, ..of(operation, 1) })
}

fn of(operation: fn(&'static Drops), destructors: u64) -> Boxed {
    let (drops, heap_before) = (leak(Drops::default()), Hosted::heap().bytes_taken());
    Boxed { drops, operation, destructors, way_into_destructor: 1, heap_before }
}

fn plain(_: &'static Drops) {
    begin();
    let boxed = TrackedBox::<_, Hosted>::new([7u64; 4]);
    drop(boxed);
    end();
}

fn create(drops: &'static Drops) {
    begin();
    let boxed = TrackedBox::<_, Hosted>::new_droppable(Value(drops));
    end();
    drop(boxed);
}

fn destroy(drops: &'static Drops) {
    let boxed = TrackedBox::<_, Hosted>::new_droppable(Value(drops));
    begin();
    drop(boxed);
    end();
}

fn out_of_order(_: &'static Drops) {
    begin();
    let first = TrackedBox::<_, Hosted>::new([7u64; 4]);
    let second = TrackedBox::<_, Hosted>::new([8u64; 4]);
    drop(first);
    drop(second);
    end();
}

/// The destructor of the outer one takes the inner one out, which is the task's for that long.
fn slot(drops: &'static Drops) {
    let outer = TrackedBox::<Slot<TrackedBox<Value, Hosted>>, Hosted>::new_droppable(Slot::new());
    let outer = outer.expect("room on the heap");
    outer.put(inner(drops)).expect("an empty slot");
    begin();
    drop(outer);
    end();
}

fn channel(drops: &'static Drops) {
    type Boxes = Channel<TrackedBox<Value, Hosted>, 2>;
    let outer =
        TrackedBox::<Boxes, Hosted>::new_droppable(Channel::new()).expect("room on the heap");
    outer.try_send(inner(drops)).expect("room in the channel");
    begin();
    drop(outer);
    end();
}

fn inner(drops: &'static Drops) -> TrackedBox<Value, Hosted> {
    TrackedBox::new_droppable(Value(drops)).expect("room on the heap")
}

impl World for Boxed {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (drops, operation) = (self.drops, self.operation);
        Box::new(move || operation(drops))
    }

    fn destructors(&self) -> u64 {
        self.destructors
    }

    fn way_into_destructor(&self) -> u64 {
        self.way_into_destructor
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
