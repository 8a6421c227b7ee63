//! What a death means to others.

mod children;
mod one_for_all;
mod peers;
mod rest_for_one;
mod restart_intensity;
mod supervision_tree;

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    one_for_all::SCENARIO,
    rest_for_one::SCENARIO,
    restart_intensity::SCENARIO,
    supervision_tree::SCENARIO,
    peers::SCENARIO,
];
