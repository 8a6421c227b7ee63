//! What a walk costs: this crate's walker against others, over the same 32 frames, interleaved.
//!
//! `cargo bench -p keeper` prints one line for each comparison,
//!
//! ```text
//! bench walk peer=PEER mode=MODE ours_ns=… peer_ns=… ratio=…
//! ```
//!
//! in nanoseconds per frame, the median over many rounds. It fails unless everybody finds the same
//! addresses. Ours recovers all registers that the tables give, through checked reads, and says how
//! the walk ended; framehop recovers three registers; those that walk from inside do it with their
//! own frames on top, which are counted as frames. `uncompiled` is ours without compiled tables,
//! `images` ours with those of all images of the process.
//!
//! *steady* is one walk after the other. *one-shot* is a walk after something else has filled the
//! caches of its core, *from-memory* after something has filled those that cores share, too: then
//! most of the time is that of fetching the stack itself, as `frame-pointers` shows. Whoever asks
//! for "one walk after evicting the caches" may mean either, so both are printed. At the end, a
//! table: how the cost of a frame grows with the number of functions. It fails if the instructions
//! grow faster than a logarithm; time grows with the caches that the tables do not fit into.
#![expect(unsafe_code, reason = "a stack of its own, and walkers that are not Rust")]

mod functions;
mod measure;
mod peers;
mod stack;

use keeper::hosted::unwind_tables;
use keeper::unwind::{CompiledMemory, UnwindTables};

use measure::Mode;
use peers::{
    FramePointers, Framehop, Gimli, Libgcc, Ours, OursInImages, Sections, Trace, Unwinding, Walker,
};
use stack::{Deep, FRAMES};

fn main() {
    // `cargo bench` says `--bench`; anything else only wants to know that it runs.
    let thorough = std::env::args().any(|argument| argument == "--bench");
    stack::on_deep_stack(&mut |stack| compare(stack, thorough));
    functions::measure(thorough);
}

/// This program's tables, compiled.
fn compiled() -> UnwindTables<'static> {
    let tables = unwind_tables();
    let size = tables.compiled_size().unwrap();
    println!("compiled: {size}");
    tables.compile(Box::leak(Box::new(CompiledMemory::new(&size)))).unwrap()
}

fn compare(stack: &Deep<'_>, thorough: bool) {
    let sections = Sections::of_this_program();
    let tables = compiled();
    let mut walkers: [(&str, Box<dyn Walker>); 9] = [
        ("ours", Box::new(Ours::new(tables))),
        ("framehop-warm", Box::new(Framehop::new(&sections, false))),
        ("framehop-cold", Box::new(Framehop::new(&sections, true))),
        ("gimli", Box::new(Gimli::new(&sections))),
        ("unwinding", Box::new(Unwinding)),
        ("libgcc", Box::new(Libgcc::new())),
        ("frame-pointers", Box::new(FramePointers)),
        ("uncompiled", Box::new(Ours::new(unwind_tables()))),
        ("images", Box::new(OursInImages::new(tables))),
    ];
    expect_the_same(stack, &mut walkers);
    for mode in Mode::ALL {
        let rounds = match (thorough, mode) {
            (false, _) => 3,
            (true, Mode::Steady) => 401,
            (true, Mode::OneShot | Mode::FromMemory) => 101,
        };
        let times = measure::measure(mode, rounds, stack, &mut walkers);
        for ((peer, _), time) in walkers.iter().zip(&times).skip(1) {
            println!(
                "bench walk peer={peer} mode={} ours_ns={:.2} peer_ns={time:.2} ratio={:.3}",
                mode.name(),
                times[0],
                times[0] / time
            );
        }
    }
}

/// All have to find the same addresses.
fn expect_the_same(stack: &Deep<'_>, walkers: &mut [(&str, Box<dyn Walker>)]) {
    let mut first = Trace::default();
    walkers[0].1.walk(stack, &mut first);
    assert_eq!(first.frames(), FRAMES);
    for (name, walker) in walkers {
        let mut trace = Trace::default();
        walker.walk(stack, &mut trace);
        assert_eq!(trace.deep(), first.deep(), "{name} has walked something else");
    }
}
