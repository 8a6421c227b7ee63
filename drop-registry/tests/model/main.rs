//! Random programs of several tasks, interleaved at random instructions, some of which are killed
//! there; compared with a reference model.
//!
//! | module | concern |
//! | --- | --- |
//! | [`program`] | what can happen: operations, turns, kills; as proptest makes and shrinks them |
//! | [`world`] | the resources, and the model of them |
//! | [`task`] | what a task does, and what it tells the model |
//! | [`run`] | one run of a program, and the books at its end |
//!
//! `PROPTEST_CASES` says how many (a thousand without it), `PROPTEST_RNG_SEED` which. A program
//! that fails is shrunk, printed, and kept in `proptest-regressions`, to be run first from then on.
//! A long run:
//!
//! ```text
//! PROPTEST_CASES=1000000 PROPTEST_RNG_SEED=1 cargo test --release -p drop-registry \
//!     --features hosted --test model random_programs
//! ```
#![expect(unsafe_code, reason = "looks at lock words, and frees what killed tasks borrowed")]

#[cfg(feature = "planted-bugs")]
mod planted;
mod program;
mod run;
mod task;
mod world;

use proptest::test_runner::{Config, RngSeed, TestRunner};

/// The seed of plain `cargo test`: any would do, as long as it is the same.
const SEED: u64 = 0x5eed;
const CASES: u32 = 1000;

#[test]
fn random_programs_keep_to_the_model() {
    let mut config = Config { source_file: Some(file!()), ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    #[cfg(feature = "planted-bugs")]
    if planted::plant_from_environment() {
        // It is to fail, and nobody reads how.
        (config.max_shrink_iters, config.failure_persistence) = (0, None);
    }
    let holds = TestRunner::new(config).run(&program::any(), |program| run::run(&program));
    if let Err(failure) = holds {
        panic!("{failure}");
    }
}
