//! The whole supervisor under random sequences of faults and kills.
//!
//! Random trees of keepers, with random deadlines, keep random tasks, whose policies rule at
//! random: at once or later, by token or not at all. Tasks take locks, fault, are killed and
//! released; keepers serve, interrupt each other, come too late, and die: in a policy, and before
//! and after whatever they have the platform do. (That they may die at every single *instruction*,
//! `cargo recovery` shows: here a death unwinds the test's own stack, and the platform is a few
//! structs.) When it is over, all who live go on until nothing is left to do. Checked all the
//! while: nothing is done to a task that nobody ruled, no lock is stolen or leaked, its next owner
//! is told exactly when it must, no keeper rules on itself. And in the end: no case is open, nobody
//! waits, no kill is lost.
//!
//! A sequence that fails says how to run it again; `cargo simulate` runs a hundred thousand, `cargo
//! test` some hundred, and a fault storm besides.
#![expect(unsafe_code, reason = "implements a platform")]

mod platform;
mod random;
#[cfg(test)]
mod storm;
mod world;

use std::ops::Range;
use std::panic::{catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

use clap::Parser;

use crate::world::Died;

/// Run random sequences of faults, kills and dying keepers, and see that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "cargo simulate", bin_name = "cargo simulate", version)]
struct Arguments {
    /// How many sequences.
    #[arg(long, value_name = "N", default_value_t = 100_000, conflicts_with = "seed")]
    sequences: u64,
    /// The seed of the first; the others follow.
    #[arg(long, value_name = "SEED", default_value_t = 1_000_000, conflicts_with = "seed")]
    from: u64,
    /// Only the sequence of this seed, and say what happens.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => arguments.from..arguments.from.saturating_add(arguments.sequences),
    };
    world::TRACES.set(arguments.seed.is_some());
    simulate(seeds);
}

/// Runs the sequences of these seeds.
///
/// # Panics
/// If what a sequence checks does not hold; or if nothing has happened in many.
fn simulate(seeds: Range<u64>) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !panic.payload().is::<Died>() {
                others(panic);
            }
        }));
    });
    let (mut deaths, mut rulings) = (0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match catch_unwind(|| world::run(seed)) {
            Ok((died, ruled)) => {
                deaths += died;
                rulings += ruled;
            }
            Err(panic) => {
                eprintln!("again with: cargo simulate --seed {seed}");
                resume_unwind(panic);
            }
        }
    }
    println!("simulation sequences={count} keeper-deaths={deaths} rulings={rulings} failed=0");
    assert!(count < 100 || deaths > count && rulings > count, "nothing has happened");
}

#[test]
fn random_faults_and_kills_lose_nothing() {
    simulate(0..500);
}
