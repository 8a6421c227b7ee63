//! `cargo fuzz-targets`: builds the fuzzer with the flags that it needs on stable, and runs
//! targets.
//!
//! | file | what it does |
//! | --- | --- |
//! | `cli` | the command line |
//! | `build` | builds the fuzzer, in a target directory of its own |
//! | `places` | where inputs are kept |
//! | `job` | one process of it, and what it says |
//! | `fuzz` | the jobs of one target, side by side |
//! | `planted` | faults that the targets must find |
//! | `tally` | how many runs were made, in all invocations |

#![forbid(unsafe_code)]

mod build;
mod cli;
mod fuzz;
mod job;
mod places;
mod planted;
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use console::style;
use fuzz_targets::{TARGETS, Target};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::Cli;
use crate::fuzz::Fuzz;
use crate::places::Places;
use crate::planted::FAULTS;
use crate::tally::{Fingerprint, Tally};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{} {error:#}", style("error:").for_stderr().red().bold());
            ExitCode::FAILURE
        }
    }
}

/// Returns whether nothing was found.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let targets = select(&cli.targets)?;
    if cli.list {
        for target in targets {
            println!("{:<16}{}", target.name, target.about);
        }
        return Ok(true);
    }
    let places = Places::new()?;
    if cli.planted {
        return find_planted(&places, &targets);
    }
    let fuzzer = build::build(Places::workspace(), &places.target_directory)?;
    if let Some(file) = &cli.replay {
        let [target] = targets[..] else { bail!("--replay takes the name of one target") };
        return job::replay(&fuzzer, target, file);
    }

    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&cancelled))
            .context("cannot listen for signals")?;
    }
    let fingerprint = Fingerprint::of(&fuzzer)?;
    let mut found_nothing = true;
    for target in targets {
        let mut tally = Tally::open(places.tally(target.name), fingerprint);
        let fuzz = Fuzz { fuzzer: &fuzzer, target, places: &places, effort: cli.effort() };
        found_nothing &= fuzz.run(cli.jobs(), &mut tally, &cancelled)?;
        // Relaxed: the flag carries nothing but itself.
        if cancelled.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
    }
    Ok(found_nothing)
}

/// Returns whether each of the targets finds the faults that are planted for it.
fn find_planted(places: &Places, targets: &[&'static Target]) -> anyhow::Result<bool> {
    let mut all_found = true;
    for target in targets {
        for fault in FAULTS.iter().filter(|fault| fault.target == target.name) {
            let copy = places.planted();
            fault.plant(&copy)?;
            let fuzzer = build::build(&copy, &places.planted_build())?;
            let started = Instant::now();
            let found = job::finds_something(&fuzzer, target, &places.scratch())?;
            all_found &= found;
            println!(
                "planted target={} found={found} seconds={:.1} fault={:?}",
                target.name,
                started.elapsed().as_secs_f64(),
                fault.about
            );
        }
    }
    Ok(all_found)
}

/// The targets with these names; all if there are none.
fn select(names: &[String]) -> anyhow::Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| {
        fuzz_targets::find(name)
            .with_context(|| format!("there is no target `{name}`; --list shows all"))
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_targets_are_meant_if_none_is_named() {
        assert_eq!(select(&[]).unwrap().len(), TARGETS.len());
        assert_eq!(select(&["walk".to_owned()]).unwrap()[0].name, "walk");
    }

    #[test]
    fn an_unknown_target_is_refused_by_name() {
        let error = select(&["wlak".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "there is no target `wlak`; --list shows all");
    }
}
