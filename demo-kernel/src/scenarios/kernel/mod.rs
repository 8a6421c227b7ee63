//! What concerns the kernel as a whole, or what no task has.

mod costs;
mod fault_outside_of_tasks;
mod kernel_claims;
mod module_faults;
mod no_keeper;
mod post_mortem_after_reset;

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    fault_outside_of_tasks::IN_TRAP_HANDLER,
    fault_outside_of_tasks::WITH_INTERRUPTS_OFF,
    post_mortem_after_reset::SCENARIO,
    costs::SCENARIO,
    module_faults::SCENARIO,
    no_keeper::SCENARIO,
    kernel_claims::SCENARIO,
];
