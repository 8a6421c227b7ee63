//! The counts, for people.

use std::fmt::Write as _;

use console::style;

use super::count::Counted;
use super::{Coverage, FunctionCoverage};

/// The totals, and the `top` functions with most instructions out of reach.
pub(crate) fn text(coverage: &Coverage, top: usize) -> String {
    let mut text = format!("{:<30} {:>10} {:>22}\n", "", "all", "with a landing pad");
    for (what, counted) in [
        ("functions", coverage.functions),
        ("instructions", coverage.total.instructions),
        ("instructions that can fault", coverage.total.can_fault),
        ("calls", coverage.total.calls),
    ] {
        let Counted { all, covered } = counted;
        // Writing to a `String` cannot fail.
        _ = writeln!(text, "{what:<30} {all:>10} {covered:>12} {:>7.1} %", percent(counted));
    }
    _ = writeln!(text, "{:<30} {:>10}", "bytes without unwind entry", coverage.bytes_without_entry);
    if coverage.unreadable > 0 {
        let line = format!("{} functions have an unreadable language table", coverage.unreadable);
        _ = writeln!(text, "{}", style(line).red());
    }
    let mut functions: Vec<_> = coverage.details.iter().collect();
    functions.sort_by_key(|f| std::cmp::Reverse(f.counts.can_fault.uncovered()));
    functions.truncate(top);
    if !functions.is_empty() {
        _ = writeln!(text, "\n{:>12} {:>12} {:>12}", "can fault", "out of reach", "calls");
        for function in functions {
            text.push_str(&line(function));
        }
    }
    text
}

fn line(function: &FunctionCoverage) -> String {
    let counts = &function.counts;
    let name = match &function.name {
        Some(name) => shortened(name),
        None => format!("{:#x}", function.address),
    };
    format!(
        "{:>12} {:>12} {:>12}  {name}\n",
        counts.can_fault.all,
        counts.can_fault.uncovered(),
        format!("{}/{}", counts.calls.covered, counts.calls.all),
    )
}

/// The name, or as much of it as a line of 100 columns has room for.
fn shortened(name: &str) -> String {
    const WIDTH: usize = 59;
    match name.char_indices().nth(WIDTH) {
        None => name.to_owned(),
        Some(_) => name.chars().take(WIDTH - 1).chain(['…']).collect(),
    }
}

fn percent(counted: Counted) -> f64 {
    if counted.all == 0 { 0.0 } else { 100.0 * counted.covered as f64 / counted.all as f64 }
}
