//! What a policy decides, when it is asked, and what if nobody answers.

mod caught_by_recovery_point;
mod deadlock_found;
mod deferred_verdict;
mod demand_paging;
mod divide_error_restarted;
mod held_as_corpse;
mod keeper_dies_ruling;
mod keeper_overdue;
mod killed_at_safepoint;
mod lazy_pages;
mod meters;

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    divide_error_restarted::SCENARIO,
    deadlock_found::SCENARIO,
    killed_at_safepoint::SCENARIO,
    meters::SCENARIO,
    demand_paging::SCENARIO,
    held_as_corpse::SCENARIO,
    deferred_verdict::SCENARIO,
    caught_by_recovery_point::SCENARIO,
    keeper_dies_ruling::SCENARIO,
    keeper_overdue::SCENARIO,
];
