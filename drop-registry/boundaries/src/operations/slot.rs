//! Hand-over to a longer-lived owner, and back.

use std::cell::UnsafeCell;
use std::sync::atomic::Ordering;

use drop_registry::Slot;
use drop_registry::TrackedHeap;
use drop_registry::hosted::Hosted;

use super::leak;
use super::shared::{Drops, Handle, Value};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

/// A slot that tasks take turns at.
#[derive(Debug)]
pub(super) struct Place(UnsafeCell<Slot<Value, Hosted>>);

#[expect(unsafe_code, reason = "lends out the slot")]
impl Place {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new(Slot::new()))
    }

    /// The slot, for a moment.
    #[inline(always)]
    pub(super) fn slot(&self) -> &Slot<Value, Hosted> {
        // SAFETY: the tasks of a machine take turns, and none keeps a borrow over its turn.
        unsafe { &*self.0.get() }
    }

    /// Takes the share out.
    #[inline(always)]
    pub(super) fn take(&self) -> Option<Handle> {
        // SAFETY: as in `slot`.
        unsafe { &mut *self.0.get() }.take().ok().flatten()
    }
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "slot put", world: || handed_over(put) },
    Operation { name: "slot put of an uncounted share", world: || handed_over(put_uncounted) },
    Operation { name: "slot put into an occupied one", world: || handed_over(put_twice) },
    Operation { name: "slot take, put back", world: || handed_over(take_and_put_back) },
    Operation { name: "slot share, drop", world: || handed_over(share) },
];

struct HandedOver {
    drops: &'static Drops,
    place: &'static Place,
    operation: fn(&'static Place, &'static Drops),
    heap_before: usize,
}

fn handed_over(operation: fn(&'static Place, &'static Drops)) -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    Box::new(HandedOver {
        drops: leak(Drops::default()),
        place: leak(Place::new()),
        operation,
        heap_before,
    })
}

fn fill(place: &'static Place, drops: &'static Drops) {
    let value = Handle::new_droppable(Value(drops)).expect("room on the heap");
    place.slot().put(value).expect("an empty slot");
}

fn put(place: &'static Place, drops: &'static Drops) {
    let value = Handle::new_droppable(Value(drops)).expect("room on the heap");
    begin();
    let refused = place.slot().put(value);
    end();
    drop(refused);
}

fn put_uncounted(place: &'static Place, drops: &'static Drops) {
    let value = Handle::new_droppable(Value(drops)).expect("room on the heap");
    let another = value.try_clone().expect("room in the ledger");
    begin();
    let refused = place.slot().put(another);
    drop(value);
    end();
    drop(refused);
}

fn put_twice(place: &'static Place, drops: &'static Drops) {
    fill(place, drops);
    let share = place.slot().share().expect("room").expect("a value");
    begin();
    let refused = place.slot().put(share);
    end();
    drop(refused);
}

fn take_and_put_back(place: &'static Place, drops: &'static Drops) {
    fill(place, drops);
    begin();
    if let Some(value) = place.take() {
        let _ = place.slot().put(value);
    }
    end();
}

fn share(place: &'static Place, drops: &'static Drops) {
    fill(place, drops);
    begin();
    let share = place.slot().share();
    drop(share);
    end();
}

impl World for HandedOver {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (place, drops, operation) = (self.place, self.drops, self.operation);
        Box::new(move || operation(place, drops))
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let place = self.place;
        let kept =
            audit.run(move || place.slot().share().ok().flatten().map(|one| Handle::count(&one)));
        // Either the slot has it, or the task had it, and it went with the task.
        if let Some(count) = kept.flatten() {
            // The slot's share, and the auditor's own.
            audit.require(count == 2, Findings::DOUBLED);
            audit.require(self.drops.begun.load(Ordering::Relaxed) == 0, Findings::DOUBLED);
            audit.run(move || drop(place.take()));
        }
        audit.require_dropped(self.drops.begun.load(Ordering::Relaxed), self.heap_before);
    }
}
