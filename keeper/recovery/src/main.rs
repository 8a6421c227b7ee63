//! Ends a keeper at every instruction of a recovery, and looks at what is left.
//!
//! A task faults while it holds a lock that somebody spins for, one that somebody sleeps for, a
//! permit, a share and a block of memory. For each k, its keeper, which is a task, executes k
//! instructions of the recovery, from its wake-up to the end of the case; the process forks, and in
//! the child the keeper is killed there, or faults. Others go on, its own keeper takes over, and
//! the child *audits*: it takes the locks, counts permits, shares and the heap's bytes, and has the
//! keeper, which has begun again, serve another death. It never asks the keepers what they did.
//!
//! Whether a keeper ends before or after an instruction that only computes is the same to everybody
//! else, so only boundaries behind a write outside of its own stack are looked at.
//!
//! | module | concern |
//! | --- | --- |
//! | [`world`] | who is there, and what they hold |
//! | [`sweep`] | all k of one recovery |
//! | [`audit`] | what is left |
//! | [`boundaries::fork`] | a child for each boundary |
//! | [`boundaries::writes`] | which instructions leave something behind |

mod audit;
mod sweep;
mod world;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use keeper::Verdict;

use crate::sweep::{Death, Recovery, Sweep};
use crate::world::Rulings;

/// End a keeper before every instruction of a recovery, and look at what is left.
#[derive(Debug, Parser)]
#[command(name = "cargo recovery", bin_name = "cargo recovery", version)]
struct Arguments {
    /// Only the recoveries whose names contain one of these.
    names: Vec<String>,
    /// List the recoveries and stop.
    #[arg(long)]
    list: bool,
    /// End the keeper's own keeper, too, while it takes over: a sample of the pairs, which are one
    /// in EVERY of its boundaries for one in EVERY of the keeper's. All of them are for a long
    /// night; 60 takes about a minute for each recovery.
    #[arg(long, value_name = "EVERY")]
    twice: Option<u64>,
    /// How many boundaries are looked at side by side.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
}

const fn ruled(name: &'static str, keeper: Verdict, above: Verdict) -> Recovery {
    Recovery { name, rulings: Rulings { keeper, settles: false, above }, goes_on: false }
}

const fn settled(name: &'static str, keeper: Verdict, above: Verdict) -> Recovery {
    Recovery { name, rulings: Rulings { keeper, settles: true, above }, goes_on: false }
}

/// What the keeper rules; and what its parent would, so that the two can be told apart.
const RECOVERIES: [Recovery; 9] = [
    ruled("exit", Verdict::Exit, Verdict::Hold),
    settled("settle, then exit", Verdict::Exit, Verdict::Hold),
    ruled("restart", Verdict::Restart, Verdict::Exit),
    ruled("hold", Verdict::Hold, Verdict::Exit),
    ruled("resume", Verdict::Resume, Verdict::Exit),
    Recovery {
        goes_on: true,
        ..ruled("resume, and it faults again", Verdict::Resume, Verdict::Exit)
    },
    ruled("try next", Verdict::TryNext, Verdict::Hold),
    settled("settle, then try next", Verdict::TryNext, Verdict::Restart),
    ruled("deferred", Verdict::Deferred, Verdict::Hold),
];

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let chosen: Vec<&'static Recovery> = RECOVERIES
        .iter()
        .filter(|recovery| {
            let names = &arguments.names;
            names.is_empty() || names.iter().any(|name| recovery.name.contains(name.as_str()))
        })
        .collect();
    if chosen.is_empty() {
        bail!("no recovery has such a name; --list shows all");
    }
    let mut total = Sweep::default();
    for recovery in chosen {
        if arguments.list {
            println!("{}", recovery.name);
            continue;
        }
        let (twice, jobs) = (arguments.twice, arguments.jobs);
        // A kernel's tasks are its thread's, so each recovery has one.
        let sweep = std::thread::spawn(move || match twice {
            Some(every) => sweep::parent(recovery, every.max(1), jobs),
            None => {
                let mut sweep = sweep::keeper(recovery, Death::Kill, jobs)?;
                let faults =
                    std::thread::spawn(move || sweep::keeper(recovery, Death::Fault, jobs));
                sweep.add(faults.join().expect("it does not panic")?);
                Ok(sweep)
            }
        });
        let sweep = sweep.join().expect("it does not panic")?;
        println!("{:<30} {sweep}", recovery.name);
        for (boundary, wrong) in sweep.failures.iter().take(5) {
            println!("    {boundary}: {}", sweep::named(*wrong));
        }
        total.add(sweep);
    }
    if arguments.list {
        return Ok(ExitCode::SUCCESS);
    }
    println!("boundaries {total}");
    let holds = total.failures.is_empty() && total.killed == total.chosen && total.killed > 0;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
