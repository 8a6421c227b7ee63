//! The tracked box.

use std::sync::atomic::Ordering;

use drop_registry::hosted::Hosted;
use drop_registry::{TrackedBox, TrackedHeap};

use super::leak;
use super::shared::{Drops, Value};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "box new, drop", world: || boxed(plain, 0) },
    Operation { name: "box of a droppable value, new", world: || boxed(create, 0) },
    Operation { name: "box of a droppable value, drop", world: || boxed(destroy, 1) },
    Operation { name: "box dropped out of order", world: || boxed(out_of_order, 0) },
];

struct Boxed {
    drops: &'static Drops,
    operation: fn(&'static Drops),
    destructors: u64,
    heap_before: usize,
}

fn boxed(operation: fn(&'static Drops), destructors: u64) -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    Box::new(Boxed { drops: leak(Drops::default()), operation, destructors, heap_before })
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

impl World for Boxed {
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
