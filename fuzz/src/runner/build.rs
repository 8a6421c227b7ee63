//! Building the fuzzer.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use console::style;

use crate::places::{Places, cargo};

/// Coverage for libFuzzer: what `cargo fuzz` passes too, and stable takes as it is.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

/// The address sanitizer, for which stable has to be asked twice (`RUSTC_BOOTSTRAP`).
const SANITIZER: &str = "-Zsanitizer=address";

/// Naming the host's own target keeps these flags from build scripts.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Builds the fuzzer and returns its path.
///
/// # Errors
/// If it does not build.
pub(crate) fn build(places: &Places) -> anyhow::Result<PathBuf> {
    eprintln!("{} the fuzzer", style("Building").for_stderr().green().bold());
    let cargo = cargo();
    let status = Command::new(&cargo)
        .current_dir(Places::package())
        .args(["build", "--quiet", "--release", "--package", "fuzz-targets", "--bin", "fuzzer"])
        .args(["--no-default-features", "--features", "fuzzer", "--target", HOST, "--target-dir"])
        .arg(&places.target_directory)
        .env("RUSTFLAGS", format!("{COVERAGE} {SANITIZER}"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // libFuzzer itself is not what is looked at, and is several times as fast without.
        .env("CXXFLAGS", "-fno-sanitize=address")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .status()
        .with_context(|| format!("cannot start {}", cargo.display()))?;
    ensure!(
        status.success(),
        "the fuzzer does not build ({status}); if it is libFuzzer that does not, it needs a C++ \
         compiler (`apt install g++`)"
    );
    Ok(places.target_directory.join(HOST).join("release").join("fuzzer"))
}
