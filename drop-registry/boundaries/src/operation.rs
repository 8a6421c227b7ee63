//! What an operation is, and what an audit can find.

use std::cell::Cell;
use std::fmt;
use std::ops::BitOrAssign;

use boundaries::fork::Outcome;
use drop_registry::TrackedHeap;
use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};

use crate::bystanders::{Bystanders, PATIENCE};
use crate::machine::spawn;

/// One operation of the registry, as a task executes it.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Its name: the primitive, then what is done with it.
    pub(crate) name: &'static str,
    /// Makes a fresh world for it.
    pub(crate) world: fn() -> Box<dyn World>,
}

/// The resources that an operation works on, and the tasks around it. Everything in it that a task
/// uses is leaked, since the task may be killed.
pub(crate) trait World {
    /// What the victim executes. What lies between [`begin`] and [`end`] is killed at every
    /// instruction.
    fn victim(&self) -> Box<dyn FnOnce()>;

    /// Other tasks, which take turns with the victim whenever it yields, and move on by the
    /// instruction while it sleeps; each first runs until it waits itself.
    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        Vec::new()
    }

    /// Whether the bystanders get a turn between the kill and the settlement: to take what the
    /// victim has let go of.
    fn bystanders_run_before_settlement(&self) -> bool {
        true
    }

    /// Whether the bystanders also get a turn after each of the victim's instructions, and of those
    /// of a settler that is to be killed.
    fn interleaved(&self) -> bool {
        false
    }

    /// Looks at the resources after the victim has been killed, before it is settled; or once it
    /// has come to its end, if it was not killed.
    fn at_death(&mut self) {}

    /// Looks at the resources right before a settler is killed: it may hold what a destructor of
    /// the victim's has taken.
    fn at_settler_death(&mut self) {}

    /// Whether the first of the bystanders dies with the victim, and in which order.
    fn companion(&self) -> Option<Companion> {
        None
    }

    /// How many destructors the operation enters. Nowhere else may a value be in quarantine.
    fn destructors(&self) -> u64 {
        0
    }

    /// How long the way is from the beginning of a destructor to where the value's own has begun, by
    /// the ways of that length that a plain value has: see [`Entrance`].
    fn way_into_destructor(&self) -> u64 {
        1
    }

    /// How many destructors have begun, by what they have written down themselves.
    fn destructors_begun(&self) -> u64 {
        0
    }

    /// Whether the victim, brought back to a recovery point, has gone on where it should: to the
    /// end of the operation, by a point that the operation has itself, or else behind it.
    fn went_on_where_it_should(&self, to_the_end: bool) -> bool {
        !to_the_end
    }

    /// Looks at the resources right before the companion is killed and settled.
    fn at_companion_death(&mut self) {}

    /// What the resources show of themselves, as far as a settlement depends on it and it does not
    /// stand in the first words of what the victim holds: who waits.
    fn state(&self) -> String {
        String::new()
    }

    /// Looks at the resources after the settlement.
    fn audit(&mut self, audit: &mut Audit<'_>);
}

/// When somebody dies who dies with the victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Companion {
    /// Right before it.
    First,
    /// Right after it has been settled.
    Last,
}

/// What can be wrong, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Findings(u8);

impl Outcome for Findings {
    const STUCK: Self = Self::STUCK;
    const CRASHED: Self = Self::CRASHED;

    fn to_byte(self) -> u8 {
        self.0
    }

    fn from_byte(byte: u8) -> Self {
        Self(byte)
    }
}

impl Findings {
    /// Something is still held by the dead task, or lost.
    pub(crate) const LEAKED: Self = Self(1);
    /// Something was given up twice, or dropped twice.
    pub(crate) const DOUBLED: Self = Self(2);
    /// Something was taken from a living owner.
    pub(crate) const STOLEN: Self = Self(4);
    /// Somebody waits for ever.
    pub(crate) const STUCK: Self = Self(8);
    /// Somebody was not told of a death, or told without one.
    pub(crate) const UNTOLD: Self = Self(16);
    /// Memory is left alone, because a destructor was on its way: reported, and no fault.
    pub(crate) const QUARANTINED: Self = Self(64);
    /// A value was handed out as good that was half old and half new, or older than it should be.
    pub(crate) const TORN: Self = Self(128);
    /// The child that settled and audited did not come to an end of its own.
    pub(crate) const CRASHED: Self = Self(32);

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What is wrong alone.
    pub(crate) const fn without_quarantine(self) -> Self {
        Self(self.0 & !Self::QUARANTINED.0)
    }

    /// Whether there is nothing wrong.
    pub(crate) const fn is_clean(self) -> bool {
        self.without_quarantine().0 == 0
    }
}

impl BitOrAssign for Findings {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Findings, &str); 7] = [
            (Findings::LEAKED, "leaked"),
            (Findings::DOUBLED, "doubled"),
            (Findings::STOLEN, "stolen"),
            (Findings::STUCK, "stuck"),
            (Findings::UNTOLD, "untold"),
            (Findings::TORN, "torn"),
            (Findings::CRASHED, "crashed"),
        ];
        let found = NAMES.iter().filter(|(finding, _)| self.contains(*finding));
        let names: Vec<_> = found.map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

/// The audit of one death.
#[derive(Debug)]
pub(crate) struct Audit<'m> {
    machine: &'m mut Machine,
    bystanders: &'m mut Bystanders,
    victim_lives: bool,
    quarantine_reported: bool,
    findings: Findings,
}

impl<'m> Audit<'m> {
    pub(crate) fn new(
        machine: &'m mut Machine,
        bystanders: &'m mut Bystanders,
        victim_lives: bool,
        quarantine_reported: bool,
    ) -> Self {
        let findings = Findings::default();
        Self { machine, bystanders, victim_lives, quarantine_reported, findings }
    }

    /// Whether the victim was not killed, but came to its end after all the others.
    pub(crate) fn victim_lives(&self) -> bool {
        self.victim_lives
    }

    /// Requires that a value was dropped, once, and its memory freed or put in quarantine.
    pub(crate) fn require_dropped(&mut self, drops: u64, taken_before: usize) {
        self.require_heap(taken_before);
        self.require(drops <= 1, Findings::DOUBLED);
        // In quarantine, the destructor may not have come to its first instruction.
        let quarantined = self.findings.contains(Findings::QUARANTINED);
        self.require(drops >= 1 || quarantined, Findings::LEAKED);
    }

    /// Requires that the heap is as it was, or that the settlement has reported a quarantine.
    ///
    /// This is the one place where an audit asks the settling code: from outside, a destructor
    /// that has been entered and has not done anything yet cannot be told from one that has not
    /// been entered. At how many boundaries it may say so is limited: see [`Entrance`].
    pub(crate) fn require_heap(&mut self, taken_before: usize) {
        let taken = Hosted::heap().bytes_taken();
        self.require(taken >= taken_before, Findings::DOUBLED);
        if taken > taken_before {
            let reported = self.quarantine_reported;
            self.findings |= if reported { Findings::QUARANTINED } else { Findings::LEAKED };
        }
    }

    /// Notes `finding` unless `holds`.
    pub(crate) fn require(&mut self, holds: bool, finding: Findings) {
        if !holds {
            self.findings |= finding;
        }
    }

    /// Lets a new task do `work`, which may wait, and returns what it found; `None` if it never
    /// came to an end.
    pub(crate) fn run<T: 'static>(&mut self, work: impl FnOnce() -> T + 'static) -> Option<T> {
        let result: &'static Cell<Option<T>> = Box::leak(Box::new(Cell::new(None)));
        let task = spawn(self.machine, Box::new(move || result.set(Some(work()))));
        for _ in 0..PATIENCE {
            match self.machine.run(task, None) {
                Stop::Yielded | Stop::Parked => self.give_turns(),
                Stop::Finished => return result.take(),
                _ => break,
            }
        }
        self.findings |= Findings::STUCK;
        None
    }

    /// Lets the bystanders go on until none can. Returns how many wait for ever.
    pub(crate) fn run_bystanders(&mut self) -> usize {
        if self.bystanders.run_out(self.machine).is_err() {
            self.findings |= Findings::CRASHED;
        }
        self.bystanders.unfinished(self.machine)
    }

    /// Lets all bystanders come to their end.
    pub(crate) fn finish_bystanders(&mut self) {
        let waiting = self.run_bystanders();
        self.require(waiting == 0, Findings::STUCK);
    }

    fn give_turns(&mut self) {
        if self.bystanders.take_turns(self.machine).is_err() {
            self.findings |= Findings::CRASHED;
        }
    }

    pub(crate) fn findings(self) -> Findings {
        self.findings
    }
}

/// Counts the boundaries at which a value is in quarantine, and no destructor has done anything.
///
/// There are a few such, between the word of the ledger that the destructor begins, and the first
/// that it does itself. If there are more, values are put in quarantine that should be dropped.
#[derive(Debug)]
pub(crate) struct Entrance {
    most: u64,
    found: u64,
}

impl Entrance {
    /// How many instructions the way into one destructor has, generously. What is compiled without
    /// optimization goes there by many small functions; and where bugs can be planted, it is looked
    /// on the way whether they are.
    const LENGTH: u64 = match (cfg!(debug_assertions), cfg!(feature = "planted-bugs")) {
        (true, _) => 100,
        (false, true) => 25,
        (false, false) => 20,
    };

    /// For so many destructors that are entered, each by so long a way.
    pub(crate) const fn of(destructors: u64, way: u64) -> Self {
        Self { most: destructors * way * Self::LENGTH, found: 0 }
    }

    /// Takes in what was found at a boundary, at which a destructor had begun or not. Returns what
    /// that is in truth.
    pub(crate) fn judge(&mut self, begun: bool, findings: Findings) -> Findings {
        self.judge_many(1, begun, findings)
    }

    /// As [`judge`](Self::judge), of so many boundaries at which it is the same.
    pub(crate) fn judge_many(
        &mut self,
        boundaries: u64,
        begun: bool,
        mut findings: Findings,
    ) -> Findings {
        let inside = begun && self.most > 0;
        if findings.contains(Findings::QUARANTINED) && !inside {
            self.found += boundaries;
            if self.found > self.most {
                findings |= Findings::LEAKED;
            }
        }
        findings
    }
}

/// Where a victim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Before the operation, or waiting in it.
    None,
    /// At its beginning.
    Begin,
    /// After its end.
    End,
}

thread_local! {
    static MARK: Cell<Mark> = const { Cell::new(Mark::None) };
}

thread_local! {
    static SETTLER_DIED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that the settlement has been begun again.
pub(crate) fn note_settler_died() {
    SETTLER_DIED.set(true);
}

/// Whether the settlement has been begun again, so that it may have died in somebody else's code.
pub(crate) fn settler_died() -> bool {
    SETTLER_DIED.get()
}

/// Marks the beginning of the operation, for [`World::victim`].
pub(crate) fn begin() {
    MARK.set(Mark::Begin);
    yield_now();
}

/// Marks the end of the operation, for [`World::victim`].
pub(crate) fn end() {
    MARK.set(Mark::End);
    yield_now();
}

/// A victim that executes `operation` on `site`, between the two marks.
pub(crate) fn marked<S: ?Sized>(site: &'static S, operation: fn(&'static S)) -> Box<dyn FnOnce()> {
    Box::new(move || {
        begin();
        operation(site);
        end();
    })
}

/// Tasks that execute these on `site`, one each.
pub(crate) fn each_on<S: ?Sized>(
    site: &'static S,
    operations: &[fn(&'static S)],
) -> Vec<Box<dyn FnOnce()>> {
    let task = |operation: &fn(&'static S)| -> Box<dyn FnOnce()> {
        let operation = *operation;
        Box::new(move || operation(site))
    };
    operations.iter().map(task).collect()
}

/// What the victim has marked since this was last called.
pub(crate) fn take_mark() -> Mark {
    MARK.replace(Mark::None)
}
