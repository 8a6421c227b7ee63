//! A module, loaded at run time, faults in a function that the kernel has called with a lock held.
#![expect(unsafe_code, reason = "calls code that was loaded")]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{LockError, Outcome};
use keeper::Report;
use keeper::unwind::{WalkEnd, WalkError};

use crate::scenarios::{Scenario, Stage};
use crate::tracked::Mutex;
use crate::{keeping, modules};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "module-faults",
    summary: "a loaded module faults under the kernel's lock; its frames have names until it goes",
    ..Scenario::kept(run)
};

/// The module, as `build.rs` has made it.
static FILE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/module.so"));

static VALUE: Mutex<u64> = Mutex::new(0);

/// Where the module begins to run.
static ENTRY: AtomicU64 = AtomicU64::new(0);

type WithLock = extern "C" fn(extern "C" fn(&mut u64));

/// What the kernel does for the module.
extern "C" fn with_lock(change: extern "C" fn(&mut u64)) {
    let Ok(mut value) = VALUE.lock() else { return };
    change(&mut value);
    black_box(&value);
}

/// The task: runs the module.
fn calling(_: usize) {
    let entry = core::ptr::with_exposed_provenance::<()>(ENTRY.load(Ordering::Relaxed) as usize);
    // SAFETY: the module is loaded, and its entry has this signature.
    let entry: extern "C" fn(WithLock) = unsafe { core::mem::transmute(entry) };
    entry(with_lock);
    black_box(());
}

/// Checks that the dead task's lock is free, that its next owner is told, and that the value is
/// what the module had made of it; and mends it.
fn check_the_lock(stage: &mut Stage) {
    let found = match VALUE.lock() {
        Err(LockError::OwnerDied(mut died)) => {
            let found = Some(*died.update());
            *died.update() = 0;
            drop(died.mark_consistent());
            found
        }
        _ => None,
    };
    stage.check(format_args!("the lock's next owner is told, and finds {found:?}"), {
        found == Some(7)
    });
}

fn run(stage: &mut Stage) {
    let module = match modules::load(FILE) {
        Ok(module) => module,
        Err(reason) => return stage.check(format_args!("the module is loaded: {reason}"), false),
    };
    ENTRY.store(module.entry, Ordering::Relaxed);
    let in_module = |report: &Report, n: usize| {
        let frame = report.frames.get(n);
        frame.is_some_and(|it| module.text.contains(&it.frame.address.lookup_address()))
    };
    let Some(images) = keeping::images() else {
        return stage.check("there is a keeper", false);
    };
    let Ok(id) = images.add(module.tables) else {
        return stage.check("the keeper knows of the module", false);
    };

    let dying = stage.spawn("calling", calling);
    if let Some(report) = stage.report_on(dying) {
        // The module's function, the kernel's, the module's entry, and the task.
        let path = [0, 1, 2, 3].map(|n| in_module(report, n));
        let end = report.walk_end;
        let holder = report.resources.iter().find(|it| it.outcome == Outcome::OwnerDied);
        let holder = holder.map(|lock| lock.frame);
        stage.check("the walk goes from the module to the kernel and back and forth", {
            path == [true, false, true, false]
        });
        stage.check("to the task's entry", end == WalkEnd::Complete);
        stage.check("the lock was that of the kernel's frame", holder == Some(Some(1)));
    }
    check_the_lock(stage);

    stage.check("the module's tables are removed", images.remove(id) == Ok(()));
    let dying = stage.spawn("calling", calling);
    if let Some(report) = stage.report_on(dying) {
        let (end, frames) = (report.walk_end, report.frames.len());
        let address = report.fault.instruction_pointer;
        let held = report.count(Outcome::OwnerDied);
        stage.check(format_args!("without them the walk says why it ends: {end}"), {
            end == WalkEnd::Partial(WalkError::NoFde(address)) && frames == 1
        });
        stage.check("one lock was released nevertheless", held == 1);
    }
    check_the_lock(stage);
}
