//! What tracking costs: the crate's primitives against those that track nothing, interleaved.
//!
//! `cargo bench -p drop-registry` prints one line for each comparison,
//!
//! ```text
//! bench WHAT peer=PEER mode=MODE ours_ns=… peer_ns=… ratio=…
//! ```
//!
//! then the counted instructions of each operation, and a table of everything that was measured.
//! The `ns` are those of the best round, the ratio is the median over all rounds. One thread, no
//! contention.
//!
//! # Which figures are the headline
//! Each operation is measured inlined into the loop and behind a call, and all is in the table.
//! The `bench` lines have for
//! - *back-to-back* the inlined one: a tight loop is what the mode is about, and what a compiler
//!   makes of one. Behind a call ours is dearer, for it saves registers.
//! - *alone* the called one. Inlined, with a fence right before it, a lock that tracks nothing finds
//!   all it needs in registers and nothing in flight. That is rare in a program, and on AMD Zen 4
//!   it is worth 5 ns to a locked instruction, which makes the ratio far worse for ours, because
//!   ours has to load its ledger in any case. Behind a call, as in a function that takes a lock,
//!   the return address at least is on its way to memory for both.
//!
//! *amid* has no fence before the operation, only after it, so that it meets the loads and stores
//! of the work that precedes it. It is in the table alone.
//!
//! The current ledger is found as in a kernel (see `kernel`); the table also has `Hosted`.

mod instructions;
mod kernel;
mod measure;
mod operation;
mod pthread;

use std::sync::Arc;

use drop_registry::hosted::{Hosted, Machine, Stop};
use drop_registry::{Ledger, Mutex, Shared, TrackedHeap};

use instructions::instructions;
use kernel::Kernel;
use measure::{Figures, Mode, Shape, compare};
use operation::{Line, Operation};
use pthread::Pthread;

/// One comparison, in each mode and shape.
struct Row {
    what: &'static str,
    peer: &'static str,
    figures: Vec<(Mode, Shape, Figures)>,
}

fn main() {
    // `cargo bench` says `--bench`; anything else only wants to know that it runs.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 601 } else { 3 };
    let mut machine = Machine::new();
    // In a task, for `Hosted` is slower outside.
    let measured = machine.spawn(move || {
        let (kernel, hosted) = (measure::<Kernel>(rounds), measure::<Hosted>(rounds));
        kernel.iter().for_each(print_headlines);
        println!("\ncpu: {}", processor());
        println!("ledger: {} bytes for each task\n", size_of::<Ledger>());
        print_table("current ledger as in a kernel", &kernel);
        print_table("current ledger of `Hosted`", &hosted);
    });
    assert_eq!(machine.run(measured, None), Stop::Finished);
    drop(machine);
    print_instructions();
}

fn measure<L: TrackedHeap + 'static>(rounds: usize) -> Vec<Row> {
    let mutex = &Line(Mutex::<u64, L>::new(0));
    let shared = &Line(Shared::<u64, L>::new(1).unwrap());
    vec![
        row(rounds, "mutex", mutex, "spin", &Line(spin::Mutex::new(0))),
        row(rounds, "mutex", mutex, "std", &Line(std::sync::Mutex::new(0))),
        row(rounds, "mutex", mutex, "parking_lot", &Line(parking_lot::Mutex::new(0))),
        row(rounds, "mutex", mutex, "pthread", &Line(Pthread::new())),
        row(rounds, "mutex", mutex, "pthread-robust", &Line(Pthread::robust())),
        row(rounds, "shared", shared, "arc", &Line(Arc::new(1))),
    ]
}

fn row(
    rounds: usize,
    what: &'static str,
    ours: &impl Operation,
    peer: &'static str,
    theirs: &impl Operation,
) -> Row {
    let mut figures = Vec::new();
    for mode in Mode::ALL {
        for shape in Shape::ALL {
            figures.push((mode, shape, compare(rounds, mode, shape, ours, theirs)));
        }
    }
    Row { what, peer, figures }
}

fn print_headlines(row: &Row) {
    let Row { what, peer, figures } = row;
    for (mode, _, Figures { ours, peer: theirs, ratio }) in
        figures.iter().filter(|(mode, shape, _)| {
            matches!(
                (mode, shape),
                (Mode::BackToBack, Shape::Inlined) | (Mode::Alone, Shape::Called)
            )
        })
    {
        let mode = mode.name();
        println!(
            "bench {what} peer={peer} mode={mode} ours_ns={ours:.2} peer_ns={theirs:.2} ratio={ratio:.2}"
        );
    }
}

fn print_table(title: &str, rows: &[Row]) {
    println!("{title}: ns of ours / ns of the peer = ratio");
    print!("{:31}", "");
    for shape in Shape::ALL {
        print!("{:^24}", shape.name());
    }
    println!();
    for row in rows {
        for mode in Mode::ALL {
            print!("{:8}{:16}", row.what, row.peer);
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
    let shared = instructions(|| Shared::<u64, Kernel>::new(1).unwrap());
    for (what, ours, peer, theirs) in [
        ("mutex", mutex, "spin", instructions(|| spin::Mutex::new(0))),
        ("mutex", mutex, "std", instructions(|| std::sync::Mutex::new(0))),
        ("mutex", mutex, "parking_lot", instructions(|| parking_lot::Mutex::new(0))),
        ("mutex", mutex, "pthread", instructions(Pthread::new)),
        ("mutex", mutex, "pthread-robust", instructions(Pthread::robust)),
        ("shared", shared, "arc", instructions(|| Arc::new(1))),
    ] {
        println!("instructions {what}/{peer} ours={ours} peer={theirs}");
    }
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
