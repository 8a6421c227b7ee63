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
use crate::job::{self, Ended, Job, Progress};
use crate::places::Places;
use crate::tally::Tally;

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

/// When this invocation stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Seconds(u64),
    Runs(u64),
}

impl Fuzz<'_> {
    /// Runs it in `jobs` processes, until the first failure, and prints what came of it. Returns
    /// whether there was no failure.
    ///
    /// # Errors
    /// If a process cannot be run, or ends badly without having found anything.
    pub(crate) fn run(
        &self,
        jobs: NonZeroUsize,
        tally: &mut Tally,
        cancelled: &AtomicBool,
    ) -> anyhow::Result<bool> {
        let name = self.target.name;
        for directory in [self.places.corpus(name), self.places.failures(name)] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let started = Instant::now();
        let limit = match self.effort {
            Effort::Seconds(seconds) => Limit::Seconds(seconds),
            Effort::Runs(runs) => Limit::Runs(runs),
            Effort::Total(runs) => Limit::Runs(runs.saturating_sub(tally.total())),
        };
        let bar = progress_bar(name, limit);
        let (sender, told) = mpsc::channel();
        let mut running = vec![];
        if limit != Limit::Runs(0) {
            for number in 0..jobs.get() {
                let mut command = self.command(limit, jobs);
                running.push(Job::start(&mut command, number, sender.clone())?);
            }
        }
        drop(sender);

        let mut progress = vec![Progress::default(); jobs.get()];
        let runs = |progress: &[Progress]| progress.iter().map(|job| job.runs).sum::<u64>();
        let mut failed = None;
        let mut interrupted = false;
        while !running.is_empty() {
            // Jobs that have all closed their pipes are about to end.
            match told.recv_timeout(POLL) {
                Ok((job, now)) => progress[job] = now,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(POLL / 10),
            }
            for (job, now) in told.try_iter() {
                progress[job] = now;
            }
            tally.set(runs(&progress))?;
            show(&bar, limit, runs(&progress), started);
            let mut n = 0;
            while n < running.len() {
                if !running[n].has_ended()? {
                    n += 1;
                    continue;
                }
                let (status, ended) = running.swap_remove(n).end()?;
                if !job::found_nothing(status) && failed.is_none() {
                    failed = Some((status, ended));
                }
            }
            // Relaxed: the flag carries nothing but itself.
            if !interrupted && (failed.is_some() || cancelled.load(Ordering::Relaxed)) {
                interrupted = true;
                for job in &running {
                    job.interrupt()?;
                }
            }
        }
        for (job, now) in told.try_iter() {
            progress[job] = now;
        }
        tally.set(runs(&progress))?;
        bar.finish_and_clear();

        let (runs, seconds) = (runs(&progress), started.elapsed().as_secs_f64());
        println!(
            "fuzz target={name} runs={runs} seconds={seconds:.1} rate={:.0} jobs={jobs} edges={} \
             total={} failures={}",
            runs as f64 / seconds,
            progress.iter().map(|job| job.edges).max().unwrap_or(0),
            tally.total(),
            u8::from(failed.is_some()),
        );
        let Some((status, ended)) = failed else { return Ok(true) };
        ensure!(ended.failure.is_some(), "the fuzzer ended with {status}:\n{}", ended.messages);
        self.tell(&ended);
        Ok(false)
    }

    fn command(&self, limit: Limit, jobs: NonZeroUsize) -> std::process::Command {
        let name = self.target.name;
        let mut command = job::fuzz(self.fuzzer, self.target);
        command
            .arg(match limit {
                Limit::Seconds(seconds) => format!("-max_total_time={seconds}"),
                Limit::Runs(runs) => format!("-runs={}", runs.div_ceil(jobs.get() as u64)),
            })
            .arg(format!("-artifact_prefix={}/", self.places.failures(name).display()))
            .arg(self.places.corpus(name))
            .args(Places::kept(name).iter().filter(|directory| directory.is_dir()));
        command
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

fn show(bar: &ProgressBar, limit: Limit, runs: u64, started: Instant) {
    bar.set_position(match limit {
        Limit::Seconds(_) => started.elapsed().as_secs(),
        Limit::Runs(_) => runs,
    });
    let rate = runs as f64 / started.elapsed().as_secs_f64();
    bar.set_message(format!("{runs} runs, {rate:.0}/s"));
}

fn progress_bar(name: &'static str, limit: Limit) -> ProgressBar {
    let (length, template) = match limit {
        Limit::Seconds(seconds) => (seconds, "{prefix} {wide_bar} {pos}/{len} s  {msg}"),
        Limit::Runs(runs) => (runs, "{prefix} {wide_bar} {msg}, {eta} left"),
    };
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    ProgressBar::new(length).with_style(style).with_prefix(name)
}
