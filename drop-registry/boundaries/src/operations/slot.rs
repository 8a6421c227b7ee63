//! Hand-over to a longer-lived owner, and back.

use std::cell::UnsafeCell;
use std::sync::atomic::Ordering;

use drop_registry::hosted::Hosted;
use drop_registry::{HandOver, Obligation, Slot, TrackedBox, TrackedHeap};

use super::leak;
use super::obligation::Flag;
use super::shared::{Drops, Handle, Value};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

/// A slot that tasks take turns at.
#[derive(Debug)]
pub(super) struct Place<H: HandOver = Handle>(UnsafeCell<Slot<H>>);

#[expect(unsafe_code, reason = "lends out the slot")]
impl<H: HandOver> Place<H> {
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new(Slot::new()))
    }

    /// The slot, for a moment.
    #[inline(always)]
    pub(super) fn slot(&self) -> &Slot<H> {
        // SAFETY: the tasks of a machine take turns, and none keeps a borrow over its turn.
        unsafe { &*self.0.get() }
    }

    /// Takes out what is in it.
    #[inline(always)]
    pub(super) fn take(&self) -> Option<H> {
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
    Operation { name: "slot box, put", world: || boxed(put_box, 0) },
    Operation { name: "slot box, put into an occupied one", world: || boxed(put_second_box, 1) },
    Operation { name: "slot box, take, put back", world: || boxed(take_and_put_box_back, 0) },
    Operation { name: "slot box, take, drop", world: || boxed(take_box, 1) },
    Operation { name: "slot obligation, put, take, drop", world: owed },
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

    fn destructors_begun(&self) -> u64 {
        self.drops.begun.load(Ordering::Relaxed)
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

type Boxed = TrackedBox<Value, Hosted>;

/// A box that a slot owns, or the victim does.
struct BoxHandedOver {
    drops: &'static [Drops; 2],
    place: &'static Place<Boxed>,
    operation: fn(&'static Place<Boxed>, &'static [Drops; 2]),
    destructors: u64,
    heap_before: usize,
    /// Whether the slot had a box when the victim died.
    kept_at_death: bool,
}

fn boxed(
    operation: fn(&'static Place<Boxed>, &'static [Drops; 2]),
    destructors: u64,
) -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    let (drops, place) = (leak(Default::default()), leak(Place::new()));
    let kept_at_death = false;
    Box::new(BoxHandedOver { drops, place, operation, destructors, heap_before, kept_at_death })
}

fn new_box(drops: &'static Drops) -> Boxed {
    Boxed::new_droppable(Value(drops)).expect("room on the heap")
}

fn put_box(place: &'static Place<Boxed>, [drops, _]: &'static [Drops; 2]) {
    let value = new_box(drops);
    begin();
    let refused = place.slot().put(value);
    end();
    drop(refused);
}

fn put_second_box(place: &'static Place<Boxed>, [drops, others]: &'static [Drops; 2]) {
    place.slot().put(new_box(drops)).expect("an empty slot");
    let second = new_box(others);
    begin();
    let refused = place.slot().put(second);
    drop(refused);
    end();
}

fn take_and_put_box_back(place: &'static Place<Boxed>, [drops, _]: &'static [Drops; 2]) {
    place.slot().put(new_box(drops)).expect("an empty slot");
    begin();
    if let Some(value) = place.take() {
        let _ = place.slot().put(value);
    }
    end();
}

fn take_box(place: &'static Place<Boxed>, [drops, _]: &'static [Drops; 2]) {
    place.slot().put(new_box(drops)).expect("an empty slot");
    begin();
    drop(place.take());
    end();
}

impl World for BoxHandedOver {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (place, drops, operation) = (self.place, self.drops, self.operation);
        Box::new(move || operation(place, drops))
    }

    fn at_death(&mut self) {
        self.kept_at_death = !self.place.slot().is_empty();
    }

    fn destructors(&self) -> u64 {
        self.destructors
    }

    fn destructors_begun(&self) -> u64 {
        self.drops.iter().map(|drops| drops.begun.load(Ordering::Relaxed)).sum()
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let (place, [drops, others]) = (self.place, self.drops);
        let kept = audit.run(move || place.take().map(drop).is_some());
        // The settlement neither fills a slot nor empties one.
        audit.require(kept == Some(self.kept_at_death), Findings::STOLEN);
        audit.require_dropped(drops.begun.load(Ordering::Relaxed), self.heap_before);
        audit.require(others.begun.load(Ordering::Relaxed) <= 1, Findings::DOUBLED);
    }
}

/// An obligation that a slot owns, or the victim does.
struct ObligationHandedOver {
    flag: &'static Flag,
    place: &'static Place<Obligation<Flag, Hosted>>,
    kept_at_death: bool,
}

fn owed() -> Box<dyn World> {
    let (flag, place) = (leak(Flag::default()), leak(Place::new()));
    Box::new(ObligationHandedOver { flag, place, kept_at_death: false })
}

impl World for ObligationHandedOver {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (flag, place) = (self.flag, self.place);
        Box::new(move || {
            let owed = Obligation::new(flag).expect("room in the ledger");
            flag.0.store(1, Ordering::Relaxed);
            begin();
            place.slot().put(owed).expect("an empty slot");
            drop(place.take());
            end();
        })
    }

    fn at_death(&mut self) {
        self.kept_at_death = !self.place.slot().is_empty();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        // Met by the death, unless the slot has it.
        let raised = self.flag.0.load(Ordering::Relaxed) != 0;
        audit.require(raised || !self.kept_at_death, Findings::DOUBLED);
        audit.require(!raised || self.kept_at_death, Findings::LEAKED);
        let place = self.place;
        audit.run(move || drop(place.take()));
        audit.require(self.flag.0.load(Ordering::Relaxed) == 0, Findings::LEAKED);
    }
}
