//! Kills a task at every instruction of every operation, and looks at what is left.
//!
//! For each operation, and for each k: the operation runs for k instructions by the trap flag, the
//! process forks, and the child kills the task there, settles what it held, and *audits*: it takes
//! the locks again, counts the shares and the drops, and looks at the heap's own bits. It does not
//! ask the settling code what it did, but for one thing, at a bounded number of boundaries: whether
//! a destructor had begun that has not done anything yet ([`operation::Entrance`]).
//!
//! | module | concern |
//! | --- | --- |
//! | [`bystanders`] | the tasks around the victim |
//! | [`operation`] | what an operation is, and what an audit can find |
//! | [`operations`] | the operations |
//! | [`sweep`] | all k of one operation |
//! | [`settler`] | the same, with the settling code killed at each of its instructions too |
//! | [`boundaries::fork`] | a child for each boundary |
//! | [`boundaries::writes`] | which instructions leave something behind |
//! | [`recovery`] | a recovery point around the operation |

mod bystanders;
mod machine;
mod operation;
mod operations;
mod recovery;
mod settler;
mod sweep;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::operation::Operation;
use crate::settler::Deaths;
use crate::sweep::{Fate, Sweep};

/// Kill a task before every instruction of every operation, settle it, and look at what is left.
#[derive(Debug, Parser)]
#[command(name = "cargo boundaries", version)]
struct Arguments {
    /// Only the operations whose names contain one of these.
    names: Vec<String>,
    /// Take names for whole ones.
    #[arg(long, requires = "names")]
    exact: bool,
    /// List the operations and stop.
    #[arg(long)]
    list: bool,
    /// Kill the settling code, too, at each of its instructions, and settle again.
    #[arg(long)]
    settler: bool,
    /// Kill the settling code only where that can make a difference: behind each instruction that
    /// may write anything but its own stack, and where it enters or leaves a window.
    #[arg(long, requires = "settler")]
    writes: bool,
    /// Do not kill: take the processor away before the instruction, until no other task can go on.
    #[arg(long, conflicts_with = "settler")]
    preempt: bool,
    /// Do not kill: cut the operation off by a recovery point around it, and let the victim go on.
    #[arg(long, conflicts_with = "preempt")]
    recover: bool,
    /// Stop at the first finding.
    #[arg(long)]
    first: bool,
    /// How many boundaries are looked at side by side.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Plant a mistake in the protocol first, by its number, to see that it is found.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "NUMBER")]
    plant: Option<usize>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    #[cfg(feature = "planted-bugs")]
    if let Some(number) = arguments.plant {
        let Some(bug) = drop_registry::planted::Bug::ALL.get(number) else {
            bail!("there are {} bugs to plant", drop_registry::planted::Bug::ALL.len());
        };
        println!("planted: {bug:?}");
        drop_registry::planted::plant(*bug);
    }
    let is_named = |operation: &Operation, name: &String| {
        if arguments.exact {
            operation.name == name
        } else {
            operation.name.contains(name.as_str())
        }
    };
    let names = &arguments.names;
    let chosen: Vec<&Operation> = operations::all()
        .filter(|it| names.is_empty() || names.iter().any(|name| is_named(it, name)))
        .collect();
    if chosen.is_empty() {
        bail!("no operation has such a name; --list shows all");
    }
    if arguments.list {
        for operation in chosen {
            println!("{}", operation.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let fate = match (arguments.preempt, arguments.recover) {
        (true, _) => Fate::Preempted,
        (_, true) => Fate::Recovered,
        _ => Fate::Killed,
    };
    let mut total = Sweep::new(fate, arguments.first);
    for operation in chosen {
        let empty = Sweep::new(fate, arguments.first);
        let sweep = if arguments.settler {
            let deaths = if arguments.writes { Deaths::BehindWrites } else { Deaths::Anywhere };
            settler::sweep(operation, deaths, arguments.jobs, empty)?
        } else {
            sweep::sweep(operation, arguments.jobs, empty)?
        };
        println!("{:<52} {sweep}", operation.name);
        for (boundary, findings) in sweep.failures.iter().take(5) {
            println!("    {boundary}: {findings}");
        }
        total.add(sweep);
        if total.is_enough() {
            break;
        }
    }
    println!("boundaries {total}");
    Ok(if total.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
