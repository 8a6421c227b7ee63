//! Fuzz targets for everything that reads what a dead task or a linker left.
//!
//! A target is a function of bytes that panics if it finds something that must not be. libFuzzer
//! looks for bytes that make it panic, or that make the address sanitizer complain; `cargo test`
//! gives every target the bytes in `seeds/` and `regressions/`, without either.
//!
//! | | |
//! | --- | --- |
//! | [`TARGETS`] | the list |
//! | [`targets`] | one file for each |
//! | `seeds/TARGET/` | inputs to begin with |
//! | `regressions/TARGET/` | inputs that once showed a mistake |
//! | `src/fuzzer.rs` | libFuzzer's side: one program for all targets |
//! | `src/runner/` | `cargo fuzz-targets`: builds that, and runs it |
//!
//! # A new target
//! Write `targets/NAME.rs`, add it to [`TARGETS`], and put one or more inputs into `seeds/NAME/`.
//! It should neither allocate nor prepare much in each run: at 50,000 runs in a second, 10^8 of
//! them take half an hour.

mod input;
pub mod targets;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, as in [`FUZZ_TARGET`](TARGET_VARIABLE), in `seeds/` and in `regressions/`.
    pub name: &'static str,
    /// What its input is, in a few words.
    pub about: &'static str,
    /// The longest input to try, in bytes. Longer ones find nothing more, and slower.
    pub max_len: usize,
    /// Panics if something that must not be happens on this input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] =
    &[targets::EH_FRAME, targets::EH_FRAME_HDR, targets::LEDGER, targets::LSDA, targets::WALK];

/// The environment variable that tells the fuzzer which target to run.
pub const TARGET_VARIABLE: &str = "FUZZ_TARGET";

/// The target with this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
