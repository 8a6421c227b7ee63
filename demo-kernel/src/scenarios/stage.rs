//! What every scenario needs: checks, a heartbeat, the books, and the keeper's reports.

use alloc::boxed::Box;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use drop_registry::Outcome;
use keeper::{Policy, Report, Verdict};
use task_model::{FaultKind, TaskId};

use crate::heap::{self, Books};
use crate::keeping;
use crate::serial::write_line;
use crate::tasks::{self, Spawn};

/// How many ticks a scenario waits for something before it calls it missing.
const PATIENCE: u64 = 100;

static BEATS: AtomicU64 = AtomicU64::new(0);

/// One run of a scenario: it prints a `@check` line for each claim and an `@outcome` at the end.
pub(crate) struct Stage {
    all_hold: bool,
    books: Books,
    /// The death that the scenario is about.
    fault: Option<FaultKind>,
    /// And what its keeper reports.
    report: Option<Report>,
}

impl Stage {
    /// Opens the books and starts the heartbeat.
    pub(super) fn open() -> Self {
        Spawn::new("heartbeat", heartbeat).start().expect("room for the heartbeat");
        Self { all_hold: true, books: heap::books(), fault: None, report: None }
    }

    /// States a claim, and whether it holds.
    pub(crate) fn check(&mut self, claim: impl fmt::Display, holds: bool) {
        self.all_hold &= holds;
        write_line(format_args!("@check {} {claim}", if holds { "ok" } else { "FAILED" }));
    }

    /// Starts a task that the keeper's default policy rules on.
    pub(crate) fn spawn(&self, name: &'static str, entry: fn(usize)) -> TaskId {
        Spawn::new(name, entry).start().expect("room for a task")
    }

    /// As [`Stage::spawn`], for an entry that tells its tasks apart by `argument`.
    pub(crate) fn spawn_with(
        &self,
        name: &'static str,
        entry: fn(usize),
        argument: usize,
    ) -> TaskId {
        Spawn::new(name, entry).argument(argument).start().expect("room for a task")
    }

    /// Starts a task that `policy` rules on.
    pub(crate) fn spawn_under(
        &self,
        policy: &'static dyn Policy,
        name: &'static str,
        entry: fn(usize),
    ) -> TaskId {
        Spawn::new(name, entry).policy(policy).start().expect("room for a task")
    }

    /// Waits until `event`, but not for ever, and claims that it came.
    pub(crate) fn wait_for(&mut self, claim: impl fmt::Display, mut event: impl FnMut() -> bool) {
        let came = (0..PATIENCE).any(|_| {
            event() || {
                tasks::sleep_ticks(1);
                false
            }
        });
        self.check(claim, came);
    }

    /// Waits until `task` has ended by itself.
    pub(crate) fn wait_for_end_of(&mut self, task: TaskId) {
        self.wait_for(format_args!("task {task} has finished"), || tasks::state(task).is_err());
    }

    /// Waits for the keeper's report on `task`: the death that the scenario is about.
    ///
    /// Returns `None`, and fails the scenario, if there is none.
    pub(crate) fn report_on(&mut self, task: TaskId) -> Option<&Report> {
        let mut report = None;
        self.wait_for(format_args!("the keeper reports on task {task}"), || {
            report = keeping::next_report();
            report.is_some()
        });
        self.report = report.filter(|report| report.task == task);
        self.check("the report is on that task", self.report.is_some());
        self.fault = self.report.as_ref().map(|report| report.fault.kind);
        self.report.as_ref()
    }

    /// Waits for two reports: that on `task`, which is the death that the scenario is about, and
    /// another one, in any order.
    pub(crate) fn two_reports(
        &mut self,
        task: TaskId,
    ) -> (Option<Box<Report>>, Option<Box<Report>>) {
        let (mut own, mut other) = (None, None);
        self.wait_for(format_args!("the keepers report on task {task}, and on another"), || {
            while let Some(report) = keeping::next_report() {
                let which = if report.task == task { &mut own } else { &mut other };
                // A stack has not room for many.
                *which = Some(Box::new(report));
            }
            own.is_some() && other.is_some()
        });
        self.fault = own.as_ref().map(|report| report.fault.kind);
        self.report = own.as_deref().cloned();
        (own, other)
    }

    /// Waits for so many reports, and returns on whom they are and what was ruled, in their order.
    /// The last death with a fault of its own is what the scenario is about.
    pub(crate) fn reports<const N: usize>(
        &mut self,
        count: usize,
    ) -> heapless::Vec<(TaskId, Option<Verdict>), N> {
        let (mut ends, mut last) = (heapless::Vec::new(), None);
        self.wait_for(format_args!("the keeper makes {count} reports"), || {
            while let Some(report) = keeping::next_report() {
                // More than asked for are more than expected, which the caller sees.
                let _ = ends.push((report.task, report.verdict));
                if report.fault.kind != FaultKind::Killed {
                    last = Some(report);
                }
            }
            ends.len() >= count
        });
        self.fault = last.as_ref().map(|report| report.fault.kind);
        self.report = last;
        ends
    }

    /// What the scenario is about so far.
    pub(crate) fn last_report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// The report on the death that the scenario is about, where no keeper of this boot made it.
    pub(crate) fn found(&mut self, report: &Report) {
        self.fault = Some(report.fault.kind);
        self.report = Some(report.clone());
    }

    /// Names the death that the scenario is about, where there is no keeper to report it.
    pub(crate) fn died_of(&mut self, fault: FaultKind) {
        self.fault = Some(fault);
    }

    /// How many times the heartbeat task has come by.
    pub(crate) fn beats(&self) -> u64 {
        BEATS.load(Ordering::Relaxed)
    }

    /// Checks that the rest of the kernel goes on and that the books balance, and prints the
    /// outcome. Returns whether all claims hold.
    pub(super) fn close(mut self) -> bool {
        let before = self.beats();
        self.wait_for("the heartbeat goes on", || BEATS.load(Ordering::Relaxed) >= before + 3);
        let books = heap::books();
        self.check(format_args!("the heap's books balance: {books}"), books == self.books);
        let leaked = books.bytes.saturating_sub(self.books.bytes);
        let fault = Hyphenated(Named(self.fault));
        let Some(report) = &self.report else {
            write_line(format_args!(
                "@outcome passed={} fault={fault} verdict=none frames=0 released=0 poisoned=0 \
                 leaked={leaked} trap_to_free=none trap_to_gone=none",
                self.all_hold
            ));
            return self.all_hold;
        };
        write_line(format_args!(
            "@outcome passed={} fault={fault} verdict={} frames={} released={} poisoned={} \
             leaked={leaked} trap_to_free={} trap_to_gone={}",
            self.all_hold,
            Named(report.verdict),
            report.frames.len(),
            report.freed(),
            report.count(Outcome::OwnerDied),
            report.reclaimed_at - report.stopped_at,
            report.gone_at - report.stopped_at,
        ));
        self.all_hold
    }
}

/// States the claims about the report with which the kernel ends, and the outcome. Returns whether
/// all hold. For a scenario that ends so: it has no stage any more.
pub(super) fn judge_panic(report: &Report, claims: &[(&str, bool)]) -> bool {
    for (claim, holds) in claims {
        write_line(format_args!("@check {} {claim}", if *holds { "ok" } else { "FAILED" }));
    }
    let all_hold = claims.iter().all(|(_, holds)| *holds);
    write_line(format_args!(
        "@outcome passed={all_hold} fault={} verdict={} frames={} released={} poisoned={} leaked=0 \
         trap_to_free=none trap_to_gone=none",
        Hyphenated(report.fault.kind),
        Named(report.verdict),
        report.frames.len(),
        report.freed(),
        report.count(Outcome::OwnerDied),
    ));
    all_hold
}

/// The name of what there is, or `none`.
struct Named<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// A name in one word: as it is, with hyphens.
struct Hyphenated<T>(T);

impl<T: fmt::Display> fmt::Display for Hyphenated<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = heapless::String::<48>::new();
        write!(name, "{}", self.0)?;
        name.split(' ').enumerate().try_for_each(|(n, word)| {
            f.write_str(if n == 0 { "" } else { "-" })?;
            f.write_str(word)
        })
    }
}

fn heartbeat(_: usize) {
    loop {
        BEATS.fetch_add(1, Ordering::Relaxed);
        tasks::sleep_ticks(1);
    }
}
