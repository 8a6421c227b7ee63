//! The heap without a lock, with another task at the same words of it.

use std::cell::Cell;

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{TrackedBox, TrackedHeap};

use super::leak;
use crate::operation::{Audit, Findings, Operation, World, begin, each_on, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "heap take, give back, among others", world: || among(take_and_give_back) },
    Operation { name: "heap give back out of order, among others", world: || among(out_of_order) },
];

/// A block that is filled with its owner's number.
type Block = TrackedBox<[u64; 4], Hosted>;

const VICTIM: u64 = 1;

#[derive(Default)]
struct Site {
    /// Whether somebody has found another's number in a block of its own.
    overwritten: Cell<bool>,
}

impl Site {
    fn take(&self, number: u64) -> Option<Block> {
        Block::new([number; 4]).ok()
    }

    fn give_back(&self, block: Option<Block>, number: u64) {
        if block.is_none_or(|block| *block != [number; 4]) {
            self.overwritten.set(true);
        }
    }
}

fn take_and_give_back(site: &Site) {
    begin();
    let block = site.take(VICTIM);
    site.give_back(block, VICTIM);
    end();
}

fn out_of_order(site: &Site) {
    begin();
    let (first, second) = (site.take(VICTIM), site.take(VICTIM));
    site.give_back(first, VICTIM);
    site.give_back(second, VICTIM);
    end();
}

/// Has a block all the time. Every now and then it takes another and later gives that back, for so
/// long that the victim's exchanges fail a few times, and come through in the end.
fn churn(site: &Site) {
    const NUMBER: u64 = 2;
    let kept = site.take(NUMBER);
    for turn in 0..PATIENT_TURNS {
        yield_now();
        if turn % 10 == 9 {
            let block = site.take(NUMBER);
            (0..5).for_each(|_| yield_now());
            site.give_back(block, NUMBER);
        }
    }
    site.give_back(kept, NUMBER);
}

/// Few enough to come to an end whenever the victim dies.
const PATIENT_TURNS: usize = 50;

struct Among {
    site: &'static Site,
    operation: fn(&Site),
    heap_before: usize,
}

fn among(operation: fn(&Site)) -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    Box::new(Among { site: leak(Site::default()), operation, heap_before })
}

impl World for Among {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, operation) = (self.site, self.operation);
        Box::new(move || operation(site))
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, &[churn])
    }

    fn interleaved(&self) -> bool {
        true
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        audit.finish_bystanders();
        audit.require(!self.site.overwritten.get(), Findings::STOLEN);
        audit.require_heap(self.heap_before);
    }
}
