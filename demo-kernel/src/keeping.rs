//! The kernel as its keepers see it, and the keepers' own tasks.
#![expect(unsafe_code, reason = "promises what `Platform` asks for, and names the image's tables")]

use alloc::boxed::Box;
use core::array;
use core::fmt::{self, Write};
use core::iter;
use core::ops::Range;
use core::slice;

use crossbeam_queue::ArrayQueue;
use drop_registry::{Domain, WindowTable};
use keeper::unwind::{CompiledMemory, Images, LoadedSection, UnwindTables};
use keeper::{
    CannotRestart, Capacity, End, KeeperId, Keepers, Meter, NoSuchTask, PeerError, Platform,
    Policy, PostError, RegisterError, Report, Stopped, Token, TooLate, Usage, Verdict, policy,
};
use log::{error, info, warn};
use spin::Once;
use task_model::{FaultInfo, FrozenTask, TaskId};

use crate::exit::{ExitStatus, exit};
use crate::serial::write_line;
use crate::tasks::{self, Class, Spawn, TaskError};
use crate::tracked::TRAP_LEDGER;
use crate::{image, post_mortem, stacks, timer};

static KEEPERS: Once<Keepers<Kernel>> = Once::new();
static REPORTS: Once<ArrayQueue<Report>> = Once::new();

/// Judges the report with which the kernel ends, if that is what a scenario is about.
static EXPECTED_PANIC: Once<fn(&Report) -> bool> = Once::new();

/// A keeper that dies begins again, with what is posted for it; but not for ever.
static KEEPERS_RESTART: policy::Restart = policy::Restart { at_most: 8 };

/// How many reports wait to be read; the oldest gives way to one more.
const REPORTS_KEPT: usize = 8;

/// What the keepers have room for.
pub(crate) const CAPACITY: Capacity =
    Capacity { tasks: tasks::CAPACITY, keepers: 4, deferred: 4, corpses: tasks::CAPACITY };

/// This kernel. A tick of its time is one of the time-stamp counter: an instruction, under
/// `-icount shift=0`.
#[derive(Debug)]
pub(crate) struct Kernel;

// SAFETY: a seized task is `Frozen` or `Held`, which the scheduler never runs, and stays so until
// `resume` makes it ready, or `restart` begins another life of its slot; with one CPU there is
// nobody to wait for, since whoever runs a keeper is not running the task, whose registers are all
// in its record. The ledger and the stack are those of the same record. Nobody else seizes. Stacks
// return to the pool only in `retire` and `restart`, which reset the ledger. Each of these is one
// step, with interrupts off.
unsafe impl Platform for Kernel {
    fn now(&self) -> u64 {
        timer::now()
    }

    fn seize(&self, id: TaskId) -> Result<Stopped<'_>, NoSuchTask> {
        // SAFETY: keepers have a task in hand one at a time, and nobody else seizes, resumes or
        // retires tasks while there are keepers.
        unsafe { tasks::seize(id) }.map_err(|_| NoSuchTask(id))
    }

    fn resume(&self, stopped: Stopped<'_>) {
        tasks::resume(stopped.task.id()).expect("a seized task can be resumed");
    }

    fn retire(&self, stopped: Stopped<'_>) {
        tasks::retire(stopped.task.id()).expect("a seized task can be retired");
    }

    fn restart<'a>(&'a self, stopped: Stopped<'a>) -> Result<TaskId, CannotRestart<'a>> {
        tasks::restart(stopped.task.id()).map_err(|_| CannotRestart(stopped))
    }

    fn hold(&self, stopped: Stopped<'_>) {
        tasks::hold(stopped.task.id()).expect("a seized task can be held");
    }

    fn panic_message(&self, task: TaskId) -> Option<&str> {
        Some(tasks::panic_note(task).ok()??.as_str())
    }

    fn pull_kill_switch(&self, task: TaskId) {
        // One that is gone need not stop.
        let _ = tasks::pull_kill_switch(task);
    }

    fn wake(&self, keeper: TaskId) {
        // Of one that is gone: whoever keeps it does what it had to do.
        let _ = tasks::unpark(keeper);
    }

    fn panic(&self, report: &Report) -> ! {
        write_line(format_args!("kernel panic, by a keeper's verdict"));
        let _ = write!(LogLines::default(), "{report}");
        let expected = EXPECTED_PANIC.get().is_some_and(|judge| judge(report));
        exit(if expected { ExitStatus::Success } else { ExitStatus::Failure })
    }
}

/// Starts the keeper's task.
///
/// # Panics
/// If the image's unwind tables are not what they should be, or there is no room for the task.
pub(crate) fn start() {
    let section = |range: Range<u64>| LoadedSection { bytes: bytes(&range), address: range.start };
    let tables = UnwindTables::new(
        section(image::eh_frame_hdr()),
        section(image::eh_frame()),
        image::text(),
    )
    .expect("the linker made the unwind tables")
    .with_language_tables(section(image::gcc_except_table()))
    .with_code(section(image::text()));
    let size = tables.compiled_size().expect("the text has less than 4 GiB");
    info!("unwind tables: {size}");
    let memory = Box::leak(Box::new(CompiledMemory::new(&size)));
    let tables = tables.compile(memory).expect("the memory is as large as it has to be");
    KEEPERS.call_once(|| {
        Keepers::new(Kernel, domain(), tables, CAPACITY).with_post_mortem(post_mortem::ring())
    });
    REPORTS.call_once(|| ArrayQueue::new(REPORTS_KEPT));
    spawn_keeper(KeeperId::ROOT);
}

/// Registers a keeper, and starts its task.
///
/// # Errors
/// As [`Keepers::register`].
///
/// # Panics
/// If keepers have not been started, or there is no room for the task.
pub(crate) fn register(
    parent: KeeperId,
    policy: &'static dyn Policy,
    patience: u64,
) -> Result<KeeperId, RegisterError> {
    let keepers = KEEPERS.get().expect("the scenario is one with keepers");
    let keeper = keepers.register(parent, policy, patience)?;
    spawn_keeper(keeper);
    Ok(keeper)
}

fn spawn_keeper(keeper: KeeperId) {
    let number = usize::from(keeper.number());
    let task = Spawn::new("keeper", serve).argument(number).class(Class::Urgent);
    task.policy(&KEEPERS_RESTART).start().expect("room for a keeper");
}

/// Has the task's keeper end it: at once, or at the end of a section in which that must wait.
///
/// # Errors
/// As [`Keepers::kill`]; and if there are no keepers.
pub(crate) fn kill(task: TaskId) -> Result<(), PostError> {
    KEEPERS.get().ok_or(PostError::NobodyKeeps(task))?.kill(task)
}

/// Has the task end at its next safepoint, or after so many ticks of the platform's time.
///
/// # Errors
/// As [`kill`].
pub(crate) fn kill_at_safepoint(task: TaskId, within: u64) -> Result<(), PostError> {
    KEEPERS.get().ok_or(PostError::NobodyKeeps(task))?.kill_at_safepoint(task, within)
}

/// Lets go of a task that is held.
///
/// # Errors
/// As [`kill`].
pub(crate) fn release(task: TaskId) -> Result<(), PostError> {
    KEEPERS.get().ok_or(PostError::NobodyKeeps(task))?.release(task)
}

/// Rules on the case whose token this is.
///
/// # Errors
/// If it comes too late.
pub(crate) fn answer(token: Token, verdict: Verdict) -> Result<(), TooLate> {
    KEEPERS.get().ok_or(TooLate)?.answer(token, verdict)
}

/// Says that the kernel is to end by a keeper's verdict, and who judges whether it is the right
/// one.
pub(crate) fn expect_panic(judge: fn(&Report) -> bool) {
    EXPECTED_PANIC.call_once(|| judge);
}

/// Ends the kernel because of a fault where no task can answer for it.
pub(crate) fn panic_at(interrupted: FrozenTask<'_>, fault: &FaultInfo) -> ! {
    let Some(keepers) = KEEPERS.get() else { exit(ExitStatus::Failure) };
    let stopped = Stopped { task: interrupted, ledger: &TRAP_LEDGER, policy: None, restarts: 0 };
    keepers.panic_at(&stopped, fault, timer::now())
}

/// Names the keeper of a task that is about to begin.
pub(crate) fn keep(task: TaskId, keeper: KeeperId) {
    if let Some(keepers) = KEEPERS.get() {
        keepers.keep(task, keeper).expect("a registered keeper, and a task that serves none");
    }
}

/// What ledgers may speak of: the image's variables, its heaps among them, and the stacks.
pub(crate) fn domain() -> Domain<'static> {
    type Ranges<const N: usize> = [Range<u64>; N];
    static RANGES: Once<(Ranges<1>, Ranges<{ stacks::COUNT + 1 }>)> = Once::new();
    let (constants, data) = RANGES.call_once(|| {
        let stacks = stacks::all().map(|stack| stack.base()..stack.top());
        // The variables first: most of what a ledger lists is there.
        let mut data = iter::once(image::data()).chain(stacks);
        ([image::constants()], array::from_fn(|_| data.next().unwrap_or_default()))
    });
    // SAFETY: the constants are mapped read-only, and hold what the linker put there; the variables
    // and the stacks are mapped, to be written, for ever.
    unsafe { Domain::new(WindowTable::linked(), constants, data) }
}

fn bytes(range: &Range<u64>) -> &'static [u8] {
    let start = core::ptr::with_exposed_provenance(range.start as usize);
    // SAFETY: the range is a section of the linked image, which is mapped read-only for ever.
    unsafe { slice::from_raw_parts(start, (range.end - range.start) as usize) }
}

/// A task has stopped at time `at`, for good unless its keeper rules otherwise. Called in the
/// trap, so this neither allocates nor locks nor waits.
pub(crate) fn task_faulted(task: TaskId, fault: FaultInfo, at: u64) {
    let Some(keepers) = KEEPERS.get() else { return };
    match keepers.post(task, fault, at) {
        Err(PostError::NobodyKeeps(_)) => panic!("the root keeper died: {fault}"),
        Err(lost) => error!("{lost}"),
        Ok(()) => {}
    }
}

/// Sets what the tasks with this number may use, in ticks of the timer.
///
/// # Errors
/// As [`Keepers::set_meter`]; and if there are no keepers.
pub(crate) fn set_meter(task: TaskId, meter: &Meter) -> Result<(), RegisterError> {
    KEEPERS.get().ok_or(RegisterError::NoSuchTask(task))?.set_meter(task, meter)
}

/// Charges all tasks for a tick, which `running` has run.
fn charge(keepers: &Keepers<Kernel>, running: TaskId, at: u64) {
    for (task, ledger) in tasks::ledgers() {
        let usage = Usage { now: timer::ticks(), ran: u64::from(task == running), ledger };
        let is_waited_for =
            |lock| tasks::ledgers().any(|(other, it)| other != task && it.waiting() == lock);
        if let Some(kind) = keepers.charge(task, &usage, is_waited_for) {
            // One that has stopped meanwhile has another fault.
            let _ = fault_at(task, |rip| FaultInfo::metered(kind, rip), at);
        }
    }
}

/// Stops a task where it stands, for a reason that `why` makes a fault of, and tells its keeper.
///
/// # Errors
/// If the task is gone, or has stopped already.
pub(crate) fn fault(task: TaskId, why: impl FnOnce(u64) -> FaultInfo) -> Result<(), TaskError> {
    fault_at(task, why, timer::now())
}

fn fault_at(task: TaskId, why: impl FnOnce(u64) -> FaultInfo, at: u64) -> Result<(), TaskError> {
    tasks::freeze_as(task, why).map(|fault| task_faulted(task, fault, at))
}

/// Ends what has come to its time, and charges `running` for a tick: for the timer's trap.
pub(crate) fn tick(running: TaskId) {
    let Some(keepers) = KEEPERS.get() else { return };
    let now = timer::now();
    charge(keepers, running, now);
    keepers.tick(now, |late| {
        // One that has stopped meanwhile has another fault.
        let _ = fault_at(late, FaultInfo::overdue, now);
    });
}

/// A keeper's task.
fn serve(keeper: usize) {
    let Some(keepers) = KEEPERS.get() else { return };
    let keeper = KeeperId::from_number(keeper as u8);
    let mut seat = keepers.sit(keeper, tasks::current()).expect("each keeper has one task");
    loop {
        let served = seat.serve(|told| match told {
            Ok(report) if report.verdict == Some(Verdict::Resume) => {}
            Ok(report) => publish(report),
            Err(gone) => warn!("{gone}"),
        });
        if !served {
            tasks::park();
        }
    }
}

/// Logs a report, and keeps it for a scenario to read. It is large, and so is what this takes of
/// the stack.
#[cold]
fn publish(report: &Report) {
    // Writing to the log cannot fail.
    let _ = write!(LogLines::default(), "{report}");
    if let Some(reports) = REPORTS.get() {
        reports.force_push(report.clone());
    }
}

/// Logs what is written to it line by line: a report is longer than a line of the log may be.
#[derive(Default)]
struct LogLines(heapless::String<160>);

impl Write for LogLines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            let _ = self.0.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') {
                info!("{}", self.0);
                self.0.clear();
            }
        }
        Ok(())
    }
}

impl Drop for LogLines {
    fn drop(&mut self) {
        info!("{}", self.0);
    }
}

/// The images whose frames the keepers can name, if there are keepers.
pub(crate) fn images() -> Option<&'static Images<'static>> {
    KEEPERS.get().map(Keepers::images)
}

/// A task has finished, and holds nothing. Called in the trap.
pub(crate) fn finished(task: TaskId) {
    if let Some(keepers) = KEEPERS.get() {
        keepers.finished(task);
    }
}

/// Waits for the end of a life of a task, and says how it ended.
///
/// # Errors
/// If the task that calls cannot watch it.
pub(crate) fn join(task: TaskId) -> Result<End, PeerError> {
    let (Some(keepers), Some(me)) = (KEEPERS.get(), tasks::current()) else {
        return Err(PeerError::NoSuchTask(task));
    };
    match keepers.monitor(me, task) {
        Err(PeerError::Ended(it, end)) if it == task => return Ok(end),
        monitored => monitored?,
    }
    loop {
        if let Some(end) = keepers.end_of(task) {
            keepers.demonitor(me, task);
            return Ok(end);
        }
        tasks::park();
    }
}

/// Links two tasks: if one of them dies, the other one is killed.
///
/// # Errors
/// As [`Keepers::link`].
pub(crate) fn link(one: TaskId, other: TaskId) -> Result<(), PeerError> {
    KEEPERS.get().ok_or(PeerError::NoSuchTask(one))?.link(one, other)
}

/// The keeper that this task serves.
pub(crate) fn served_by(task: TaskId) -> Option<KeeperId> {
    KEEPERS.get()?.served_by(task)
}

/// The oldest report that nobody has read.
pub(crate) fn next_report() -> Option<Report> {
    REPORTS.get()?.pop()
}
