//! The command line of `cargo demo`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Build the demo kernel and run its scenarios in QEMU.
///
/// Exits 0 if every scenario held, 1 if one did not or something went wrong, 2 on a mistake in
/// the command line, and 130 when interrupted.
//
// Scenario names stand where a subcommand would, so that subcommands can be added later without
// changing what `cargo demo NAME…` means: a subcommand is known as such only in the first place.
#[derive(Debug, Parser)]
#[command(name = "demo-runner", bin_name = "cargo demo", version)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What `cargo demo` can do besides running scenarios.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Count how much of an executable is out of an unwinder's reach
    Coverage(CoverageArgs),
    /// Measure what faults, deaths and safepoints cost, in instructions
    Costs(CostsArgs),
    /// Single-step the kernel, and compare the walker with the truth at every instruction
    Validate(ValidateArgs),
}

/// What `cargo demo costs` takes.
#[derive(Debug, Args)]
pub(crate) struct CostsArgs {
    /// List, too, how many instructions of a resumed fault are in which function
    #[arg(long)]
    pub(crate) functions: bool,
}

/// What `cargo demo coverage` takes.
#[derive(Debug, Args)]
pub(crate) struct CoverageArgs {
    /// A linked executable or library for x86-64; the demo kernel if none is given
    pub(crate) elf: Option<PathBuf>,

    /// Count only the functions whose names contain TEXT
    #[arg(long, value_name = "TEXT")]
    pub(crate) function: Option<String>,

    /// How many functions to list, of those with most that can fault and has no landing pad
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,

    /// Write the counts to FILE, as a JSON object with all functions
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What `cargo demo validate` takes.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Scenarios to step through, each from its first task on; a few if none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// The most instructions to step through in each scenario
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) steps: u64,

    /// Make the tables wrong for FUNCTION, and exit 0 only if that is found
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) plant: Option<String>,
}

/// What `cargo demo` without a subcommand takes.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Scenarios to run; all of them if none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// List the scenarios and run none
    #[arg(long, conflicts_with_all = ["names", "json", "serial", "jobs"])]
    pub(crate) list: bool,

    /// Write the results to FILE, as a JSON array of one object per scenario
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Show each scenario's raw serial transcript (a failed one's is always shown)
    #[arg(long)]
    pub(crate) serial: bool,

    /// The longest that one scenario may take, in seconds of real time
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    /// How many QEMUs run side by side [default: one per CPU]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl RunArgs {
    /// The time limit of one scenario.
    pub(crate) const fn time_limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// How many machines may run at the same time.
    pub(crate) fn jobs(&self) -> NonZeroUsize {
        self.jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn with_a_subcommand() -> clap::Command {
        Cli::command().subcommand(clap::Command::new("campaign"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_and_options_mix() {
        let cli = Cli::try_parse_from(["demo", "a", "--timeout", "5", "b", "--jobs=3"]).unwrap();
        assert_eq!(cli.run.names, ["a", "b"]);
        assert_eq!(cli.run.time_limit(), Duration::from_secs(5));
        assert_eq!(cli.run.jobs().get(), 3);
    }

    #[test]
    fn coverage_is_a_subcommand_in_the_first_place_only() {
        let cli = Cli::try_parse_from(["demo", "coverage", "a.elf", "--top=3"]).unwrap();
        let Some(Command::Coverage(args)) = cli.command else { panic!("{cli:?}") };
        assert_eq!((args.elf, args.top), (Some("a.elf".into()), 3));
        let cli = Cli::try_parse_from(["demo", "a", "coverage"]).unwrap();
        assert_eq!(cli.run.names, ["a", "coverage"]);
    }

    #[test]
    fn costs_is_a_subcommand_and_the_scenario_of_that_name_can_still_be_run() {
        let cli = Cli::try_parse_from(["demo", "costs"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Costs(CostsArgs { functions: false }))));
        let cli = Cli::try_parse_from(["demo", "--serial", "costs"]).unwrap();
        assert_eq!((cli.command.is_none(), cli.run.names), (true, vec!["costs".to_owned()]));
    }

    #[test]
    fn nothing_can_take_no_time_or_no_machine() {
        assert!(Cli::try_parse_from(["demo", "--timeout", "0"]).is_err());
        assert!(Cli::try_parse_from(["demo", "--jobs", "0"]).is_err());
    }

    #[test]
    fn a_list_of_named_scenarios_is_refused() {
        assert!(Cli::try_parse_from(["demo", "--list"]).is_ok());
        assert!(Cli::try_parse_from(["demo", "--list", "a"]).is_err());
    }

    #[test]
    fn validate_is_a_subcommand_only_in_the_first_place() {
        let cli = Cli::try_parse_from(["demo", "validate", "a", "--steps=7"]).unwrap();
        let Some(Command::Validate(args)) = cli.command else { panic!("{cli:?}") };
        assert_eq!((args.names, args.steps), (vec!["a".to_owned()], 7));
        let cli = Cli::try_parse_from(["demo", "a", "validate"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.names, ["a", "validate"]);
    }

    #[test]
    fn a_later_subcommand_leaves_scenario_names_alone() {
        let names = with_a_subcommand().try_get_matches_from(["demo", "a", "campaign"]).unwrap();
        assert_eq!(names.subcommand_name(), None);
        let asked: Vec<&String> = names.get_many("names").unwrap().collect();
        assert_eq!(asked, ["a", "campaign"]);

        let sub = with_a_subcommand().try_get_matches_from(["demo", "campaign"]).unwrap();
        assert_eq!(sub.subcommand_name(), Some("campaign"));
    }

    #[test]
    fn a_later_subcommand_does_not_swallow_options_meant_for_a_run() {
        for options in [["demo", "--serial", "campaign"], ["demo", "--jobs=2", "campaign"]] {
            let matches = with_a_subcommand().try_get_matches_from(options);
            assert!(!matches.is_ok_and(|m| m.subcommand_name().is_some()), "{options:?}");
        }
    }
}
