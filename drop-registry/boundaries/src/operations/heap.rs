//! The heap without a lock, with another task at the same words of it.

use std::cell::Cell;

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{TrackedBox, TrackedHeap};

use super::leak;
use crate::operation::{Audit, Findings, Operation, World, begin, each_on, end};

pub(super) const OPERATIONS: &[Operation] =
    &[Operation { name: "heap take and give back two, among others", world: among }];

/// A block that is filled with its owner's number.
type Block = TrackedBox<[u64; 4], Hosted>;

const VICTIM: u64 = 1;

#[derive(Default)]
struct Site {
    /// Whether somebody has found another's number in a block of its own.
    overwritten: Cell<bool>,
    /// Whether the others are to come to an end.
    over: Cell<bool>,
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

fn two(site: &Site) {
    begin();
    let (first, second) = (site.take(VICTIM), site.take(VICTIM));
    site.give_back(first, VICTIM);
    site.give_back(second, VICTIM);
    end();
}

/// Takes one block after another, so that the victim's exchange fails a few times; then gives them
/// back, and rests for so long that it comes through.
fn churn(site: &Site) {
    const NUMBER: u64 = 2;
    let turns = |count| (0..count).for_each(|_| yield_now());
    let take = |_| {
        turns(5);
        site.take(NUMBER)
    };
    while !site.over.get() {
        let blocks: Vec<_> = (0..8).map(take).collect();
        turns(1);
        blocks.into_iter().for_each(|block| site.give_back(block, NUMBER));
        turns(40);
    }
}

struct Among {
    site: &'static Site,
    heap_before: usize,
}

fn among() -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    Box::new(Among { site: leak(Site::default()), heap_before })
}

impl World for Among {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let site = self.site;
        Box::new(move || two(site))
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, &[churn])
    }

    fn interleaved(&self) -> bool {
        true
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        // Written over what the others have, if that counts as free, before they look.
        audit.run(|| {
            const NUMBER: u64 = 3;
            let blocks: Vec<_> = (0..8).map(|_| site.take(NUMBER)).collect();
            (0..60).for_each(|_| yield_now());
            blocks.into_iter().for_each(|block| site.give_back(block, NUMBER));
        });
        site.over.set(true);
        audit.finish_bystanders();
        audit.require(!site.overwritten.get(), Findings::STOLEN);
        audit.require_heap(self.heap_before);
    }
}
