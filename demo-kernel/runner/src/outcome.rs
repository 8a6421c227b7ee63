//! What a scenario says of itself at its end: the `@outcome` line.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// The fields of an `@outcome` line.
///
/// `None` stands for the word `none`: the scenario has no such value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether the kernel itself takes the scenario as passed.
    pub(crate) passed: bool,
    /// What stopped the task, such as `page-fault`.
    pub(crate) fault: Option<String>,
    /// What its keeper ruled, such as `exit`.
    pub(crate) verdict: Option<String>,
    /// Frames walked.
    pub(crate) frames: u64,
    /// Resources released on the task's behalf.
    pub(crate) released: u64,
    /// Locks that their next owner finds marked as left by a dead one.
    pub(crate) poisoned: u64,
    /// Heap bytes that are still allocated and should not be.
    pub(crate) leaked: u64,
    /// Instructions from the trap until the task's resources are free.
    pub(crate) trap_to_free: Option<u64>,
    /// Instructions from the trap until the task is gone.
    pub(crate) trap_to_gone: Option<u64>,
}

/// Reads `key=value` pairs separated by blanks. Keys that are not known are passed over, so that
/// a kernel may say more than this runner knows.
impl FromStr for Outcome {
    type Err = OutcomeError;

    fn from_str(fields: &str) -> Result<Self, OutcomeError> {
        let mut pairs = HashMap::new();
        for field in fields.split_whitespace() {
            let (key, value) =
                field.split_once('=').ok_or_else(|| OutcomeError::NotAPair(field.to_owned()))?;
            if pairs.insert(key, value).is_some() {
                return Err(OutcomeError::Repeated(key.to_owned()));
            }
        }
        let fields = Fields(pairs);
        Ok(Self {
            passed: fields.read("passed", "true or false", |value| value.parse().ok())?,
            fault: fields.read("fault", "a name or none", or_none(name))?,
            verdict: fields.read("verdict", "a name or none", or_none(name))?,
            frames: fields.read("frames", "a number", number)?,
            released: fields.read("released", "a number", number)?,
            poisoned: fields.read("poisoned", "a number", number)?,
            leaked: fields.read("leaked", "a number", number)?,
            trap_to_free: fields.read("trap_to_free", "a number or none", or_none(number))?,
            trap_to_gone: fields.read("trap_to_gone", "a number or none", or_none(number))?,
        })
    }
}

/// The pairs of one line.
struct Fields<'a>(HashMap<&'a str, &'a str>);

impl Fields<'_> {
    fn read<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, OutcomeError> {
        let value = self.0.get(key).ok_or(OutcomeError::Missing(key))?;
        parse(value).ok_or_else(|| OutcomeError::BadValue {
            key,
            value: (*value).to_owned(),
            expected,
        })
    }
}

/// Digits and nothing else: `u64::from_str` would let a sign through.
fn number(value: &str) -> Option<u64> {
    value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse().ok())?
}

fn name(value: &str) -> Option<String> {
    let well_formed = !value.is_empty()
        && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    well_formed.then(|| value.to_owned())
}

fn or_none<T>(parse: impl Fn(&str) -> Option<T>) -> impl Fn(&str) -> Option<Option<T>> {
    move |value| if value == "none" { Some(None) } else { parse(value).map(Some) }
}

/// Why the fields of an `@outcome` line cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutcomeError {
    /// A word that is not `key=value`.
    NotAPair(String),
    /// A key that stands twice.
    Repeated(String),
    /// A key that must be there and is not.
    Missing(&'static str),
    /// A value of the wrong form.
    BadValue {
        /// The key before it.
        key: &'static str,
        /// The value as it stands.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
}

impl fmt::Display for OutcomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPair(word) => write!(f, "`{word}` is not key=value"),
            Self::Repeated(key) => write!(f, "`{key}` stands twice"),
            Self::Missing(key) => write!(f, "`{key}` is missing"),
            Self::BadValue { key, value, expected } => {
                write!(f, "`{key}` is `{value}`, not {expected}")
            }
        }
    }
}

impl std::error::Error for OutcomeError {}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "passed=true fault=page-fault verdict=exit frames=4 released=3 poisoned=1 \
                        leaked=0 trap_to_free=2500 trap_to_gone=none";

    #[test]
    fn every_field_is_read() {
        let outcome: Outcome = GOOD.parse().unwrap();
        assert_eq!(
            outcome,
            Outcome {
                passed: true,
                fault: Some("page-fault".to_owned()),
                verdict: Some("exit".to_owned()),
                frames: 4,
                released: 3,
                poisoned: 1,
                leaked: 0,
                trap_to_free: Some(2500),
                trap_to_gone: None,
            }
        );
    }

    #[test]
    fn unknown_keys_are_passed_over() {
        let more = format!("{GOOD} cpus=4 mood=good");
        assert_eq!(more.parse::<Outcome>(), GOOD.parse::<Outcome>());
    }

    #[test]
    fn a_missing_key_is_named() {
        for field in GOOD.split_whitespace() {
            let key = field.split_once('=').unwrap().0;
            let without = GOOD.replace(field, "");
            let error = without.parse::<Outcome>().unwrap_err();
            assert_eq!(error.to_string(), format!("`{key}` is missing"));
        }
    }

    #[test]
    fn a_repeated_key_is_refused() {
        let twice = format!("{GOOD} frames=5");
        assert_eq!(twice.parse::<Outcome>(), Err(OutcomeError::Repeated("frames".to_owned())));
    }

    #[test]
    fn values_of_the_wrong_form_are_refused() {
        for (good, bad) in [
            ("passed=true", "passed=yes"),
            ("fault=page-fault", "fault=Page_Fault"),
            ("verdict=exit", "verdict="),
            ("frames=4", "frames=none"),
            ("released=3", "released=-3"),
            ("poisoned=1", "poisoned=+1"),
            ("leaked=0", "leaked=99999999999999999999"),
            ("trap_to_free=2500", "trap_to_free="),
            ("trap_to_gone=none", "trap_to_gone=None"),
            ("frames=4", "frames"),
        ] {
            let line = GOOD.replace(good, bad);
            assert!(line.parse::<Outcome>().is_err(), "{bad}");
        }
    }
}
