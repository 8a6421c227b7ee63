//! What things cost, in instructions: under `-icount shift=0` a tick of the time-stamp counter is
//! one. Each claim is also a `@cost` line, which `cargo demo costs` makes a table of.
#![expect(unsafe_code, reason = "faults on purpose")]

use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use drop_registry::safepoint;
use keeper::{Case, Policy, Verdict};

use crate::keeping;
use crate::scenarios::{Scenario, Stage, deaths};
use crate::serial::write_line;
use crate::tasks::Spawn;
use crate::timer;
use crate::tracked::{Kernel, Mutex};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "costs",
    summary: "what a resumed fault and a death cost, in instructions",
    ..Scenario::kept(run)
};

/// How often each is measured. The least counts: the timer's trap may come in between.
const TIMES: usize = 16;

/// What the whole round trip and a safepoint may take, so that nobody makes them long without
/// knowing. Compilers differ, so it is more than they do take.
const MOST_ROUND_TRIP: u64 = 1100;
const MOST_SAFEPOINT: u64 = 4;

/// Skips the two bytes of a `ud2`.
#[derive(Debug)]
struct SkipUd2;

impl Policy for SkipUd2 {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        case.frozen().registers_mut().rip += 2;
        Verdict::Resume
    }
}

static ROUND_TRIP: AtomicU64 = AtomicU64::new(u64::MAX);

fn resumed(_: usize) {
    for time in 0..=TIMES {
        let before = timer::now();
        // SAFETY: the policy skips it, and changes no register.
        unsafe { asm!("ud2", options(nomem, nostack, preserves_flags)) };
        let after = timer::now();
        // What the reading of the clock itself takes is in both differences once.
        let clock = timer::now() - after;
        // Not the first one: what is looked for in turn is found sooner then.
        if time > 0 {
            ROUND_TRIP.fetch_min(after - before - clock, Ordering::Relaxed);
        }
    }
}

/// Many in a row, so that the loop's own part is known.
fn safepoint_cost() -> u64 {
    const COUNT: u64 = 8;
    let mut least = u64::MAX;
    for _ in 0..TIMES {
        let before = timer::now();
        safepoint::<Kernel>();
        safepoint::<Kernel>();
        safepoint::<Kernel>();
        safepoint::<Kernel>();
        safepoint::<Kernel>();
        safepoint::<Kernel>();
        safepoint::<Kernel>();
        safepoint::<Kernel>();
        let after = timer::now();
        let clock = timer::now() - after;
        least = least.min((after - before - clock) / COUNT);
    }
    least
}

const LOCKS: usize = 16;
static LOCK: [Mutex<u64>; LOCKS] = [const { Mutex::new(0) }; LOCKS];
static HOLD: AtomicUsize = AtomicUsize::new(0);

/// Goes down to `depth` frames, and dies with the locks in hand.
#[inline(never)]
fn descend(depth: usize) -> u64 {
    let frame = black_box(depth as u64);
    if depth > 0 {
        return descend(depth - 1) + black_box(frame);
    }
    for lock in &LOCK[..HOLD.load(Ordering::Relaxed)] {
        match lock.lock() {
            Ok(guard) => core::mem::forget(guard),
            Err(keeper_told) => core::mem::forget(keeper_told),
        }
    }
    deaths::invalid_opcode();
    frame
}

fn dying(depth: usize) {
    black_box(descend(depth));
}

fn run(stage: &mut Stage) {
    let spawn = Spawn::new("resumed", resumed).policy(&SkipUd2);
    let task = spawn.start().expect("room for a task");
    stage.wait_for_end_of(task);
    let round_trip = ROUND_TRIP.load(Ordering::Relaxed);
    write_line(format_args!("@cost resume-round-trip-whole instructions={round_trip}"));
    stage.check("the task was resumed each time", round_trip != u64::MAX);
    stage.check("a round trip is short", round_trip <= MOST_ROUND_TRIP);
    let safepoint = safepoint_cost();
    write_line(format_args!("@cost safepoint instructions={safepoint}"));
    stage.check("a safepoint is a load and a branch", safepoint <= MOST_SAFEPOINT);
    let bytes = keeping::CAPACITY.bytes_per_task();
    write_line(format_args!("@cost memory-per-task bytes={bytes}"));

    for resources in [1, 4, 16] {
        for frames in [4, 16, 64] {
            HOLD.store(resources, Ordering::Relaxed);
            // Besides these there are the task's own three.
            let task = stage.spawn_with("dying", dying, frames - 4);
            let Some(report) = stage.report_on(task) else { return };
            let (free, gone) =
                (report.settled_at - report.stopped_at, report.gone_at - report.stopped_at);
            let walked = report.frames.len();
            write_line(format_args!(
                "@cost exit-to-free resources={resources} frames={frames} instructions={free}"
            ));
            write_line(format_args!(
                "@cost exit-to-gone resources={resources} frames={frames} instructions={gone}"
            ));
            stage.check(format_args!("{walked} frames"), walked == frames);
        }
    }
}
