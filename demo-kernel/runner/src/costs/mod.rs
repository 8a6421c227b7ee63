//! `cargo demo costs`: what things cost, in instructions and bytes.
//!
//! The kernel measures: its scenario `costs` tells each figure in a `@cost` line. Here the figures
//! are shown, and with them the straight lines through those that depend on a number. What a
//! resumed fault costs is split besides: by whose code it is, and by how far the fault has come.

mod cost;
mod line;
mod owner;
mod round_trip;

use std::time::Duration;

pub(crate) use cost::{Cost, CostError};
pub(crate) use round_trip::RoundTrip;

/// The scenario that measures.
pub(crate) const SCENARIO: &str = "costs";

/// How long it may take, in real time.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The lines that show `costs`.
pub(crate) fn text(costs: &[Cost]) -> String {
    let figures = costs.iter().map(ToString::to_string);
    let lines = line::lines(costs).into_iter().map(|line| line.to_string());
    figures.chain(lines).map(|line| line + "\n").collect()
}
