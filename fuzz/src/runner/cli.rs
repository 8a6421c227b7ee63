//! The command line of `cargo fuzz-targets`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::thread;

use clap::Parser;

/// Build the fuzzer and run its targets, for a while or for a number of runs.
///
/// A run is one input, given to the target's function under the address sanitizer. Inputs that
/// reach something new are kept and built upon, also by later invocations; inputs that fail end the
/// target, and are kept for `--replay`.
///
/// Runs of all invocations are added up for as long as the fuzzer stays the same, byte for byte.
/// Thus `--total 100000000` may be interrupted, and goes on when it is given again.
///
/// Exits 0 if no target failed, 1 if one did or something went wrong or was interrupted, and 2 on a
/// mistake in the command line.
#[derive(Debug, Parser)]
#[command(name = "fuzz-targets", bin_name = "cargo fuzz-targets", version)]
pub(crate) struct Cli {
    /// Targets to run, one after another; all of them if none is named
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,

    /// List the targets and run none
    #[arg(long, conflicts_with_all = ["seconds", "runs", "total", "replay", "jobs"])]
    pub(crate) list: bool,

    /// How long each target runs [default: 10]
    #[arg(long, value_name = "N")]
    seconds: Option<NonZeroU64>,

    /// How many inputs each target runs, all jobs together
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    runs: Option<NonZeroU64>,

    /// How many inputs each target runs, former invocations of the same fuzzer included
    #[arg(long, value_name = "N", conflicts_with_all = ["seconds", "runs"])]
    total: Option<NonZeroU64>,

    /// Plant a fault for each target into a copy of the sources, and see the target find it
    #[arg(long, conflicts_with_all = ["list", "seconds", "runs", "total", "jobs"])]
    pub(crate) planted: bool,

    /// How many processes run side by side [default: one per CPU]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Run the one TARGET on the input in FILE, and show what happens
    #[arg(long, value_name = "FILE", requires = "targets", conflicts_with_all = ["seconds", "runs", "total", "jobs", "planted"])]
    pub(crate) replay: Option<PathBuf>,
}

/// How much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// So many seconds.
    Seconds(u64),
    /// So many runs.
    Runs(u64),
    /// So many runs, less those that this fuzzer has made before.
    Total(u64),
}

impl Cli {
    /// How much to do with each target.
    pub(crate) fn effort(&self) -> Effort {
        match (self.runs, self.total) {
            (Some(runs), _) => Effort::Runs(runs.get()),
            (_, Some(runs)) => Effort::Total(runs.get()),
            (None, None) => Effort::Seconds(self.seconds.map_or(10, NonZeroU64::get)),
        }
    }

    /// How many processes run at the same time.
    pub(crate) fn jobs(&self) -> NonZeroUsize {
        self.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_effort_is_time_or_runs() {
        let effort = |args: &[&str]| Cli::try_parse_from(args).map(|cli| cli.effort());
        assert_eq!(effort(&["f"]).unwrap(), Effort::Seconds(10));
        assert_eq!(effort(&["f", "walk", "--seconds", "3"]).unwrap(), Effort::Seconds(3));
        assert_eq!(effort(&["f", "--runs", "100000000"]).unwrap(), Effort::Runs(100_000_000));
        assert_eq!(effort(&["f", "--total", "5"]).unwrap(), Effort::Total(5));
        assert!(effort(&["f", "--runs", "1", "--seconds", "1"]).is_err());
        assert!(effort(&["f", "--runs", "1", "--total", "1"]).is_err());
        assert!(effort(&["f", "--runs", "0"]).is_err());
    }

    #[test]
    fn a_replay_needs_a_target() {
        assert!(Cli::try_parse_from(["f", "--replay", "x"]).is_err());
        assert!(Cli::try_parse_from(["f", "walk", "--replay", "x"]).is_ok());
    }
}
