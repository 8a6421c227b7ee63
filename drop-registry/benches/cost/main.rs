//! What tracking costs: the crate's primitives against those that track nothing, interleaved.
//!
//! `cargo bench -p drop-registry` prints one line for each comparison (or, with `-- NAMES…`, for
//! those whose WHAT begins with one of the names),
//!
//! ```text
//! bench WHAT peer=PEER mode=MODE ours_ns=… peer_ns=… ratio=…
//! ```
//!
//! (after WHAT also `size=BYTES`, where the size of the value makes a difference,)
//! then the counted instructions of each operation, and a table of everything that was measured.
//! The `ns` are those of the best round, the ratio is the median over the quietest rounds (see
//! [`Figures`]). One thread, no contention.
//!
//! # Which figures are the headline
//! Each operation is measured inlined into the loop and behind a call, in three modes, and all is
//! in the table. The `bench` lines have the inlined shape.
//!
//! - *back-to-back* is a tight loop.
//! - *alone* is one operation between two fences, behind a few loads and stores, as in a program:
//!   something came just before it, but it is not overlapped with the next, nor with a computation.
//! - *bare*, which is in the table alone, has a fence right before the operation. A lock that
//!   tracks nothing then finds all that it needs in registers and nothing in flight, and on AMD Zen
//!   4 that makes a locked instruction take 5 cycles instead of some 24. No program locks in such a
//!   state, and what looks its ledger up cannot, so the ratio is far worse.
//!
//! A peer `…-noted` writes down what it holds, without being exact (see `noted`): what a ledger
//! costs by itself.
//!
//! The current ledger is found as in a kernel (see `kernel`); the table also has `Hosted`.

mod instructions;
mod kernel;
mod measure;
mod noted;
mod operation;
mod pthread;

use std::sync::Arc;

use drop_registry::hosted::{Hosted, Machine, Stop};
use drop_registry::{Ledger, Mutex, RollbackMutex, RwLock, Shared, TrackedHeap};

use instructions::instructions;
use kernel::{Context, Kernel, LedgerAlone};
use measure::{Figures, Mode, Round, Shape, compare};
use noted::Noted;
use operation::{FromSlot, Line, Operation};
use pthread::Pthread;

/// One comparison, in each mode and shape.
struct Row<F = Figures> {
    what: &'static str,
    /// The bytes of the value, if they make a difference.
    size: Option<usize>,
    peer: &'static str,
    figures: Vec<(Mode, Shape, F)>,
}

/// What was measured of one comparison so far.
type Measured = Row<Vec<Round>>;

/// What is asked for.
struct Plan {
    /// How often all of it is measured, so that each comparison has rounds from the whole time.
    passes: usize,
    /// The rounds of a comparison in one pass.
    rounds: usize,
    /// The comparisons, by what they begin with; if empty, all.
    names: Vec<String>,
}

impl Plan {
    fn from_arguments() -> Self {
        let (flags, names): (Vec<_>, Vec<_>) =
            std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
        // `cargo bench` says `--bench`; anything else only wants to know that it runs.
        let measures = flags.iter().any(|flag| flag == "--bench");
        let (passes, rounds) = if measures { (24, 25) } else { (1, 3) };
        Self { passes, rounds, names }
    }

    fn has(&self, what: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| what.starts_with(name.as_str()))
    }
}

fn main() {
    let plan = Plan::from_arguments();
    #[expect(unsafe_code, reason = "makes a machine")]
    // SAFETY: its one task runs to its end.
    let machine = unsafe { Machine::new() };
    // In a task, for `Hosted` is slower outside.
    let measured = machine.spawn(move || {
        let kernel = measure::<Kernel>(&plan);
        let (alone, hosted) = (measure::<LedgerAlone>(&plan), measure::<Hosted>(&plan));
        kernel.iter().for_each(print_headlines);
        println!("\ncpu: {}", processor());
        println!("ledger: {} bytes for each task\n", size_of::<Ledger>());
        print_table("current ledger as in a kernel", &kernel);
        print_table("the same without a cursor beside it", &alone);
        print_table("current ledger of `Hosted`", &hosted);
    });
    assert_eq!(machine.run(measured, None), Stop::Finished);
    drop(machine);
    print_instructions();
}

/// All that was asked for, with the ledgers of `L`.
fn measure<L: Context + 'static>(plan: &Plan) -> Vec<Row> {
    L::move_ledger(0);
    let mut rows = measure_once::<L>(plan);
    for pass in 1..plan.passes {
        L::move_ledger(pass);
        for (row, again) in rows.iter_mut().zip(measure_once::<L>(plan)) {
            for ((.., rounds), (.., more)) in row.figures.iter_mut().zip(again.figures) {
                rounds.extend(more);
            }
        }
    }
    rows.into_iter().map(Measured::summed_up).collect()
}

fn measure_once<L: TrackedHeap + 'static>(plan: &Plan) -> Vec<Measured> {
    let mutex = &Line(Mutex::<u64, L>::new(0));
    let rwlock = &Line(RwLock::<u64, L>::new(1));
    let shared = &Line(Shared::<u64, L>::new(1).unwrap());
    let counted = &Line(FromSlot::<L>::new());
    let rows = [
        row(plan, "mutex", mutex, "spin", &Line(spin::Mutex::new(0))),
        row(plan, "mutex", mutex, "spin-noted", &Line(Noted(spin::Mutex::new(0)))),
        row(plan, "mutex", mutex, "std", &Line(std::sync::Mutex::new(0))),
        row(plan, "mutex", mutex, "parking_lot", &Line(parking_lot::Mutex::new(0))),
        row(plan, "mutex", mutex, "pthread", &Line(Pthread::new())),
        row(plan, "mutex", mutex, "pthread-robust", &Line(Pthread::robust())),
        row(plan, "rwlock-read", rwlock, "spin", &Line(spin::RwLock::new(1))),
        row(plan, "rwlock-read", rwlock, "spin-noted", &Line(Noted(spin::RwLock::new(1)))),
        row(plan, "shared", shared, "arc", &Line(Arc::new(1))),
        row(plan, "shared", shared, "arc-noted", &Line(Noted(Arc::new(1)))),
        row(plan, "shared-counted", counted, "arc", &Line(Arc::new(1))),
        rollback::<1, L>(plan),
        rollback::<8, L>(plan),
        rollback::<32, L>(plan),
        rollback::<128, L>(plan),
        rollback::<512, L>(plan),
    ];
    rows.into_iter().flatten().collect()
}

/// What it costs to be able to go back, for a value of so many words of which one is changed.
fn rollback<const WORDS: usize, L: TrackedHeap>(plan: &Plan) -> Option<Measured> {
    let ours = Line(RollbackMutex::<[u64; WORDS], L>::new([0; WORDS]));
    let theirs = Line(Mutex::<[u64; WORDS], L>::new([0; WORDS]));
    let row = row(plan, "rollback-mutex", &ours, "mutex", &theirs)?;
    Some(Measured { size: Some(8 * WORDS), ..row })
}

/// One comparison; nothing if it was not asked for.
fn row(
    plan: &Plan,
    what: &'static str,
    ours: &impl Operation,
    peer: &'static str,
    theirs: &impl Operation,
) -> Option<Measured> {
    if !plan.has(what) {
        return None;
    }
    let mut figures = Vec::new();
    for mode in Mode::ALL {
        for shape in Shape::ALL {
            figures.push((mode, shape, compare(plan.rounds, mode, shape, ours, theirs)));
        }
    }
    Some(Measured { what, size: None, peer, figures })
}

impl Measured {
    fn summed_up(self) -> Row {
        let Self { what, size, peer, figures } = self;
        let figures =
            figures.into_iter().map(|(mode, shape, rounds)| (mode, shape, Figures::of(rounds)));
        Row { what, size, peer, figures: figures.collect() }
    }
}

impl Row {
    /// The size, behind `before`; nothing where there is none.
    fn size(&self, before: &str) -> String {
        self.size.map_or_else(String::new, |size| format!("{before}{size}"))
    }
}

fn print_headlines(row: &Row) {
    let (Row { what, peer, figures, .. }, size) = (row, row.size(" size="));
    for (mode, _, Figures { ours, peer: theirs, ratio }) in
        figures.iter().filter(|(mode, shape, _)| *mode != Mode::Bare && *shape == Shape::Inlined)
    {
        let mode = mode.name();
        println!(
            "bench {what}{size} peer={peer} mode={mode} ours_ns={ours:.2} peer_ns={theirs:.2} ratio={ratio:.2}"
        );
    }
}

fn print_table(title: &str, rows: &[Row]) {
    println!("{title}: ns of ours / ns of the peer = ratio");
    print!("{:49}", "");
    for shape in Shape::ALL {
        print!("{:^24}", shape.name());
    }
    println!();
    for row in rows {
        for mode in Mode::ALL {
            print!("{:20}{:16}", row.what.to_owned() + &row.size(" "), row.peer);
            print!("{:13}", mode.name());
            for (_, _, figures) in row.figures.iter().filter(|(m, ..)| *m == mode) {
                print!("{:7.2} /{:6.2} ={:6.2} ", figures.ours, figures.peer, figures.ratio);
            }
            println!();
        }
    }
    println!();
}

fn print_instructions() {
    let mutex = instructions(|| Mutex::<u64, Kernel>::new(0));
    let rwlock = instructions(|| RwLock::<u64, Kernel>::new(1));
    let shared = instructions(|| Shared::<u64, Kernel>::new(1).unwrap());
    let counted = instructions(FromSlot::<Kernel>::new);
    for (what, ours, peer, theirs) in [
        ("mutex", mutex, "spin", instructions(|| spin::Mutex::new(0))),
        ("mutex", mutex, "std", instructions(|| std::sync::Mutex::new(0))),
        ("mutex", mutex, "parking_lot", instructions(|| parking_lot::Mutex::new(0))),
        ("mutex", mutex, "pthread", instructions(Pthread::new)),
        ("mutex", mutex, "pthread-robust", instructions(Pthread::robust)),
        ("rwlock-read", rwlock, "spin", instructions(|| spin::RwLock::new(1))),
        ("shared", shared, "arc", instructions(|| Arc::new(1))),
        ("shared-counted", counted, "arc", instructions(|| Arc::new(1))),
    ] {
        println!("instructions {what}/{peer} ours={ours} peer={theirs}");
    }
    print_rollback_instructions::<1>();
    print_rollback_instructions::<8>();
    print_rollback_instructions::<32>();
    print_rollback_instructions::<128>();
    print_rollback_instructions::<512>();
}

fn print_rollback_instructions<const WORDS: usize>() {
    let ours = instructions(|| RollbackMutex::<[u64; WORDS], Kernel>::new([0; WORDS]));
    let theirs = instructions(|| Mutex::<[u64; WORDS], Kernel>::new([0; WORDS]));
    println!("instructions rollback-mutex/mutex size={} ours={ours} peer={theirs}", 8 * WORDS);
}

/// What `/proc/cpuinfo` calls the first processor.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1)).unwrap_or("?").to_owned()
    };
    format!("{}, family {}, model {}", field("model name"), field("cpu family"), field("model\t"))
}
