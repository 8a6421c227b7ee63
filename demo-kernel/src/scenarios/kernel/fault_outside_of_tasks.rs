//! Faults that no task can answer for: the kernel ends, and says why.

use keeper::{Report, Verdict};
use task_model::{FaultKind, Place};

use crate::interrupts::without_interrupts;
use crate::scenarios::stage::judge_panic;
use crate::scenarios::{Scenario, Stage, deaths};
use crate::{keeping, tasks, timer};

pub(super) const IN_TRAP_HANDLER: Scenario = Scenario {
    name: "fault-in-trap-handler",
    summary: "a handler of the timer's trap faults: the kernel ends with a full report, and does not hang",
    ..Scenario::kept(in_trap_handler)
};

pub(super) const WITH_INTERRUPTS_OFF: Scenario = Scenario {
    name: "fault-with-interrupts-off",
    summary: "a task faults in the middle of something indivisible: by default the kernel ends",
    ..Scenario::kept(with_interrupts_off)
};

fn in_trap_handler(stage: &mut Stage) {
    keeping::expect_panic(|report| {
        judge(report, Place::Trap, FaultKind::InvalidOpcode, faulty_handler as *const () as u64)
    });
    timer::at_each_tick(faulty_handler);
    tasks::sleep_ticks(10);
    stage.check("the kernel does not go on after that", false);
}

#[inline(never)]
fn faulty_handler() {
    deaths::invalid_opcode();
}

fn with_interrupts_off(stage: &mut Stage) {
    keeping::expect_panic(|report| {
        judge(report, Place::InterruptsOff, FaultKind::PageFault, indivisible as *const () as u64)
    });
    let task = stage.spawn("indivisible", indivisible);
    stage.wait_for_end_of(task);
    stage.check("the kernel does not go on after that", false);
}

#[inline(never)]
fn indivisible(_: usize) {
    without_interrupts(deaths::page_fault);
}

/// Whether the report is about that.
fn judge(report: &Report, place: Place, kind: FaultKind, function: u64) -> bool {
    let named = report.frames.iter().any(|found| found.frame.function == Some(function));
    judge_panic(
        report,
        &[
            ("the kernel ended by a verdict", report.verdict == Some(Verdict::Panic)),
            ("the report knows the place", report.fault.place == place),
            ("and the fault", report.fault.kind == kind),
            ("its frames have names, the faulty one's among them", named),
        ],
    )
}
