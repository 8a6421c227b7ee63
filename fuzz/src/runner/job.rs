//! One process of the fuzzer, and what it says.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use fuzz_targets::{TARGET_VARIABLE, Target};

/// A running process of the fuzzer. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Job {
    child: Child,
    reader: JoinHandle<Ended>,
}

/// What a process said until its end.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The input that failed, if one did.
    pub(crate) failure: Option<PathBuf>,
    /// All that is not about progress: the panic message, the sanitizer's report.
    pub(crate) messages: String,
}

/// The command for one process that runs `target`.
pub(crate) fn command(fuzzer: &Path, target: &Target) -> Command {
    let mut command = Command::new(fuzzer);
    command
        .env(TARGET_VARIABLE, target.name)
        // Targets keep what they prepare once. Safe code returns no pointers into a dead frame, and
        // looking for them would put every large frame on the heap.
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Runs `target` on the input in `file`, in the open. Returns whether it passed.
pub(crate) fn replay(fuzzer: &Path, target: &Target, file: &Path) -> anyhow::Result<bool> {
    // libFuzzer takes a file that is not there for an empty directory.
    std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let status = command(fuzzer, target)
        .env("RUST_BACKTRACE", "1")
        .arg(file)
        .status()
        .with_context(|| format!("cannot start {}", fuzzer.display()))?;
    Ok(status.success())
}

impl Job {
    /// Starts a process, and sends `(number, runs)` whenever it says how many runs it has made.
    pub(crate) fn start(
        command: &mut Command,
        number: usize,
        progress: Sender<(usize, u64)>,
    ) -> anyhow::Result<Self> {
        let mut child =
            command.stderr(Stdio::piped()).spawn().context("cannot start the fuzzer")?;
        let stderr = child.stderr.take().context("the fuzzer's errors are not piped")?;
        let reader = thread::spawn(move || {
            let mut ended = Ended::default();
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if let Some(runs) = runs(&line) {
                    // Nobody listens any more if another job has failed.
                    let _ = progress.send((number, runs));
                } else if let Some(path) = failure(&line) {
                    ended.failure = Some(path.into());
                } else if !is_chatter(&line) {
                    ended.messages.push_str(&line);
                    ended.messages.push('\n');
                }
            }
            ended
        });
        Ok(Self { child, reader })
    }

    /// Ends the process, if it still runs, and returns how it ended and what it said.
    pub(crate) fn end(mut self, kill: bool) -> anyhow::Result<(ExitStatus, Ended)> {
        if kill {
            self.child.kill().context("cannot end the fuzzer")?;
        }
        let status = self.child.wait().context("cannot wait for the fuzzer")?;
        Ok((status, self.reader.join().expect("reading does not panic")))
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait().context("cannot wait for the fuzzer")?.is_some())
    }
}

/// The number of runs in a line such as `#1048576 pulse  cov: 301 ft: 520 …`.
fn runs(line: &str) -> Option<u64> {
    let (number, rest) = line.strip_prefix('#')?.split_once(['\t', ' '])?;
    rest.contains("cov:").then(|| number.parse().ok())?
}

/// What libFuzzer says whether or not anything failed, and its dictionary.
fn is_chatter(line: &str) -> bool {
    ["INFO:", "\tNEW_FUNC", "######", "\"", "Done "].iter().any(|start| line.starts_with(start))
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
        assert_eq!(runs(line), Some(1_048_576));
        assert_eq!(runs("    #0 0x55d0 in keeper::unwind::step"), None);
        assert_eq!(runs("#0 0x55d0 in keeper::unwind::step"), None);
        assert_eq!(runs("==1== ERROR: libFuzzer: deadly signal"), None);
    }

    #[test]
    fn the_failing_input_is_found() {
        let line =
            "artifact_prefix='/t/failures/walk/'; Test unit written to /t/failures/walk/crash-1";
        assert_eq!(failure(line), Some("/t/failures/walk/crash-1"));
    }
}
