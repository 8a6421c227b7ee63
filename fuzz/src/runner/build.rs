//! Building the fuzzer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use console::style;

use crate::places::cargo;

/// Coverage for libFuzzer: what `cargo fuzz` passes too, and stable takes as it is, but for
/// `-sanitizer-coverage-trace-compares`. What compares is then told to libFuzzer, which tries the
/// other side's bytes. Here that took a third of the time, and no more was reached: from the seeds,
/// 160,000 runs without it take as long as 100,000 with it, and find 6 to 40% more features in four
/// of the targets, 2% more in `walk`. Inputs name what they mean by small numbers, and the seeds
/// hold the sections' constants.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Ccodegen-units=1";

/// The address sanitizer, for which stable has to be asked twice (`RUSTC_BOOTSTRAP`).
///
/// Its checks are calls and not inlined, because coverage comes last and would count each check's
/// branch as one of the program: `walk` had 830 edges so, of which 459 are its own. Runs in a
/// second of CPU time, inlined and not: `eh_frame` 34,000 and 45,000, `walk` 24,000 and 38,000,
/// `ledger` 35,000 and 45,000.
const SANITIZER: &str =
    "-Zsanitizer=address -Cllvm-args=-asan-instrumentation-with-call-threshold=0";

/// Naming the host's own target keeps these flags from build scripts.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Builds the fuzzer from a workspace, which has that target directory to itself, and returns its path.
///
/// To itself: of sources that lie inside of a target directory, cargo remembers where they lie there,
/// and in another workspace would take what was built from them for what is built from its own.
///
/// # Errors
/// If it does not build.
pub(crate) fn build(workspace: &Path, target_directory: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("{} the fuzzer", style("Building").for_stderr().green().bold());
    let cargo = cargo();
    let status = Command::new(&cargo)
        .current_dir(workspace)
        .args(["build", "--quiet", "--release", "--package", "fuzz-targets", "--bin", "fuzzer"])
        .args(["--no-default-features", "--features", "fuzzer", "--target", HOST, "--target-dir"])
        .arg(target_directory)
        .env("RUSTFLAGS", format!("{COVERAGE} {SANITIZER}"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // libFuzzer itself is not what is looked at. (The C++ compiler is told of rustc's sanitizer
        // otherwise.)
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
    Ok(target_directory.join(HOST).join("release").join("fuzzer"))
}
