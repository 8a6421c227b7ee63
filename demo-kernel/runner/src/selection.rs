//! Which scenarios the user means.

use std::fmt;

use crate::transcript::Scenario;

/// How many near matches of an unknown name are offered.
const MAX_MATCHES: usize = 3;

/// How alike two names must be to be offered, as a Jaro-Winkler similarity from 0 to 1.
const ALIKE: f64 = 0.8;

/// The scenarios to run: those `asked` for, each once, or every `known` one if none is named.
///
/// # Errors
/// [`UnknownScenarios`], with all names that the kernel does not know.
pub(crate) fn select(
    asked: &[String],
    known: &[Scenario],
) -> Result<Vec<String>, UnknownScenarios> {
    if asked.is_empty() {
        return Ok(known.iter().map(|scenario| scenario.name.clone()).collect());
    }
    let mut selected: Vec<String> = vec![];
    let mut unknown: Vec<Unknown> = vec![];
    for name in asked {
        if !known.iter().any(|scenario| scenario.name == *name) {
            unknown.push(Unknown { name: name.clone(), near: near_matches(name, known) });
        } else if !selected.contains(name) {
            selected.push(name.clone());
        }
    }
    if unknown.is_empty() { Ok(selected) } else { Err(UnknownScenarios(unknown)) }
}

/// Names that contain `name`, and then names that look like it, the likest first.
fn near_matches(name: &str, known: &[Scenario]) -> Vec<String> {
    let mut near: Vec<(f64, &str)> = known
        .iter()
        .map(|scenario| {
            let contains = !name.is_empty() && scenario.name.contains(name);
            let likeness = strsim::jaro_winkler(name, &scenario.name);
            (likeness + if contains { 1.0 } else { 0.0 }, scenario.name.as_str())
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(MAX_MATCHES).map(|(_, name)| name.to_owned()).collect()
}

/// Names that no scenario has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownScenarios(Vec<Unknown>);

#[derive(Debug, PartialEq, Eq)]
struct Unknown {
    name: String,
    near: Vec<String>,
}

impl fmt::Display for UnknownScenarios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Unknown { name, near } in &self.0 {
            write!(f, "no scenario is called `{name}`")?;
            for (i, match_) in near.iter().enumerate() {
                let before = if i == 0 { "; did you mean" } else { " or" };
                write!(f, "{before} `{match_}`")?;
            }
            f.write_str(if near.is_empty() { "\n" } else { "?\n" })?;
        }
        f.write_str("`cargo demo --list` shows them all")
    }
}

impl std::error::Error for UnknownScenarios {}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Scenario> {
        ["page-fault-holding-lock", "killed-in-empty-loop", "refcount-held", "torn-slice"]
            .map(|name| Scenario { name: name.to_owned(), summary: String::new() })
            .into()
    }

    fn choose(asked: &[&str]) -> Result<Vec<String>, String> {
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        select(&asked, &known()).map_err(|error| error.to_string())
    }

    #[test]
    fn no_name_means_all_in_the_kernels_order() {
        assert_eq!(choose(&[]).unwrap().len(), 4);
        assert_eq!(choose(&[]).unwrap()[0], "page-fault-holding-lock");
    }

    #[test]
    fn named_scenarios_keep_the_users_order_and_run_once() {
        assert_eq!(
            choose(&["torn-slice", "refcount-held", "torn-slice"]).unwrap(),
            ["torn-slice", "refcount-held"]
        );
    }

    #[test]
    fn a_misspelled_name_is_offered_the_right_one_alone() {
        assert_eq!(
            choose(&["page-falt-holding-lock"]).unwrap_err(),
            "no scenario is called `page-falt-holding-lock`; \
             did you mean `page-fault-holding-lock`?\n\
             `cargo demo --list` shows them all"
        );
    }

    #[test]
    fn a_part_of_a_name_is_offered_the_whole() {
        let error = choose(&["empty-loop"]).unwrap_err();
        assert!(error.contains("did you mean `killed-in-empty-loop`"), "{error}");
    }

    #[test]
    fn all_unknown_names_are_told_at_once() {
        let error = choose(&["zzz", "torn-slice", "qqq"]).unwrap_err();
        assert!(error.contains("`zzz`") && error.contains("`qqq`"), "{error}");
        assert!(!error.contains("did you mean"), "{error}");
    }
}
