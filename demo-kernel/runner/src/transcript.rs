//! The kernel's serial output, and the lines in it that are meant for the runner.
//!
//! | line | when |
//! | --- | --- |
//! | `@scenario NAME SUMMARY…` | one for each scenario, when booted with `scenario=list` |
//! | `@check ok CLAIM…`, `@check FAILED CLAIM…` | one for each thing that a scenario asserts |
//! | `@cost NAME key=value… UNIT=N` | one for each figure that is measured; see [`Cost`] |
//! | `@outcome key=value…` | once, at a scenario's end; see [`Outcome`] |
//!
//! Lines end in LF or CRLF. Every other line is log.

use std::fmt;

use crate::costs::{Cost, CostError};
use crate::outcome::{Outcome, OutcomeError};

/// Everything that one boot said to the runner, in the order it was said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Transcript {
    /// The scenarios that the kernel offers.
    pub(crate) scenarios: Vec<Scenario>,
    /// What the scenario asserted.
    pub(crate) checks: Vec<Check>,
    /// What it measured.
    pub(crate) costs: Vec<Cost>,
    /// Its outcome; more than one is a defect of the kernel.
    pub(crate) outcomes: Vec<Outcome>,
    /// Lines that are meant for the runner and cannot be read.
    pub(crate) garbled: Vec<Garbled>,
}

/// A scenario that the kernel offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// What the kernel's command line calls it.
    pub(crate) name: String,
    /// What it shows, in one line.
    pub(crate) summary: String,
}

/// One assertion of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// Whether it held.
    pub(crate) held: bool,
    /// What is asserted.
    pub(crate) claim: String,
}

/// A line that is meant for the runner and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbled {
    line: String,
    reason: GarbledReason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum GarbledReason {
    /// The output ends inside of it, so its last word may not be whole.
    CutShort,
    NoName,
    NoClaim,
    NeitherOkNorFailed,
    Cost(CostError),
    Outcome(OutcomeError),
}

impl Transcript {
    /// Reads a boot's serial output. Bytes that are not UTF-8 are shown as U+FFFD.
    pub(crate) fn parse(output: &[u8]) -> Self {
        let mut transcript = Self::default();
        for line in String::from_utf8_lossy(output).split_inclusive('\n') {
            let text = line.trim_end();
            let whole = line.ends_with('\n');
            if let Err(reason) = transcript.read_line(text, whole) {
                transcript.garbled.push(Garbled { line: text.to_owned(), reason });
            }
        }
        transcript
    }

    fn read_line(&mut self, line: &str, whole: bool) -> Result<(), GarbledReason> {
        let (tag, rest) = split_word(line);
        if !matches!(tag, "@scenario" | "@check" | "@cost" | "@outcome") {
            return Ok(());
        }
        if !whole {
            return Err(GarbledReason::CutShort);
        }
        match tag {
            "@scenario" => self.scenarios.push(scenario(rest)?),
            "@check" => self.checks.push(check(rest)?),
            "@cost" => self.costs.push(rest.parse().map_err(GarbledReason::Cost)?),
            _ => self.outcomes.push(rest.parse().map_err(GarbledReason::Outcome)?),
        }
        Ok(())
    }
}

fn scenario(rest: &str) -> Result<Scenario, GarbledReason> {
    let (name, summary) = split_word(rest);
    if name.is_empty() {
        return Err(GarbledReason::NoName);
    }
    Ok(Scenario { name: name.to_owned(), summary: summary.to_owned() })
}

fn check(rest: &str) -> Result<Check, GarbledReason> {
    let (word, claim) = split_word(rest);
    let held = match word {
        "ok" => true,
        "FAILED" => false,
        _ => return Err(GarbledReason::NeitherOkNorFailed),
    };
    if claim.is_empty() {
        return Err(GarbledReason::NoClaim);
    }
    Ok(Check { held, claim: claim.to_owned() })
}

/// The first word, and what stands after the blanks behind it.
fn split_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace)
        .map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            GarbledReason::CutShort => f.write_str("the output ends inside of this line")?,
            GarbledReason::NoName => f.write_str("no name")?,
            GarbledReason::NoClaim => f.write_str("a check that claims nothing")?,
            GarbledReason::NeitherOkNorFailed => f.write_str("a check neither ok nor FAILED")?,
            GarbledReason::Cost(error) => error.fmt(f)?,
            GarbledReason::Outcome(error) => error.fmt(f)?,
        }
        write!(f, ": {}", self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOME: &str = "@outcome passed=true fault=none verdict=none frames=0 released=0 \
                           poisoned=0 leaked=0 trap_to_free=none trap_to_gone=none\n";

    fn parse(output: &str) -> Transcript {
        Transcript::parse(output.as_bytes())
    }

    #[test]
    fn only_the_runners_own_lines_are_read() {
        let transcript = parse(
            "booting\n\n@ check ok spaced\nsays @check ok inside\n@checks ok another word\n@weather fine\n",
        );
        assert_eq!(transcript, Transcript::default());
    }

    #[test]
    fn checks_keep_their_order_and_claim() {
        let transcript = parse("@check ok a  b\nlog\n@check FAILED c\n");
        assert_eq!(
            transcript.checks,
            [
                Check { held: true, claim: "a  b".to_owned() },
                Check { held: false, claim: "c".to_owned() },
            ]
        );
    }

    #[test]
    fn crlf_and_lf_read_alike() {
        let lf = format!("@check ok a\n{OUTCOME}@scenario x y z\n");
        assert_eq!(parse(&lf.replace('\n', "\r\n")), parse(&lf));
        assert_eq!(parse(&lf).outcomes.len(), 1);
        assert_eq!(parse(&lf).garbled, []);
    }

    #[test]
    fn a_scenario_has_a_name_and_a_summary() {
        let transcript = parse("@scenario stack-overflow into the guard page\n@scenario bare\n");
        let [first, second] = &transcript.scenarios[..] else { panic!("{transcript:?}") };
        assert_eq!((&*first.name, &*first.summary), ("stack-overflow", "into the guard page"));
        assert_eq!((&*second.name, &*second.summary), ("bare", ""));
    }

    #[test]
    fn lines_that_cannot_be_read_are_kept_as_garbled() {
        for line in [
            "@check",
            "@check ok",
            "@check maybe x",
            "@scenario",
            "@cost safepoint",
            "@outcome passed=true",
        ] {
            let transcript = parse(&format!("{line}\n"));
            assert_eq!(transcript.garbled.len(), 1, "{line}");
            assert!(transcript.garbled[0].to_string().ends_with(line), "{line}");
            assert!(transcript.checks.is_empty() && transcript.outcomes.is_empty(), "{line}");
            assert!(transcript.costs.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_line_without_an_end_counts_for_nothing() {
        let transcript = parse(OUTCOME.trim_end());
        assert!(transcript.outcomes.is_empty());
        assert_eq!(transcript.garbled[0].reason, GarbledReason::CutShort);
    }

    #[test]
    fn noise_on_the_line_is_log() {
        let transcript = Transcript::parse(b"\xff\xfe\x00@check ok no\n@check ok yes \xff\n");
        assert_eq!(transcript.checks.len(), 1);
        assert_eq!(transcript.checks[0].claim, "yes \u{fffd}");
    }
}
