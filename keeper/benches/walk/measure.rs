//! Walkers in turn, in many rounds.

use std::hint::black_box;
use std::time::Instant;

use crate::peers::{Trace, Walker};
use crate::stack::Deep;

/// What is in the caches when a walk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All that the last walk left there.
    Steady,
    /// Nothing in the caches of this core. A task dies once.
    OneShot,
    /// Nothing in those that it shares with others, either.
    FromMemory,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Steady, Self::OneShot, Self::FromMemory];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::OneShot => "one-shot",
            Self::FromMemory => "from-memory",
        }
    }
}

/// Several times the caches of one core, and much less than those of all.
const ONE_CORE: usize = 4 << 20;

/// Twice the largest cache of the machines that this is likely to run on.
const ALL_CORES: usize = 64 << 20;

/// Walks in a row, in a steady round.
const REPEATED: usize = 64;

/// Nanoseconds of each walker for one frame: the median over the rounds.
pub(crate) fn measure(
    mode: Mode,
    rounds: usize,
    stack: &Deep<'_>,
    walkers: &mut [(&str, Box<dyn Walker>)],
) -> Vec<f64> {
    let mut evicting = vec![0_u8; ALL_CORES];
    let mut times = vec![Vec::with_capacity(rounds); walkers.len()];
    for round in 0..rounds {
        // Everybody comes after everybody else.
        for turn in 0..walkers.len() {
            let n = (round + turn) % walkers.len();
            let walker = &mut *walkers[n].1;
            times[n].push(match mode {
                Mode::Steady => steady(walker, stack),
                Mode::OneShot => once(walker, stack, || evict(&mut evicting[..ONE_CORE])),
                Mode::FromMemory => once(walker, stack, || evict(&mut evicting)),
            });
        }
    }
    times.into_iter().map(median).collect()
}

fn steady(walker: &mut dyn Walker, stack: &Deep<'_>) -> f64 {
    let mut trace = Trace::default();
    walker.walk(stack, &mut trace);
    if walker.is_prepared() {
        return (0..REPEATED).map(|_| once(walker, stack, || ())).sum::<f64>() / REPEATED as f64;
    }
    let start = Instant::now();
    for _ in 0..REPEATED {
        trace.clear();
        walker.walk(stack, &mut trace);
    }
    start.elapsed().as_nanos() as f64 / (REPEATED * trace.frames()) as f64
}

fn once(walker: &mut dyn Walker, stack: &Deep<'_>, before: impl FnOnce()) -> f64 {
    let mut trace = Trace::default();
    walker.prepare();
    before();
    let start = Instant::now();
    walker.walk(stack, &mut trace);
    start.elapsed().as_nanos() as f64 / trace.frames() as f64
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Reads and writes so much that nothing else stays in the caches.
fn evict(memory: &mut [u8]) {
    for byte in memory.iter_mut().step_by(64) {
        *byte = byte.wrapping_add(1);
    }
    black_box(memory);
}
