//! The results as a table for people.

use std::fmt::Write as _;

use console::style;

use crate::report::Report;
use crate::transcript::Scenario;

/// The headings; the first [`TEXT_COLUMNS`] stand left, the rest are numbers and stand right.
const HEADINGS: [&str; 9] =
    ["scenario", "fault", "verdict", "frames", "released", "poisoned", "leaked", "free", "gone"];
const TEXT_COLUMNS: usize = 3;

/// Stands over the last two headings.
const OVER_LAST_TWO: &str = "instructions from trap to";

/// The least width of a column of instruction counts.
const COUNT_WIDTH: usize = 6;

type Cells = [String; HEADINGS.len()];

/// One row per scenario, and under a failed one the reason.
pub(crate) fn results(reports: &[Report]) -> String {
    let rows: Vec<Cells> = reports.iter().map(cells).collect();
    let headings = HEADINGS.map(str::to_owned);
    let widths: [usize; HEADINGS.len()] = std::array::from_fn(|column| {
        let least = if column + 2 >= HEADINGS.len() { COUNT_WIDTH } else { 0 };
        let all = rows.iter().chain([&headings]).map(|cells| cells[column].chars().count());
        all.fold(least, usize::max)
    });
    let heading = line(&headings, &widths);
    // The `2` is for the mark and the blank after it, in front of every row.
    let mut table =
        format!("{:>width$}\n  {heading}\n", OVER_LAST_TWO, width = 2 + heading.chars().count());
    for (report, cells) in reports.iter().zip(&rows) {
        let mark = if report.passed() { style("✓").green() } else { style("✗").red() };
        let row = line(cells, &widths);
        // Writing to a `String` cannot fail.
        _ = writeln!(table, "{mark} {row}");
        if let Some(failure) = &report.failure {
            _ = writeln!(table, "    {}", style(failure).red());
        }
    }
    table
}

/// How many held, and how many did not.
pub(crate) fn summary(reports: &[Report]) -> String {
    let failed = reports.iter().filter(|report| !report.passed()).count();
    let passed = reports.len() - failed;
    if failed == 0 {
        format!("{}\n", style(format!("{passed} passed")).green().bold())
    } else {
        format!("{passed} passed, {}\n", style(format!("{failed} failed")).red().bold())
    }
}

/// The scenarios that there are, one a line.
pub(crate) fn scenarios(scenarios: &[Scenario]) -> String {
    let width = scenarios.iter().map(|s| s.name.chars().count()).max().unwrap_or_default();
    scenarios.iter().map(|s| format!("{:width$}  {}\n", s.name, s.summary)).collect()
}

fn cells(report: &Report) -> Cells {
    let outcome = report.outcome.as_ref();
    let text = |value: Option<&String>| value.map_or_else(|| "-".to_owned(), Clone::clone);
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    [
        report.name.clone(),
        text(outcome.and_then(|o| o.fault.as_ref())),
        text(outcome.and_then(|o| o.verdict.as_ref())),
        number(outcome.map(|o| o.frames)),
        number(outcome.map(|o| o.released)),
        number(outcome.map(|o| o.poisoned)),
        outcome.map_or_else(|| "-".to_owned(), |o| format!("{} B", o.leaked)),
        number(outcome.and_then(|o| o.trap_to_free)),
        number(outcome.and_then(|o| o.trap_to_gone)),
    ]
}

fn line(cells: &Cells, widths: &[usize; HEADINGS.len()]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        _ = match column {
            0 => write!(line, "{cell:<width$}"),
            1..TEXT_COLUMNS => write!(line, "  {cell:<width$}"),
            _ => write!(line, " {cell:>width$}"),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::qemu::{Boot, End};

    fn report(name: &str, end: End, fault: &str) -> Report {
        let output = format!(
            "@check ok x\n@outcome passed=true fault={fault} verdict=restart frames=12 released=3 \
             poisoned=3 leaked=48 trap_to_free=123456 trap_to_gone=234567\n"
        );
        Report::new(
            name,
            Boot { end, output: output.into(), errors: vec![], elapsed: Duration::ZERO },
        )
    }

    fn plain(text: &str) -> String {
        console::strip_ansi_codes(text).into_owned()
    }

    #[test]
    fn the_longest_names_fit_in_a_hundred_columns() {
        let table = plain(&results(&[
            report("invalid-opcode-nested-locks", End::Success, "invalid-opcode"),
            report("stack-overflow", End::Success, "stack-overflow"),
        ]));
        for line in table.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn values_stand_under_their_headings() {
        let table = plain(&results(&[report("x", End::Success, "none")]));
        let lines: Vec<&str> = table.lines().collect();
        let [over, heading, row] = lines[..] else { panic!("{table}") };
        let ends = |line: &str, text: &str| line.find(text).map(|at| at + text.len());
        for (name, value) in [("frames", "12"), ("leaked", "48 B"), ("gone", "234567")] {
            assert_eq!(ends(heading, name).map(|at| at + "✓".len() - 1), ends(row, value));
        }
        assert_eq!(heading.find("fault").map(|at| at + "✓".len() - 1), row.find('-'));
        assert_eq!(over.len(), heading.len());
    }

    #[test]
    fn a_failed_row_is_marked_and_says_why() {
        let table = plain(&results(&[
            report("good", End::Success, "none"),
            report("bad", End::Reset, "none"),
        ]));
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert!(lines[0].starts_with("✓ good "), "{table}");
        assert!(lines[1].starts_with("✗ bad "), "{table}");
        assert_eq!(lines[2], "    the machine reset");
    }

    #[test]
    fn the_summary_counts_both_kinds() {
        let good = || report("good", End::Success, "none");
        assert_eq!(plain(&summary(&[good(), good()])), "2 passed\n");
        let mixed = [good(), report("bad", End::Reset, "none")];
        assert_eq!(plain(&summary(&mixed)), "1 passed, 1 failed\n");
    }
}
