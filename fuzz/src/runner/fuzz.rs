//! The jobs of one target.

use std::fs;
use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use console::style;
use fuzz_targets::Target;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Effort;
use crate::job::{self, Ended, Job};
use crate::places::Places;

/// How often the jobs are looked at when they say nothing.
const POLL: Duration = Duration::from_millis(100);

/// What to do with one target.
#[derive(Debug)]
pub(crate) struct Fuzz<'a> {
    pub(crate) fuzzer: &'a Path,
    pub(crate) target: &'static Target,
    pub(crate) places: &'a Places,
    pub(crate) effort: Effort,
}

impl Fuzz<'_> {
    /// Runs it in `jobs` processes, until the first failure, and prints what came of it. Returns
    /// whether there was no failure.
    ///
    /// # Errors
    /// If a process cannot be run, or ends badly without having found anything.
    pub(crate) fn run(&self, jobs: NonZeroUsize, cancelled: &AtomicBool) -> anyhow::Result<bool> {
        let name = self.target.name;
        for directory in [self.places.corpus(name), self.places.failures(name)] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let started = Instant::now();
        let bar = progress_bar(name, self.effort);
        let (sender, runs_told) = mpsc::channel();
        let mut running = vec![];
        for number in 0..jobs.get() {
            running.push(Job::start(&mut self.command(jobs), number, sender.clone())?);
        }
        drop(sender);

        let mut runs = vec![0; jobs.get()];
        let mut failed = None;
        // Relaxed: the flag carries nothing but itself.
        while !running.is_empty() && failed.is_none() && !cancelled.load(Ordering::Relaxed) {
            // Jobs that have all closed their pipes are about to end.
            match runs_told.recv_timeout(POLL) {
                Ok((job, told)) => runs[job] = told,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(POLL / 10),
            }
            self.show(&bar, runs.iter().sum(), started);
            let mut n = 0;
            while n < running.len() {
                if !running[n].has_ended()? {
                    n += 1;
                    continue;
                }
                let (status, ended) = running.swap_remove(n).end(false)?;
                if !status.success() {
                    failed = Some((status, ended));
                }
            }
        }
        for job in running {
            job.end(true)?;
        }
        for (job, told) in runs_told.try_iter() {
            runs[job] = told;
        }
        bar.finish_and_clear();

        let (total, seconds) = (runs.iter().sum::<u64>(), started.elapsed().as_secs_f64());
        println!(
            "fuzz target={name} runs={total} seconds={seconds:.1} rate={:.0} jobs={jobs} failures={}",
            total as f64 / seconds,
            u8::from(failed.is_some()),
        );
        let Some((status, ended)) = failed else { return Ok(true) };
        ensure!(
            ended.failure.is_some() || cancelled.load(Ordering::Relaxed),
            "the fuzzer ended with {status}:\n{}",
            ended.messages
        );
        self.tell(&ended);
        Ok(false)
    }

    fn command(&self, jobs: NonZeroUsize) -> std::process::Command {
        let name = self.target.name;
        let mut command = job::command(self.fuzzer, self.target);
        command
            .arg(match self.effort {
                Effort::Seconds(seconds) => format!("-max_total_time={seconds}"),
                Effort::Runs(runs) => format!("-runs={}", runs.div_ceil(jobs.get() as u64)),
            })
            .arg(format!("-max_len={}", self.target.max_len))
            .args(["-detect_leaks=0", "-timeout=10"])
            .arg(format!("-artifact_prefix={}/", self.places.failures(name).display()))
            .arg(self.places.corpus(name))
            .args(Places::kept(name).iter().filter(|directory| directory.is_dir()));
        command
    }

    fn show(&self, bar: &ProgressBar, runs: u64, started: Instant) {
        bar.set_position(match self.effort {
            Effort::Seconds(_) => started.elapsed().as_secs(),
            Effort::Runs(_) => runs,
        });
        let rate = runs as f64 / started.elapsed().as_secs_f64();
        bar.set_message(format!("{runs} runs, {rate:.0}/s"));
    }

    /// Says what failed, how to see it again, and how to keep it.
    fn tell(&self, ended: &Ended) {
        let name = self.target.name;
        eprintln!("{} {name}\n{}", style("failed:").for_stderr().red().bold(), ended.messages);
        if let Some(file) = &ended.failure {
            let file = file.display();
            eprintln!("again:  cargo fuzz-targets {name} --replay {file}");
            let [_, regressions] = Places::kept(name);
            let kept = regressions.display();
            eprintln!("keep:   mkdir -p {kept} && cp {file} {kept}");
        }
    }
}

fn progress_bar(name: &'static str, effort: Effort) -> ProgressBar {
    let (length, template) = match effort {
        Effort::Seconds(seconds) => (seconds, "{prefix} {wide_bar} {pos}/{len} s  {msg}"),
        Effort::Runs(runs) => (runs, "{prefix} {wide_bar} {msg}, {eta} left"),
    };
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    ProgressBar::new(length).with_style(style).with_prefix(name)
}
