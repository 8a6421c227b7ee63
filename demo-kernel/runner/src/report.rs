//! Whether a scenario held, and what there is to say of it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::outcome::Outcome;
use crate::qemu::{Boot, End};
use crate::transcript::{Garbled, Transcript};

/// One scenario's result.
#[derive(Debug)]
pub(crate) struct Report {
    /// The scenario.
    pub(crate) name: String,
    /// Why it did not hold; `None` if it did.
    pub(crate) failure: Option<Failure>,
    /// What the kernel said of it, if it said so once and well.
    pub(crate) outcome: Option<Outcome>,
    /// How long it took, in real time.
    pub(crate) elapsed: Duration,
    /// Its serial output.
    pub(crate) output: Vec<u8>,
    /// What QEMU itself had to say.
    pub(crate) errors: Vec<u8>,
}

/// Why a scenario did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The first of its checks that failed.
    CheckFailed(String),
    /// The machine did not end by the kernel's own word.
    Ended(End),
    /// The first line for the runner that cannot be read.
    Garbled(Garbled),
    /// It never said how it ended, although the kernel ended the machine, like this.
    NoOutcome(End),
    /// It said more than once how it ended.
    Outcomes(usize),
    /// It asserted nothing.
    NoChecks,
    /// By its own word it did not pass, although no check failed.
    NotPassed,
    /// It says that it passed, but the kernel ended the machine as failed.
    Contradicted,
}

impl Report {
    /// Judges one boot of scenario `name`.
    pub(crate) fn new(name: &str, boot: Boot) -> Self {
        let mut transcript = Transcript::parse(&boot.output);
        Self {
            name: name.to_owned(),
            failure: judge(boot.end, &transcript).err(),
            outcome: transcript.outcomes.pop().filter(|_| transcript.outcomes.is_empty()),
            elapsed: boot.elapsed,
            output: boot.output,
            errors: boot.errors,
        }
    }

    /// Whether the scenario held.
    pub(crate) const fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// Finds the failure that says most about the cause: a failed check before the crash that it may
/// have led to, and a crash before the outcome that it kept from being told.
fn judge(end: End, transcript: &Transcript) -> Result<(), Failure> {
    if let Some(check) = transcript.checks.iter().find(|check| !check.held) {
        return Err(Failure::CheckFailed(check.claim.clone()));
    }
    if !matches!(end, End::Success | End::Failure) {
        return Err(Failure::Ended(end));
    }
    if let Some(line) = transcript.garbled.first() {
        return Err(Failure::Garbled(line.clone()));
    }
    let outcome = match &transcript.outcomes[..] {
        [outcome] => outcome,
        [] => return Err(Failure::NoOutcome(end)),
        several => return Err(Failure::Outcomes(several.len())),
    };
    if transcript.checks.is_empty() {
        return Err(Failure::NoChecks);
    }
    if !outcome.passed {
        return Err(Failure::NotPassed);
    }
    if end == End::Failure {
        return Err(Failure::Contradicted);
    }
    Ok(())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckFailed(claim) => write!(f, "check failed: {claim}"),
            Self::Ended(end) => end.fmt(f),
            Self::Garbled(line) => write!(f, "garbled line: {line}"),
            Self::NoOutcome(end) => write!(f, "{end}, but without an @outcome line"),
            Self::Outcomes(count) => write!(f, "{count} @outcome lines instead of one"),
            Self::NoChecks => f.write_str("passed without checking anything"),
            Self::NotPassed => f.write_str("passed=false, although no check failed"),
            Self::Contradicted => f.write_str("passed=true, but the kernel reported failure"),
        }
    }
}

/// One object of the `--json` file; what a scenario has no value for is null.
impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Object<'a> {
            name: &'a str,
            passed: bool,
            fault: Option<&'a str>,
            verdict: Option<&'a str>,
            frames: Option<u64>,
            released: Option<u64>,
            poisoned: Option<u64>,
            leaked: Option<u64>,
            trap_to_free: Option<u64>,
            trap_to_gone: Option<u64>,
            seconds: f64,
            failure: Option<String>,
        }
        let outcome = self.outcome.as_ref();
        Object {
            name: &self.name,
            passed: self.passed(),
            fault: outcome.and_then(|o| o.fault.as_deref()),
            verdict: outcome.and_then(|o| o.verdict.as_deref()),
            frames: outcome.map(|o| o.frames),
            released: outcome.map(|o| o.released),
            poisoned: outcome.map(|o| o.poisoned),
            leaked: outcome.map(|o| o.leaked),
            trap_to_free: outcome.and_then(|o| o.trap_to_free),
            trap_to_gone: outcome.and_then(|o| o.trap_to_gone),
            seconds: (self.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            failure: self.failure.as_ref().map(Failure::to_string),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOME: &str = "@outcome passed=true fault=page-fault verdict=exit frames=4 \
                           released=3 poisoned=1 leaked=0 trap_to_free=25 trap_to_gone=none\n";
    const CHECK: &str = "@check ok the lock is free again\n";

    fn report(end: End, output: &str) -> Report {
        let elapsed = Duration::from_micros(1_234_567);
        Report::new("x", Boot { end, output: output.into(), errors: vec![], elapsed })
    }

    fn failure(end: End, output: &str) -> String {
        report(end, output).failure.expect("a failure").to_string()
    }

    #[test]
    fn a_checked_success_passes() {
        assert!(report(End::Success, &format!("{CHECK}{OUTCOME}")).passed());
    }

    #[test]
    fn each_condition_alone_fails_the_scenario() {
        let good = format!("{CHECK}{OUTCOME}");
        let not_passed = good.replace("passed=true", "passed=false");
        for (end, output, expected) in [
            (End::Failure, good.clone(), "passed=true, but the kernel reported failure"),
            (End::Reset, good.clone(), "the machine reset"),
            (End::Status(1), good.clone(), "QEMU exited with status 1"),
            (End::TimedOut(Duration::from_secs(60)), good.clone(), "no end within 60 s"),
            (
                End::Success,
                CHECK.to_owned(),
                "the kernel reported success, but without an @outcome line",
            ),
            (End::Success, format!("{good}{OUTCOME}"), "2 @outcome lines instead of one"),
            (End::Success, OUTCOME.to_owned(), "passed without checking anything"),
            (End::Success, not_passed, "passed=false, although no check failed"),
            (End::Success, format!("{good}@check FAILED a\n"), "check failed: a"),
        ] {
            assert_eq!(failure(end, &output), expected);
        }
        for garbled in ["@check so-so a\n", "@outcome\n", "@outcome passed=true\n"] {
            let output = format!("{good}{garbled}");
            assert!(failure(End::Success, &output).starts_with("garbled line: "), "{garbled}");
        }
    }

    #[test]
    fn the_first_failed_check_is_named_before_what_followed_from_it() {
        let output = format!("{CHECK}@check FAILED first\n@check FAILED second\n");
        for end in [End::Success, End::Failure, End::Reset, End::Signal(11)] {
            assert_eq!(failure(end, &output), "check failed: first");
        }
    }

    #[test]
    fn a_repeated_outcome_is_not_quoted() {
        let report = report(End::Success, &format!("{CHECK}{OUTCOME}{OUTCOME}"));
        assert_eq!(report.outcome, None);
    }

    #[test]
    fn json_names_every_value_and_null_where_there_is_none() {
        let passed = report(End::Success, &format!("{CHECK}{OUTCOME}"));
        assert_eq!(
            serde_json::to_value(&passed).unwrap(),
            serde_json::json!({
                "name": "x", "passed": true, "fault": "page-fault", "verdict": "exit",
                "frames": 4, "released": 3, "poisoned": 1, "leaked": 0,
                "trap_to_free": 25, "trap_to_gone": null, "seconds": 1.235, "failure": null,
            })
        );
        let failed = report(End::Reset, "");
        assert_eq!(
            serde_json::to_value(&failed).unwrap(),
            serde_json::json!({
                "name": "x", "passed": false, "fault": null, "verdict": null,
                "frames": null, "released": null, "poisoned": null, "leaked": null,
                "trap_to_free": null, "trap_to_gone": null, "seconds": 1.235,
                "failure": "the machine reset",
            })
        );
    }
}
