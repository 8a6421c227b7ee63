//! A task whose policy keeps it to be looked at: its locks are free, its memory stays.
#![expect(unsafe_code, reason = "reads what a corpse has, and promises to bear a tear")]

use core::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{DropAfterTear, LockError, Outcome, TrackedBox};
use keeper::{Verdict, policy};
use task_model::TaskState;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::{Kernel, Mutex};
use crate::{heap, keeping, tasks};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "held-as-corpse",
    summary: "a dead task is kept: its lock is free, what it had can still be read, until it is let go",
    ..Scenario::kept(run)
};

static LOCK: Mutex<u64> = Mutex::new(0);
/// Where the dead task's box is.
static BOX: AtomicU64 = AtomicU64::new(0);

static DROPS: AtomicU64 = AtomicU64::new(0);

/// What a dead task may leave to the keeper to drop; of a corpse, it does so at the end.
struct Kept([u64; 8]);

impl Drop for Kept {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the destructor does not look at the value.
unsafe impl DropAfterTear for Kept {}

const VALUE: [u64; 8] = [0xc0de; 8];

fn dying(_: usize) {
    let Ok(boxed) = TrackedBox::<_, Kernel>::new_droppable(Kept(VALUE)) else { return };
    BOX.store((&raw const boxed.0).expose_provenance() as u64, Ordering::Relaxed);
    let _held = LOCK.lock();
    deaths::page_fault();
}

fn run(stage: &mut Stage) {
    let before = heap::books();
    let task = stage.spawn_under(&policy::Hold, "dying", dying);
    let Some(report) = stage.report_on(task) else { return };
    let kept = report.count(Outcome::Orphaned);
    let held = report.verdict == Some(Verdict::Hold);
    stage.check("the verdict is to hold it", held);
    stage.check("it is a corpse", tasks::state(task) == Ok(TaskState::Held));
    let told = matches!(LOCK.lock(), Err(LockError::OwnerDied(_)));
    stage.check("its lock is free, and the next owner told", told);
    stage.check("its box is listed", kept == 1);
    let drops = DROPS.load(Ordering::Relaxed);
    stage.check("and neither dropped nor freed", drops == 0 && heap::books() != before);
    let value =
        core::ptr::with_exposed_provenance::<[u64; 8]>(BOX.load(Ordering::Relaxed) as usize);
    // SAFETY: the box is listed and not freed, so its block is there, and nobody writes to it.
    let value = unsafe { value.read_volatile() };
    stage.check("its value can still be read", value == VALUE);

    let asked = keeping::release(task);
    stage.check("it can be let go", asked.is_ok());
    let mut reclaimed = 0;
    stage.wait_for("the keeper reports that it is let go", || {
        let report = keeping::next_report().filter(|report| report.task == task);
        reclaimed = report.as_ref().map_or(0, |report| report.count(Outcome::Reclaimed));
        report.is_some()
    });
    stage.check("its box is dropped then", DROPS.load(Ordering::Relaxed) == 1);
    stage.check("and freed", reclaimed == 1 && heap::books() == before);
    stage.check("and its number is free", tasks::state(task).is_err());
}
