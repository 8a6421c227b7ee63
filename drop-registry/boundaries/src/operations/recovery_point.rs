//! A recovery point inside of the operation: entered, left, and gone on behind.
#![expect(unsafe_code, reason = "makes a recovery point")]

use std::cell::Cell;

use drop_registry::catch_fault;
use drop_registry::hosted::Hosted;

use super::exclusive::{Answer, next_answer};
use super::leak;
use super::mutex::Lock;
use crate::operation::{Audit, Findings, Operation, World, marked};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "recovery point around a lock, inside a lock", world: || points(one) },
    Operation { name: "recovery point inside a recovery point", world: || points(nested) },
];

/// Behind which point the victim has gone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Inner,
    Outer,
}

struct Site {
    /// Held around the inner point, and taken in it.
    locks: [Lock<u64>; 2],
    /// Whether the task is in the body of the inner point, and of the outer one.
    in_body: [Cell<bool>; 2],
    went_on: Cell<Option<Behind>>,
}

impl Site {
    /// Notes that the task is in a body for as long as that takes, if it comes to its end.
    fn in_body(&self, point: Behind, body: impl FnOnce()) {
        let flag = &self.in_body[point as usize];
        flag.set(true);
        body();
        flag.set(false);
    }
}

/// Takes the second lock, inside of a point, while it has the first.
fn one(site: &'static Site) {
    let around = site.locks[0].lock();
    // SAFETY: the body takes one lock, which tells of it, and keeps the guard to itself.
    let caught = unsafe {
        catch_fault::<Hosted, _>(|| {
            site.in_body(Behind::Inner, || {
                if let Ok(mut inner) = site.locks[1].lock() {
                    *inner += 1;
                }
            });
        })
    };
    if caught.is_err() {
        site.went_on.set(Some(Behind::Inner));
    }
    drop(around);
}

/// The same, inside of another point.
fn nested(site: &'static Site) {
    // SAFETY: as in `one`, of both locks; the cell is valid with each of its values.
    let caught = unsafe { catch_fault::<Hosted, _>(|| site.in_body(Behind::Outer, || one(site))) };
    if caught.is_err() {
        site.went_on.set(Some(Behind::Outer));
    }
}

struct Points {
    site: &'static Site,
    operation: fn(&'static Site),
    held_at_death: [bool; 2],
    in_body_at_death: [bool; 2],
}

fn points(operation: fn(&'static Site)) -> Box<dyn World> {
    let site = leak(Site {
        locks: [const { Lock::new(0) }; 2],
        in_body: [const { Cell::new(false) }; 2],
        went_on: Cell::new(None),
    });
    Box::new(Points { site, operation, held_at_death: [false; 2], in_body_at_death: [false; 2] })
}

impl World for Points {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.site, self.operation)
    }

    fn at_death(&mut self) {
        self.held_at_death = self.site.locks.each_ref().map(|lock| lock.is_locked());
        self.in_body_at_death = self.site.in_body.each_ref().map(Cell::get);
    }

    fn went_on_where_it_should(&self, to_the_end: bool) -> bool {
        let went_on = self.site.went_on.get();
        let expected = match self.in_body_at_death {
            [true, _] => went_on == Some(Behind::Inner),
            // The inner point may stand though its body has not begun, or is over.
            [false, true] => went_on.is_some(),
            [false, false] => true,
        };
        expected && to_the_end == went_on.is_some()
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let [around_held, inner_held] = self.held_at_death;
        let stays_held = self.site.went_on.get() == Some(Behind::Inner);
        let given_up = [around_held && !stays_held, inner_held];
        for (lock, given_up) in self.site.locks.iter().zip(given_up) {
            audit.require(!lock.is_locked(), Findings::LEAKED);
            let expected = if given_up { Answer::OwnerDied } else { Answer::Held };
            let answer = audit.run(move || next_answer(lock));
            audit.require(answer == Some(expected), Findings::UNTOLD);
        }
    }
}
