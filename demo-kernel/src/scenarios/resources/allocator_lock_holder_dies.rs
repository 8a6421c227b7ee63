//! A task that dies inside the global allocator, wherever in it the timer found it.

use alloc::vec::Vec;
use core::hint::black_box;

use drop_registry::Outcome;

use crate::scenarios::{Scenario, Stage};
use crate::{heap, tasks};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "allocator-lock-holder-dies",
    summary: "a task dies inside the allocator; the heap loses an arena and serves on",
    ..Scenario::kept(run)
};

/// Is nowhere but in the allocator, as far as that can be.
fn allocating(_: usize) {
    for size in (16..2048).cycle() {
        drop(black_box(Vec::<u8>::with_capacity(size)));
    }
}

/// Blocks of many sizes, each full of its own number.
fn blocks() -> Option<Vec<Vec<u8>>> {
    let mut blocks = Vec::new();
    blocks.try_reserve(100).ok()?;
    for number in 1..=100 {
        let mut block = Vec::new();
        block.try_reserve(30 * usize::from(number)).ok()?;
        block.resize(30 * usize::from(number), number);
        blocks.push(block);
    }
    Some(blocks)
}

fn all_whole(blocks: &[Vec<u8>]) -> bool {
    blocks.iter().zip(1..).all(|(block, number)| block.iter().all(|byte| *byte == number))
}

fn run(stage: &mut Stage) {
    let Some(before) = blocks() else { return stage.check("there is memory", false) };
    let bytes: usize = before.iter().map(Vec::capacity).sum();

    let victim = stage.spawn("allocating", allocating);
    stage.wait_for("the timer stops the task while it holds an arena's lock", || {
        tasks::holds_anything(victim) == Ok(true)
    });
    stage.check("the kill is accepted", tasks::kill(victim).is_ok());
    let told = stage.report_on(victim).map_or(0, |report| report.count(Outcome::OwnerDied));
    stage.check("the arena's lock was released, as of a dead owner", told == 1);
    stage.check("one arena is given up", heap::arenas_given_up() == 1);

    let after = blocks();
    stage.check("the heap serves on", after.as_deref().is_some_and(all_whole));
    stage.check("blocks from before are whole", all_whole(&before));
    drop(before);
    stage.check("they can be freed, and are lost with their arena", heap::lost_bytes() >= bytes);
    drop(after);
    stage.check("no other arena was lost meanwhile", heap::arenas_given_up() == 1);
}
