//! The settling code killed, too, at each of its instructions, and the settlement begun again.
//!
//! What settling does depends on the ledger, on the resources and, inside a window, on the
//! registers. Boundaries of the operation at which all of these are the same are looked at once.
#![expect(unsafe_code, reason = "settles by hand, to be stopped in the middle of it")]

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr::NonNull;

use anyhow::Result;
use boundaries::fork::{Children, Tally};
use boundaries::writes;
use drop_registry::hosted::{Hosted, Stop, domain};
use drop_registry::{
    Domain, Ledger, Outcome, Pending, RecoveryPoint, Settled, TrackedHeap, WindowTable, reclaim,
    settle, take_over,
};
use task_model::{FrozenTask, RegisterFile, StackMemory, TaskId};

use crate::machine::spawn;
use crate::operation::{self, Entrance, Findings, Mark, Operation, begin, end, take_mark};
use crate::recovery::Around;
use crate::sweep::{Run, Sweep};

/// Before which of its instructions the settling code is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deaths {
    /// Each.
    Anywhere,
    /// Each before which there is something else to be found than before the last one. Whoever
    /// settles next sees what the dead settler wrote, and the window that it stands in; of its other
    /// registers it needs the stack pointer, to say what had escaped, and of its stack nothing, for
    /// settling keeps no resource there.
    BehindWrites,
}

/// Kills before each instruction of the operation, and at each of these before instructions of the
/// settlement.
pub(crate) fn sweep(
    operation: &Operation,
    deaths: Deaths,
    jobs: usize,
    mut sweep: Sweep,
) -> Result<Sweep> {
    let tally = Tally::new()?;
    let mut run = Run::start(operation, sweep.fate)?;
    let mut entrance = run.entrance(sweep.fate);
    let mut children = Children::new(jobs);
    let mut seen = HashSet::new();
    let mut k = 0u64;
    loop {
        if seen.insert(state(&mut run)) {
            let is_enough = |findings| sweep.is_enough_of(findings);
            let at = (k, run.destructor_begun());
            let done =
                children.spawn(at, || settle_and_die(&mut run, deaths, &tally, is_enough))?;
            if let Some(((boundary, begun), findings)) = done {
                sweep.note(boundary, entrance.judge(begun, findings));
            }
        }
        if sweep.is_enough() || !run.step()? {
            break;
        }
        k += 1;
    }
    while let Some(((boundary, begun), findings)) = children.wait()? {
        sweep.note(boundary, entrance.judge(begun, findings));
    }
    // What counts are the boundaries of the settlements, not those of the operation.
    (sweep.executed, sweep.befallen) = tally.read();
    Ok(sweep)
}

/// What the settlement of the victim as it stands depends on.
fn state(run: &mut Run) -> u64 {
    let (frozen, ledger) = run.machine.frozen(run.victim);
    let mut hasher = DefaultHasher::new();
    format!("{:?}", WindowTable::linked().pending(frozen.registers())).hash(&mut hasher);
    written(ledger).hash(&mut hasher);
    for entry in ledger.held() {
        // SAFETY: what is held is alive, and every resource begins with a word.
        unsafe { entry.place().cast::<u64>().read_volatile() }.hash(&mut hasher);
    }
    Hosted::heap().bytes_taken().hash(&mut hasher);
    run.world.state().hash(&mut hasher);
    hasher.finish()
}

/// The words of the ledger that a settlement goes by: which entry is being moved, and what is listed,
/// each in its place; also the copy of one that does not count.
fn written(ledger: &Ledger) -> Vec<u64> {
    /// Words of the header, and of an entry; and what the resource of a vacant one is at most.
    const HEADER: usize = 4;
    const ENTRY: usize = 3;
    const VACANT: u64 = 1;
    let words: *const u64 = std::ptr::from_ref(ledger).cast();
    // SAFETY: a ledger is `repr(C)` and has nothing but words in it; its task is frozen.
    let word = |index: usize| unsafe { words.add(index).read_volatile() };
    let end = HEADER + Ledger::CAPACITY * ENTRY;
    let entries = (HEADER..end).step_by(ENTRY).map(|at| (word(at), word(at + 1)));
    let read = entries.flat_map(|(resource, operations)| {
        [resource, if resource > VACANT { operations } else { 0 }]
    });
    std::iter::once(word(1)).chain(read).collect()
}

/// A dead task, by what the settler needs of it: nothing of it runs any more.
#[derive(Debug, Clone, Copy)]
struct Corpse {
    id: TaskId,
    registers: NonNull<RegisterFile>,
    stack: task_model::StackBounds,
    ledger: NonNull<Ledger>,
    /// Known before anybody settles: a settler that died while it found out would keep the next one
    /// from it.
    domain: Domain<'static>,
    /// Whether the victim goes on.
    recovers: bool,
}

impl Corpse {
    fn of(run: &mut Run) -> Self {
        let victim = run.victim;
        let (mut frozen, ledger) = run.machine.frozen(victim);
        let (stack, ledger) = (frozen.bounds(), NonNull::from(ledger));
        Self {
            id: victim,
            registers: NonNull::from(frozen.registers_mut()),
            stack,
            ledger,
            domain: domain(),
            recovers: run.around.is_some(),
        }
    }

    /// # Safety
    /// Nobody else settles it.
    unsafe fn settle(self, mut each: impl FnMut(Settled)) {
        // SAFETY: the victim never runs again, or not before it is recovered; its registers and its
        // ledger belong to its machine, which lives, and this function's contract.
        unsafe {
            let mut frozen = FrozenTask::new(self.id, self.registers, self.stack);
            let ledger = self.ledger.as_ref();
            if self.recovers {
                let point = RecoveryPoint::innermost(&frozen, ledger).expect("it is in one");
                point.settle(&frozen, ledger, &self.domain, &mut each);
                point.reclaim(ledger, &self.domain, &mut each);
                point.land(&mut frozen, ledger, Around::fault());
            } else {
                settle(&frozen, ledger, &self.domain, &mut each);
                reclaim(ledger, &self.domain, &mut each);
            }
        }
    }
}

/// Lets a task settle the victim, and kills it before its instructions, until what was found is
/// enough.
fn settle_and_die(
    run: &mut Run,
    deaths: Deaths,
    tally: &Tally,
    is_enough: impl Fn(Findings) -> bool,
) -> Findings {
    if run.die().is_err() {
        return Findings::CRASHED;
    }
    let corpse = Corpse::of(run);
    // What the first settler tells of is told, even if it dies afterwards.
    let told: &'static Cell<Option<Settled>> = Box::leak(Box::default());
    let settler = spawn(
        &run.machine,
        Box::new(move || {
            begin();
            // SAFETY: the one settler; whoever comes after it takes over.
            unsafe {
                corpse.settle(|one| {
                    if one.outcome == Outcome::Quarantined {
                        told.set(Some(one));
                    }
                });
            }
            end();
        }),
    );
    if (run.machine.run(settler, None), take_mark()) != (Stop::Yielded, Mark::Begin) {
        return Findings::CRASHED;
    }
    let mut children = Children::new(1);
    let mut found = Found::new(run);
    let mut trace = Trace::new(deaths, run.world.interleaved());
    let mut boundary = 0;
    while !is_enough(found.findings) {
        let mut done = Ok(None);
        if trace.makes_a_difference(&run.machine.frozen(settler).0) {
            tally.executed();
            done = children.spawn((boundary, found.destructor_begun(run)), || {
                let mut settled = begin_again(run, settler, corpse);
                settled.extend(told.get());
                run.aftermath(&settled)
            });
        }
        let stop = run.machine.run(settler, Some(1));
        boundary += 1;
        match done {
            Ok(Some(((boundary, begun), findings))) => {
                found.take(boundary, begun, findings);
                tally.killed();
            }
            Ok(None) => {}
            Err(_) => return Findings::CRASHED,
        }
        match stop {
            Stop::BudgetSpent if run.interleave().is_ok() => {}
            Stop::Yielded if take_mark() == Mark::End => break,
            _ => return Findings::CRASHED,
        }
    }
    while let Ok(Some(((boundary, begun), findings))) = children.wait() {
        found.take(boundary, begun, findings);
        tally.killed();
    }
    found.up_to(boundary)
}

/// What a settler leaves behind, from instruction to instruction.
struct Trace {
    /// Whether each is taken to leave something: because that is asked for, or others go on between
    /// them.
    each: bool,
    /// Whether the last one may have written anything but its own stack.
    wrote: bool,
    /// The window that the settler stood in before it.
    window: Option<Pending>,
}

impl Trace {
    fn new(deaths: Deaths, interleaved: bool) -> Self {
        Self { each: deaths == Deaths::Anywhere || interleaved, wrote: true, window: None }
    }

    /// Whether the settler, who stands before its next instruction, leaves something else behind
    /// than before the last one.
    fn makes_a_difference(&mut self, settler: &FrozenTask<'_>) -> bool {
        if self.each {
            return true;
        }
        let window = WindowTable::linked().pending(settler.registers());
        let entered_or_left = std::mem::replace(&mut self.window, window) != window;
        let wrote = std::mem::replace(&mut self.wrote, writes::is_seen_by_others(settler));
        wrote || entered_or_left
    }
}

/// What was found at the deaths of one settlement.
struct Found {
    findings: Findings,
    /// How many destructors had begun before it.
    begun_before: u64,
    /// That of the first destructor that the settlement enters; of more, the first has begun.
    entrance: Entrance,
    /// Whether the value was in quarantine by the death of the victim already.
    victims: Option<bool>,
    /// The last death: at which boundary, whether a destructor had begun, and what was found. It
    /// stands for all boundaries up to the next.
    last: Option<(u64, bool, Findings)>,
}

impl Found {
    fn new(run: &Run) -> Self {
        let begun_before = run.world.destructors_begun();
        let entrance = Entrance::of(1, run.world.way_into_destructor());
        let findings = Findings::default();
        Self { findings, begun_before, entrance, victims: None, last: None }
    }

    fn destructor_begun(&self, run: &Run) -> bool {
        run.world.destructors_begun() > self.begun_before
    }

    /// Takes in the next one, in order.
    fn take(&mut self, boundary: u64, begun: bool, findings: Findings) {
        self.up_to(boundary);
        self.last = Some((boundary, begun, findings));
    }

    /// What was found at all boundaries before this one.
    fn up_to(&mut self, boundary: u64) -> Findings {
        if let Some((from, begun, findings)) = self.last.take() {
            // Of the first, the settler has executed nothing.
            let victims = *self.victims.get_or_insert(findings.contains(Findings::QUARANTINED));
            // If the settler's death has put it there, that is judged here; else, by the sweep.
            self.findings |= match victims {
                true => findings,
                false => {
                    self.entrance.judge_many(boundary - from, begun, findings).without_quarantine()
                }
            };
        }
        self.findings
    }
}

/// Kills the settler, settles what it held itself, and does its work from the beginning.
fn begin_again(run: &mut Run, settler: TaskId, corpse: Corpse) -> Vec<Settled> {
    operation::note_settler_died();
    run.world.at_settler_death();
    let (frozen, _) = run.machine.frozen(settler);
    // SAFETY: the settler is killed below and never runs again; the corpse is as it left it.
    unsafe { take_over(&frozen, corpse.ledger.as_ref(), &corpse.domain) };
    let mut settled = run.machine.kill(settler);
    // SAFETY: the first settler is dead.
    unsafe { corpse.settle(|one| settled.push(one)) };
    settled
}
