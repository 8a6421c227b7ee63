//! Steps through the short bodies; `cargo run --release -p validator` steps through all.

use std::process::Command;

use validator::{Tally, bodies, traced};

/// Without optimisation these take minutes.
const LONG: [&str; 5] = ["sorting", "maps", "strings", "recursion", "panic"];

fn step_through(body: &str) -> Tally {
    let mut command = Command::new(env!("CARGO_BIN_EXE_validator"));
    traced::validate(command.args(["--be", body])).unwrap()
}

#[test]
fn the_walker_is_never_wrong_at_any_instruction() {
    for body in bodies::BODIES.iter().filter(|body| !LONG.contains(&body.name)) {
        let tally = step_through(body.name);
        println!("{}: {tally}\n{}", body.name, tally.list());
        assert!(tally.boundaries > 50 && tally.agreed > 2 * tally.boundaries, "{tally}");
        assert!(tally.holds(), "{tally}\n{}", tally.list());
    }
}

#[test]
fn a_frame_size_that_is_wrong_in_the_tables_is_found() {
    let tally = step_through("planted-frame-size");
    assert!(tally.wrong > 0, "{tally}");
    assert!(
        tally.list().contains("frame address: in validator::bodies::assembled::wrong_frame_size")
    );
}

#[test]
fn a_register_that_the_tables_forget_is_found() {
    let tally = step_through("planted-register");
    assert!(tally.wrong > 0, "{tally}");
    assert!(tally.list().contains("register: in validator::bodies::assembled::forgotten_register"));
}
