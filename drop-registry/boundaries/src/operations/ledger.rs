//! The ledger at its limits.

use drop_registry::Ledger;

use super::leak;
use super::mutex::{Answer, Lock, next_answer};
use crate::operation::{Audit, Findings, Operation, World, begin, end};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "ledger closing its gaps", world: || crowded(true) },
    Operation { name: "ledger full (refused)", world: || crowded(false) },
];

/// As many locks as a ledger has entries, and one more.
struct Crowded {
    locks: &'static [Lock<u64>; Ledger::CAPACITY + 1],
    with_gaps: bool,
    held_at_death: [bool; Ledger::CAPACITY + 1],
}

fn crowded(with_gaps: bool) -> Box<dyn World> {
    Box::new(Crowded {
        locks: leak([const { Lock::new(0) }; Ledger::CAPACITY + 1]),
        with_gaps,
        held_at_death: [false; Ledger::CAPACITY + 1],
    })
}

impl World for Crowded {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (locks, with_gaps) = (self.locks, self.with_gaps);
        Box::new(move || {
            let (last, most) = locks.split_last().expect("there are locks");
            let mut guards: Vec<_> = most.iter().map(|lock| lock.lock().ok()).collect();
            if with_gaps {
                // Let go of out of order: the entries stay as gaps.
                guards[3] = None;
                guards[4] = None;
                guards[9] = None;
            }
            begin();
            let one_more = last.lock();
            end();
            drop(one_more);
        })
    }

    fn at_death(&mut self) {
        self.held_at_death = self.locks.each_ref().map(|lock| lock.is_locked());
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        for (lock, held) in self.locks.iter().zip(self.held_at_death) {
            audit.require(!lock.is_locked(), Findings::LEAKED);
            let expected = if held { Answer::OwnerDied } else { Answer::Held };
            let answer = audit.run(move || next_answer(lock, 0));
            audit.require(answer == Some(expected), Findings::UNTOLD);
        }
    }
}
