//! What the kernel can be asked to show, by the word `scenario=NAME` on its command line.
//!
//! A scenario looks at the resources themselves: it takes the lock again, reads the value, counts
//! the drops. The keeper's report is checked for what it says of frames, and is where the outcome
//! line has its numbers from; it is never what decides whether a resource came back.

mod allocator_lock_holder_dies;
mod box_in_nounwind_frame;
mod caught_by_recovery_point;
mod children;
mod costs;
mod deadlock_found;
mod deaths;
mod demand_paging;
mod destructor_takes_lock;
mod divide_error_restarted;
mod fault_outside_of_tasks;
mod invalid_opcode_nested_locks;
mod keeper_dies_ruling;
mod keeper_overdue;
mod kernel_claims;
mod killed_at_safepoint;
mod killed_in_empty_loop;
mod lazy_pages;
mod lock_before_tasking;
mod meters;
mod module_faults;
mod no_keeper;
mod one_for_all;
mod page_fault_holding_lock;
mod panic_holding_lock;
mod peers;
mod post_mortem_after_reset;
mod refcount_held;
mod repair_routine;
mod rest_for_one;
mod restart_intensity;
mod returns_holding_lock;
mod rollback_mutex;
mod stack_overflow;
mod stage;
mod supervision_tree;
mod torn_slice;

use log::error;

use self::stage::Stage;
use crate::exit::{ExitStatus, exit};
use crate::serial::write_line;
use crate::tasks::Spawn;
use crate::{command_line, keeping};

/// One thing to show, with its checks.
struct Scenario {
    name: &'static str,
    summary: &'static str,
    /// Whether tasks are kept.
    keeper: bool,
    /// Runs at boot, before there are tasks.
    before_tasking: fn(),
    /// Runs as a task.
    run: fn(&mut Stage),
}

impl Scenario {
    /// One whose tasks are kept; the name and the summary are still to be given.
    const fn kept(run: fn(&mut Stage)) -> Self {
        Self { name: "", summary: "", keeper: true, before_tasking: || (), run }
    }
}

const SCENARIOS: &[Scenario] = &[
    page_fault_holding_lock::SCENARIO,
    panic_holding_lock::SCENARIO,
    killed_in_empty_loop::SCENARIO,
    box_in_nounwind_frame::SCENARIO,
    refcount_held::SCENARIO,
    torn_slice::SCENARIO,
    rollback_mutex::SCENARIO,
    repair_routine::SCENARIO,
    lock_before_tasking::SCENARIO,
    invalid_opcode_nested_locks::SCENARIO,
    stack_overflow::SCENARIO,
    divide_error_restarted::SCENARIO,
    returns_holding_lock::SCENARIO,
    destructor_takes_lock::SCENARIO,
    allocator_lock_holder_dies::SCENARIO,
    deadlock_found::SCENARIO,
    killed_at_safepoint::SCENARIO,
    meters::SCENARIO,
    demand_paging::SCENARIO,
    caught_by_recovery_point::SCENARIO,
    keeper_dies_ruling::SCENARIO,
    keeper_overdue::SCENARIO,
    one_for_all::SCENARIO,
    rest_for_one::SCENARIO,
    restart_intensity::SCENARIO,
    supervision_tree::SCENARIO,
    peers::SCENARIO,
    fault_outside_of_tasks::IN_TRAP_HANDLER,
    fault_outside_of_tasks::WITH_INTERRUPTS_OFF,
    post_mortem_after_reset::SCENARIO,
    costs::SCENARIO,
    module_faults::SCENARIO,
    no_keeper::SCENARIO,
    kernel_claims::SCENARIO,
];

/// Spawns the task that runs the scenario of the command line and then ends the machine.
///
/// `scenario=list` prints a line `@scenario NAME SUMMARY` for each and ends at once.
pub(crate) fn spawn_selected() {
    let name = command_line::value("scenario").unwrap_or("list");
    if name == "list" {
        for scenario in SCENARIOS {
            write_line(format_args!("@scenario {} {}", scenario.name, scenario.summary));
        }
        exit(ExitStatus::Success);
    }
    let Some(index) = SCENARIOS.iter().position(|scenario| scenario.name == name) else {
        error!("there is no scenario {name}");
        exit(ExitStatus::Failure);
    };
    (SCENARIOS[index].before_tasking)();
    if SCENARIOS[index].keeper {
        keeping::start();
    }
    Spawn::new("scenario", run).argument(index).start().expect("the first tasks find room");
}

fn run(index: usize) {
    let mut stage = Stage::open();
    (SCENARIOS[index].run)(&mut stage);
    exit(if stage.close() { ExitStatus::Success } else { ExitStatus::Failure })
}
