//! The kernel as its keeper sees it, and the keeper's own task.
#![expect(unsafe_code, reason = "promises what `Platform` asks for, and names the image's tables")]

use alloc::boxed::Box;
use core::array;
use core::fmt::{self, Write};
use core::iter;
use core::ops::Range;
use core::slice;

use crossbeam_queue::ArrayQueue;
use drop_registry::{Domain, WindowTable};
use keeper::unwind::{CompiledMemory, LoadedSection, UnwindTables};
use keeper::{CannotRestart, Keeper, NoSuchTask, Platform, Report, Stopped};
use log::{error, info, warn};
use spin::Once;
use task_model::{FaultInfo, TaskId};

use crate::tasks::{self, Class, Spawn};
use crate::{image, stacks, timer};

static KEEPER: Once<Keeper<Kernel>> = Once::new();
static KEEPER_TASK: Once<TaskId> = Once::new();
static REPORTS: Once<ArrayQueue<Report>> = Once::new();

/// How many reports wait to be read; the oldest gives way to one more.
const REPORTS_KEPT: usize = 8;

/// This kernel.
#[derive(Debug)]
struct Kernel;

// SAFETY: a seized task is `Frozen` or `Held`, which the scheduler never runs, and stays so until
// `restart` begins another life of its slot; with one CPU there is nobody to wait for, since
// whoever runs the keeper is not running the task, whose registers are all in its record. The
// ledger and the stack are those of the same record. The keeper's one task seizes one task at a
// time and gives it back. Stacks return to the pool only in `retire` and `restart`, which reset
// the ledger.
unsafe impl Platform for Kernel {
    fn now(&self) -> u64 {
        timer::now()
    }

    fn seize(&self, id: TaskId) -> Result<Stopped<'_>, NoSuchTask> {
        // SAFETY: the keeper's one task has one task in hand at a time, and nobody else seizes,
        // resumes or retires tasks while there is a keeper.
        unsafe { tasks::seize(id) }.map_err(|_| NoSuchTask(id))
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
    .with_language_tables(section(image::gcc_except_table()));
    let size = tables.compiled_size().expect("the text has less than 4 GiB");
    info!("unwind tables: {size}");
    let memory = Box::leak(Box::new(CompiledMemory::new(&size)));
    let tables = tables.compile(memory).expect("the memory is as large as it has to be");
    // One fault and one kill of every task: the mailbox cannot overflow.
    KEEPER.call_once(|| Keeper::new(Kernel, domain(), tables, 2 * tasks::CAPACITY));
    REPORTS.call_once(|| ArrayQueue::new(REPORTS_KEPT));
    let task = Spawn::new("keeper", serve).class(Class::Urgent).start();
    KEEPER_TASK.call_once(|| task.expect("room for the keeper"));
}

/// What ledgers may speak of: the image's variables, its heaps among them, and the stacks.
fn domain() -> Domain<'static> {
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

/// A task has stopped at time `at`, for good unless the keeper rules otherwise. Called in the
/// trap, so this neither allocates nor locks nor waits.
pub(crate) fn task_faulted(task: TaskId, fault: FaultInfo, at: u64) {
    let (Some(keeper), Some(keeper_task)) = (KEEPER.get(), KEEPER_TASK.get()) else { return };
    // Nobody keeps the keeper yet.
    assert_ne!(task, *keeper_task, "the keeper died: {fault}");
    if keeper.post(task, fault, at).is_err() {
        error!("task {task} is lost to its keeper: the mailbox is full");
    }
    let _ = tasks::unpark(*keeper_task);
}

/// The keeper's task.
fn serve(_: usize) {
    let (Some(keeper), Some(reports)) = (KEEPER.get(), REPORTS.get()) else { return };
    loop {
        let served = keeper.serve(|told| match told {
            Ok(report) => {
                // Writing to the log cannot fail.
                let _ = write!(LogLines::default(), "{report}");
                reports.force_push(report.clone());
            }
            Err(gone) => warn!("{gone}"),
        });
        if !served {
            tasks::park();
        }
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

/// Whether this is the keeper itself.
pub(crate) fn is_keeper(task: TaskId) -> bool {
    KEEPER_TASK.get() == Some(&task)
}

/// The oldest report that nobody has read.
pub(crate) fn next_report() -> Option<Report> {
    REPORTS.get()?.pop()
}
