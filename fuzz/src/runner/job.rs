//! One process of the fuzzer, and what it says.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, ensure};
use fuzz_targets::{TARGET_VARIABLE, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::places::Places;

/// What libFuzzer exits with when it was interrupted.
const INTERRUPTED: i32 = 72;

/// A running process of the fuzzer. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Job {
    child: Child,
    reader: Option<JoinHandle<Ended>>,
}

/// How far a process says it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many inputs it has run.
    pub(crate) runs: u64,
    /// How many edges of the program they have reached.
    pub(crate) edges: u64,
}

/// What a process said until its end.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The input that failed, if one did.
    pub(crate) failure: Option<PathBuf>,
    /// All that is not about progress: the panic message, the sanitizer's report.
    pub(crate) messages: String,
}

/// Targets keep what they prepare once. Safe code returns no pointers into a dead frame, and
/// looking for them would put every large frame on the heap.
const ASAN_OPTIONS: &str = "detect_leaks=0:detect_stack_use_after_return=0";

/// An input's memory is all that a run allocates: to keep where it was allocated, and the last
/// 256 MB of it, would find nothing.
const ASAN_OPTIONS_OF_MANY_RUNS: &str =
    "malloc_context_size=0:quarantine_size_mb=1:thread_local_quarantine_size_kb=64";

/// When an input is taken to run for ever, in seconds. By the clock on the wall: a process without
/// priority has waited more than ten for a loaded processor, in runs of 0.1 ms.
const TIMEOUT: u32 = 120;

/// The command for a process that runs `target` many times.
pub(crate) fn fuzz(fuzzer: &Path, target: &Target) -> Command {
    let mut command = command(fuzzer, target);
    command
        .env("ASAN_OPTIONS", format!("{ASAN_OPTIONS}:{ASAN_OPTIONS_OF_MANY_RUNS}"))
        .args(["-detect_leaks=0", "-print_final_stats=1"])
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-max_len={}", target.max_len));
    command
}

fn command(fuzzer: &Path, target: &Target) -> Command {
    let mut command = Command::new(fuzzer);
    command
        .env(TARGET_VARIABLE, target.name)
        .env("ASAN_OPTIONS", ASAN_OPTIONS)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Runs `target` on the input in `file`, in the open. Returns whether it passed.
pub(crate) fn replay(fuzzer: &Path, target: &Target, file: &Path) -> anyhow::Result<bool> {
    // libFuzzer takes a file that is not there for an empty directory.
    fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let status = command(fuzzer, target)
        .env("RUST_BACKTRACE", "1")
        .arg(file)
        .status()
        .with_context(|| format!("cannot start {}", fuzzer.display()))?;
    Ok(status.success())
}

/// Whether `target` fails within a minute, from its seeds. `scratch` is emptied.
pub(crate) fn finds_something(
    fuzzer: &Path,
    target: &Target,
    scratch: &Path,
) -> anyhow::Result<bool> {
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let [seeds, _] = Places::kept(target.name);
    let output = fuzz(fuzzer, target)
        .args(["-max_total_time=60", "-seed=1"])
        .arg(format!("-artifact_prefix={}/", scratch.display()))
        .args([scratch, &seeds])
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {}", fuzzer.display()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    let failed = messages.lines().any(|line| failure(line).is_some());
    ensure!(failed || output.status.success(), "the fuzzer ended with {}", output.status);
    Ok(failed)
}

impl Job {
    /// Starts a process, and sends `(number, progress)` whenever it says how far it has come.
    pub(crate) fn start(
        command: &mut Command,
        number: usize,
        progress: Sender<(usize, Progress)>,
    ) -> anyhow::Result<Self> {
        let mut child =
            command.stderr(Stdio::piped()).spawn().context("cannot start the fuzzer")?;
        let stderr = child.stderr.take().context("the fuzzer's errors are not piped")?;
        let reader = thread::spawn(move || {
            let mut ended = Ended::default();
            let mut so_far = Progress::default();
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if so_far.read(&line) {
                    // Nobody listens any more if something else went wrong.
                    let _ = progress.send((number, so_far));
                } else if let Some(path) = failure(&line) {
                    ended.failure = Some(path.into());
                } else if !is_chatter(&line) {
                    ended.messages.push_str(&line);
                    ended.messages.push('\n');
                }
            }
            ended
        });
        Ok(Self { child, reader: Some(reader) })
    }

    /// Asks the process to end. It says how many runs it has made before it does.
    pub(crate) fn interrupt(&self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).context("a process number")?;
        kill(Pid::from_raw(id), Signal::SIGINT).context("cannot interrupt the fuzzer")
    }

    /// Waits for the process, and returns how it ended and what it said.
    pub(crate) fn end(mut self) -> anyhow::Result<(ExitStatus, Ended)> {
        let status = self.child.wait().context("cannot wait for the fuzzer")?;
        let reader = self.reader.take().expect("a job ends once");
        Ok((status, reader.join().expect("reading does not panic")))
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait().context("cannot wait for the fuzzer")?.is_some())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process that ended so found nothing.
pub(crate) fn found_nothing(status: ExitStatus) -> bool {
    let interrupted_early = status.signal() == Some(Signal::SIGINT as i32);
    status.success() || status.code() == Some(INTERRUPTED) || interrupted_early
}

impl Progress {
    /// Whether a line is about progress, such as `#1048576 pulse  cov: 301 ft: 520 …`, or the count
    /// at the end, `stat::number_of_executed_units: 1048576`.
    fn read(&mut self, line: &str) -> bool {
        let number = |text: &str| text.split_whitespace().next()?.parse().ok();
        if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:").and_then(number) {
            self.runs = runs;
            return true;
        }
        let read = || {
            let (runs, rest) = line.strip_prefix('#')?.split_once(['\t', ' '])?;
            let (_, edges) = rest.split_once("cov:")?;
            Some(Self { runs: runs.parse().ok()?, edges: number(edges)? })
        };
        read().is_some_and(|progress| {
            *self = progress;
            true
        })
    }
}

/// What libFuzzer says whether or not anything failed, and its dictionary.
fn is_chatter(line: &str) -> bool {
    ["INFO:", "\tNEW_FUNC", "######", "\"", "Done ", "stat::"]
        .iter()
        .any(|start| line.starts_with(start))
}

/// The file named in `artifact_prefix='…'; Test unit written to FILE`.
fn failure(line: &str) -> Option<&str> {
    Some(line.split_once("Test unit written to ")?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_progress_are_told_from_a_sanitizers_frames() {
        let line =
            "#1048576\tpulse  cov: 301 ft: 520 corp: 77/2kb lim: 110 exec/s: 349525 rss: 40Mb";
        let mut progress = Progress::default();
        assert!(progress.read(line));
        assert_eq!(progress, Progress { runs: 1_048_576, edges: 301 });
        for other in [
            "    #0 0x55d0 in keeper::unwind::step",
            "#0 0x55d0 in keeper::unwind::step",
            "==1== ERROR: libFuzzer: deadly signal",
            "stat::new_units_added:          7",
        ] {
            assert!(!progress.read(other), "{other}");
        }
        assert!(progress.read("stat::number_of_executed_units: 1050000"));
        assert_eq!(progress, Progress { runs: 1_050_000, edges: 301 });
    }

    #[test]
    fn the_failing_input_is_found() {
        let line =
            "artifact_prefix='/t/failures/walk/'; Test unit written to /t/failures/walk/crash-1";
        assert_eq!(failure(line), Some("/t/failures/walk/crash-1"));
    }
}
