//! Records of any report, whole and torn.

mod arbitrary;
mod bytes;
mod ring;
mod torn;

use std::boxed::Box;

use super::{Ring, Slot};
use crate::Report;

/// A ring of so many slots, for good.
fn slots(n: usize) -> &'static [Slot] {
    Box::leak((0..n).map(|_| Slot::new()).collect())
}

/// The report of a task with this number, so that reports can be told apart.
fn report(task: u32) -> Report {
    let mut report = Report::empty();
    report.task.index = task;
    report
}

/// The numbers of the tasks in the ring, the latest first.
fn tasks(ring: &Ring) -> std::vec::Vec<u32> {
    ring.records().map(|record| record.report().unwrap().task.index).collect()
}
