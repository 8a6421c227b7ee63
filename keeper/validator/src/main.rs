//! Steps through real code on this host and compares the walker with the truth.

#![forbid(unsafe_code)]

use std::env;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Parser;
use validator::{Tally, bodies, traced};

/// Single-step real code, and compare the walker with a shadow stack at every instruction.
///
/// Exits 0 if nothing was wrong, 1 if something was.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Bodies of code to step through; all of them if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// List the bodies and step through none
    #[arg(long)]
    list: bool,

    /// Be the process that is stepped
    #[arg(long, hide = true, value_name = "NAME")]
    be: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(name) = cli.be {
        return Ok(if bodies::be(&name) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let known: Vec<&str> = bodies::BODIES.iter().map(|body| body.name).collect();
    if cli.list {
        println!("{}", known.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let asked: Vec<&str> = cli.names.iter().map(String::as_str).collect();
    let program = env::current_exe().context("who am I?")?;
    let mut total = Tally::default();
    for name in if asked.is_empty() { known } else { asked } {
        let tally = traced::validate(Command::new(&program).args(["--be", name]))
            .with_context(|| format!("cannot step through `{name}`"))?;
        println!("{name}: {tally} abandoned={} unjudged={}", tally.abandoned, tally.unjudged);
        total.merge(tally);
    }
    print!("{}", total.list());
    println!("{total}");
    Ok(if total.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
