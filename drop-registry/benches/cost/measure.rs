//! Two operations against each other, in many short rounds.
#![expect(unsafe_code, reason = "fences, and where code lies")]

use core::arch::asm;
use core::arch::x86_64::_mm_lfence;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::operation::{Called, Nothing, Operation};

/// Operations in each half of a round: some microseconds, so that most rounds are not interrupted,
/// and those that are do not move the median.
const OPERATIONS: u32 = 1000;

/// What surrounds an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Itself, again and again. An out-of-order processor overlaps one with the next.
    BackToBack,
    /// Once between two fences, behind a few loads and stores of other work, whose time is taken
    /// off: as in a program, where something else comes before it, but nothing hides it.
    Alone,
    /// Once between two fences, and nothing with it. No load or store of anybody else's is in
    /// flight when it begins, which no program sees.
    Bare,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::BackToBack, Self::Alone, Self::Bare];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BackToBack => "back-to-back",
            Self::Alone => "alone",
            Self::Bare => "bare",
        }
    }
}

/// How an operation is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Into the loop that measures it, with everything that does not change in registers.
    Inlined,
    /// As a function of its own.
    Called,
}

impl Shape {
    pub(crate) const ALL: [Self; 2] = [Self::Inlined, Self::Called];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inlined => "inlined",
            Self::Called => "called",
        }
    }
}

/// One round of a comparison: nanoseconds of one operation, each with its surroundings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    ours: f64,
    peer: f64,
    /// Of the surroundings by themselves.
    surroundings: f64,
}

impl Round {
    fn total(&self) -> f64 {
        self.ours + self.peer + self.surroundings
    }

    fn ratio(&self) -> f64 {
        (self.ours - self.surroundings) / (self.peer - self.surroundings)
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Nanoseconds of one operation, in the best round.
    pub(crate) ours: f64,
    /// As `ours`.
    pub(crate) peer: f64,
    /// The median of ours / peer over the quarter of the rounds that took the least time in all: a
    /// neighbour on the same core slows them down unequally, for seconds at a time.
    pub(crate) ratio: f64,
}

impl Figures {
    pub(crate) fn of(mut rounds: Vec<Round>) -> Self {
        let best = |time: fn(&Round) -> f64| rounds.iter().map(time).fold(f64::INFINITY, f64::min);
        let [ours, peer, surroundings] =
            [best(|round| round.ours), best(|round| round.peer), best(|round| round.surroundings)];
        rounds.sort_by(|one, other| one.total().total_cmp(&other.total()));
        rounds.truncate(rounds.len().div_ceil(4));
        let mut ratios: Vec<_> = rounds.iter().map(Round::ratio).collect();
        ratios.sort_by(f64::total_cmp);
        Self {
            ours: ours - surroundings,
            peer: peer - surroundings,
            ratio: ratios[ratios.len() / 2],
        }
    }
}

/// Measures the two in turn, the order swapped each round.
pub(crate) fn compare(
    rounds: usize,
    mode: Mode,
    shape: Shape,
    ours: &impl Operation,
    peer: &impl Operation,
) -> Vec<Round> {
    match shape {
        Shape::Inlined => compare_shaped(rounds, mode, ours, peer),
        Shape::Called => compare_shaped(rounds, mode, &Called(ours), &Called(peer)),
    }
}

fn compare_shaped(
    rounds: usize,
    mode: Mode,
    ours: &impl Operation,
    peer: &impl Operation,
) -> Vec<Round> {
    // Once each before it counts: page faults, lazy binding, branch predictors.
    time(mode, ours);
    time(mode, peer);
    let measure = |round| {
        let surroundings = if mode == Mode::BackToBack { 0.0 } else { time(mode, &Nothing) };
        let (ours, peer) = if round % 2 == 0 {
            let ours = time(mode, ours);
            (ours, time(mode, peer))
        } else {
            let peer = time(mode, peer);
            (time(mode, ours), peer)
        };
        Round { ours, peer, surroundings }
    };
    (0..rounds).map(measure).collect()
}

/// Nanoseconds of one operation, with its surroundings.
fn time(mode: Mode, operation: &impl Operation) -> f64 {
    let memory = black_box([const { AtomicU64::new(0) }; 8]);
    match mode {
        Mode::BackToBack => repeat(|| {
            align();
            operation.run();
        }),
        Mode::Alone => repeat(|| {
            compute();
            align();
            fence();
            touch(&memory);
            operation.run();
            fence();
        }),
        Mode::Bare => repeat(|| {
            compute();
            align();
            touch(&memory);
            fence();
            operation.run();
            fence();
        }),
    }
}

/// A loop for each operation; it is not shared, so that the operation is inlined into it.
#[inline(never)]
fn repeat(body: impl Fn()) -> f64 {
    let start = Instant::now();
    for _ in 0..OPERATIONS {
        body();
    }
    start.elapsed().as_nanos() as f64 / f64::from(OPERATIONS)
}

/// What comes after it begins a line of the code cache: where in one a few instructions lie makes a
/// difference of up to three cycles, which is a third of what is measured.
#[inline(always)]
fn align() {
    // SAFETY: executes nothing but no-ops.
    unsafe { asm!(".balign 64", options(nomem, nostack, preserves_flags)) };
}

/// Reads and writes eight words, which are in the first cache.
#[inline(always)]
fn touch(memory: &[AtomicU64; 8]) {
    let mut sum = 1;
    for word in memory {
        let value = word.load(Ordering::Relaxed);
        sum += value;
        word.store(value + 1, Ordering::Relaxed);
    }
    black_box(sum);
}

/// Computes for some forty cycles, so that the stores of the last turn have left.
#[inline(always)]
fn compute() {
    let mut product = 1_u64;
    for _ in 0..12 {
        product = black_box(product.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    black_box(product);
}

/// Nothing after it begins before everything before it has been executed; stores may still be on
/// their way to the cache (Intel SDM volume 2, LFENCE; AMD, with LFENCE as a dispatch barrier).
#[inline(always)]
fn fence() {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_lfence() };
}
