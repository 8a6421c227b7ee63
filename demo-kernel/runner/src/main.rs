//! `cargo demo`: builds the demo kernel, boots it once for each scenario, and tells what held.
//!
//! | file | what it does |
//! | --- | --- |
//! | `cli` | the command line |
//! | `install` | finds QEMU, or installs it |
//! | `kernel_image` | builds the kernel |
//! | `qemu`, `guest` | boots it: one process, from start to its end or its time limit |
//! | `transcript`, `outcome` | read what it wrote to its serial port |
//! | `selection` | which of its scenarios to run |
//! | `suite` | runs them, several at a time |
//! | `report` | whether one held, and if not, why; its JSON |
//! | `validate`, `gdb` | steps through the kernel, and judges the walker |
//! | `table`, `progress` | what the user sees |
//! | `costs` | `cargo demo costs`: what things cost, and the lines through it |
//! | `coverage` | `cargo demo coverage`: what landing pads cover |
//!
//! The kernel is the one source of the scenarios: it is asked for their names, and it judges
//! itself by its `@check` and `@outcome` lines. The runner believes a success only if all of these
//! and QEMU's exit status agree.

#![forbid(unsafe_code)]

mod cli;
mod costs;
mod coverage;
mod gdb;
mod guest;
mod install;
mod kernel_image;
mod outcome;
mod progress;
mod qemu;
mod report;
mod selection;
mod suite;
mod table;
mod transcript;
mod validate;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use console::style;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use cli::{Cli, Command, CostsArgs, CoverageArgs, RunArgs, ValidateArgs};
use costs::RoundTrip;
use coverage::Coverage;
use qemu::{BootError, Machine};
use report::Report;
use selection::UnknownScenarios;
use transcript::Transcript;
use validator::Tally;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let passed = match &cli.command {
        None => run(&cli.run),
        Some(Command::Costs(args)) => measure(args),
        Some(Command::Validate(args)) => validate(args),
        Some(Command::Coverage(args)) => count(args).map(|()| true),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{} {error:#}", style("error:").for_stderr().red().bold());
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<UnknownScenarios>() {
        return ExitCode::from(2);
    }
    match error.downcast_ref() {
        Some(BootError::Interrupted) => ExitCode::from(130),
        _ => ExitCode::FAILURE,
    }
}

/// Finds QEMU, builds the kernel, and listens for signals from then on.
fn prepare() -> anyhow::Result<(PathBuf, PathBuf, Arc<AtomicBool>)> {
    let program = install::find_or_install()?;
    let progress = progress::spinner("building the kernel");
    let kernel = kernel_image::build(&progress)?;
    progress.finish_and_clear();

    // Only now: until here there is no machine to stop, and a signal may do what it always does.
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&cancelled))
            .context("cannot listen for signals")?;
    }
    Ok((program, kernel, cancelled))
}

/// Returns whether the walker was never wrong, from before each scenario's fault to behind it; or,
/// with a mistake planted, whether it was.
fn validate(args: &ValidateArgs) -> anyhow::Result<bool> {
    let (program, kernel, cancelled) = prepare()?;
    let machine = Machine::qemu(program, kernel.clone(), Duration::MAX);
    let known = suite::list(&machine, &cancelled)?;
    let names = match &args.names[..] {
        [] => validate::SCENARIOS.map(str::to_owned).to_vec(),
        asked => asked.to_vec(),
    };
    let names = selection::select(&names, &known)?;
    let progress = progress::bar("stepping through scenarios", names.len());
    let mut total = Tally::default();
    let mut instructions = HashSet::new();
    let mut faults = 0;
    let mut passed = true;
    for name in &names {
        progress.set_message(name.clone());
        let stepped = validate::validate(&machine, &kernel, name, args, &cancelled)?;
        progress.suspend(|| print(&format!("{name}: {stepped}\n")))?;
        passed &= stepped.passed();
        faults += usize::from(stepped.reached_the_fault());
        instructions.extend(stepped.instructions);
        total.merge(stepped.tally);
        progress.inc(1);
    }
    progress.finish_and_clear();
    print(&format!(
        "{}{total} instructions={} faults={faults} of {}\n",
        total.list(),
        instructions.len(),
        names.len()
    ))?;
    Ok(if args.plant.is_some() { total.wrong > 0 } else { passed })
}

/// Returns whether all scenarios held.
fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let (program, kernel, cancelled) = prepare()?;
    let machine = Machine::qemu(program, kernel, args.time_limit());
    let scenarios = suite::list(&machine, &cancelled)?;
    if args.list {
        print(&table::scenarios(&scenarios))?;
        return Ok(true);
    }
    let names = selection::select(&args.names, &scenarios)?;
    let progress = progress::bar("running scenarios", names.len());
    let reports = suite::run(&machine, &names, args.jobs(), &cancelled, &progress)?;
    progress.finish_and_clear();

    if let Some(file) = &args.json {
        write_json(file, &reports)?;
    }
    let mut text = String::new();
    for report in reports.iter().filter(|report| args.serial || !report.passed()) {
        text.push_str(&transcript_of(report));
    }
    text.push_str(&table::results(&reports));
    text.push_str(&table::summary(&reports));
    print(&text)?;
    Ok(reports.iter().all(Report::passed))
}

/// Returns whether the scenario held that measures; if not, no figure is shown.
fn measure(args: &CostsArgs) -> anyhow::Result<bool> {
    let (program, kernel, cancelled) = prepare()?;
    let machine = Machine::qemu(program, kernel.clone(), costs::TIME_LIMIT);
    let report = Report::new(costs::SCENARIO, machine.boot(costs::SCENARIO, &cancelled)?);
    if !report.passed() {
        print(&transcript_of(&report))?;
        print(&table::results(std::slice::from_ref(&report)))?;
        return Ok(false);
    }
    let measured = Transcript::parse(&report.output).costs;
    let round_trip = RoundTrip::step_through(&machine, &kernel, costs::SCENARIO)?;
    if args.functions {
        print(&round_trip.functions())?;
    }
    round_trip.agrees_with(&measured)?;
    print(&costs::text(&[round_trip.costs(), measured].concat()))?;
    round_trip.is_short_enough()?;
    Ok(true)
}

fn count(args: &CoverageArgs) -> anyhow::Result<()> {
    let elf = match &args.elf {
        Some(elf) => elf.clone(),
        None => {
            let progress = progress::spinner("building the kernel");
            let kernel = kernel_image::build(&progress)?;
            progress.finish_and_clear();
            kernel
        }
    };
    let mut coverage = Coverage::of_file(&elf)?;
    if let Some(text) = &args.function {
        coverage = coverage.only(text);
    }
    if let Some(file) = &args.json {
        write_json(file, &coverage)?;
    }
    print(&format!("{}\n{}", elf.display(), coverage::text(&coverage, args.top)))
}

fn transcript_of(report: &Report) -> String {
    let mut text = format!("{}\n", style(format!("--- {}", report.name)).bold());
    for stream in [&report.output, &report.errors] {
        text.push_str(&String::from_utf8_lossy(stream));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    // Writing to a `String` cannot fail.
    _ = writeln!(text, "{}", style("---").bold());
    text
}

fn write_json(file: &Path, value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    let mut json = serde_json::to_string_pretty(value)?;
    json.push('\n');
    std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))
}

/// Unlike `print!`, does not panic when the reader of a pipe has gone.
fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to the standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_is_told_apart_from_a_failure() {
        let code = |error: anyhow::Error| format!("{:?}", exit_code(&error));
        let expected = |code| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(BootError::Interrupted.into()), expected(130));
        assert_eq!(code(BootError::Wait(std::io::ErrorKind::Other.into()).into()), expected(1));
        assert_eq!(code(anyhow::anyhow!("anything else")), expected(1));
    }

    #[test]
    fn an_unknown_name_is_a_usage_error() {
        let error = selection::select(&["x".to_owned()], &[]).unwrap_err();
        assert_eq!(format!("{:?}", exit_code(&error.into())), format!("{:?}", ExitCode::from(2)));
    }
}
