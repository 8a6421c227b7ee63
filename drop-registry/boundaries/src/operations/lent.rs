//! What has been lent by `&mut`: two values that are being swapped.
//!
//! Each may own what the other does, if the task dies between the two stores. So neither is dropped
//! for it, though their type promises to bear it, and an audit cannot tell where they are.

use std::mem;
use std::sync::atomic::Ordering;

use drop_registry::hosted::Hosted;
use drop_registry::{Shared, TrackedBox};

use super::leak;
use super::shared::{Drops, Value};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "boxes' values swapped", world: || Box::new(Lent::by(swap_in_boxes)) },
    Operation { name: "shares' values swapped", world: || Box::new(Lent::by(swap_in_shares)) },
];

struct Lent {
    drops: &'static [Drops; 2],
    operation: fn(&'static [Drops; 2]),
}

impl Lent {
    fn by(operation: fn(&'static [Drops; 2])) -> Self {
        Self { drops: leak(Default::default()), operation }
    }
}

fn swap_in_boxes(drops: &'static [Drops; 2]) {
    let boxed = |n: usize| TrackedBox::<_, Hosted>::new_droppable(Value(&drops[n])).expect("room");
    let (mut one, mut other) = (boxed(0), boxed(1));
    begin();
    mem::swap(&mut *one, &mut *other);
    end();
}

fn swap_in_shares(drops: &'static [Drops; 2]) {
    let share = |n: usize| Shared::<_, Hosted>::new_droppable(Value(&drops[n])).expect("room");
    let (mut one, mut other) = (share(0), share(1));
    begin();
    if let (Some(one), Some(other)) = (Shared::get_mut(&mut one), Shared::get_mut(&mut other)) {
        mem::swap(one, other);
    }
    end();
}

impl World for Lent {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (drops, operation) = (self.drops, self.operation);
        Box::new(move || operation(drops))
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        for drops in self.drops {
            audit.require(drops.begun.load(Ordering::Relaxed) <= 1, Findings::DOUBLED);
        }
    }
}
