//! Many scenarios, several machines at a time.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{bail, ensure};
use indicatif::ProgressBar;

use crate::qemu::{BootError, End, Machine};
use crate::report::Report;
use crate::transcript::{Scenario, Transcript};

/// Asks the kernel for its scenarios.
///
/// # Errors
/// If the machine does not start, or what the kernel answers is not a list of distinct names.
pub(crate) fn list(machine: &Machine, cancelled: &AtomicBool) -> anyhow::Result<Vec<Scenario>> {
    let boot = machine.boot("list", cancelled)?;
    let transcript = Transcript::parse(&boot.output);
    let told = || {
        let [output, errors] = [&boot.output, &boot.errors].map(|b| String::from_utf8_lossy(b));
        format!("{output}{errors}")
    };
    ensure!(boot.end == End::Success, "the kernel lists no scenarios: {}\n{}", boot.end, told());
    if let Some(line) = transcript.garbled.first() {
        bail!("the kernel's list of scenarios has a garbled line: {line}");
    }
    let scenarios = transcript.scenarios;
    ensure!(!scenarios.is_empty(), "the kernel's list of scenarios is empty:\n{}", told());
    for (i, scenario) in scenarios.iter().enumerate() {
        let repeated = scenarios[..i].iter().any(|earlier| earlier.name == scenario.name);
        ensure!(!repeated, "the kernel lists the scenario `{}` twice", scenario.name);
    }
    Ok(scenarios)
}

/// Runs each of `names`, up to `jobs` at a time; the reports come in the order of the names.
///
/// # Errors
/// The first boot that has no end to report stops the rest.
pub(crate) fn run(
    machine: &Machine,
    names: &[String],
    jobs: NonZeroUsize,
    cancelled: &AtomicBool,
    progress: &ProgressBar,
) -> Result<Vec<Report>, BootError> {
    let next = AtomicUsize::new(0);
    let running = Running { names: Mutex::new(vec![]), progress };
    let work = || {
        let mut done = vec![];
        // Relaxed: only the count itself is shared; the reports come back by joining.
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(index) else { return Ok(done) };
            running.begin(name);
            let boot = machine.boot(name, cancelled).inspect_err(|_| {
                next.store(names.len(), Ordering::Relaxed);
            })?;
            running.end(name);
            done.push((index, Report::new(name, boot)));
        }
    };
    let mut reports = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.get().min(names.len())).map(|_| scope.spawn(work)).collect();
        let mut reports = vec![];
        for worker in workers {
            reports.extend(worker.join().expect("a worker does not panic")?);
        }
        Ok(reports)
    })?;
    reports.sort_by_key(|(index, _)| *index);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

/// The scenarios under way, shown beside the progress bar.
struct Running<'a> {
    names: Mutex<Vec<&'a str>>,
    progress: &'a ProgressBar,
}

impl<'a> Running<'a> {
    fn begin(&self, name: &'a str) {
        self.change(|names| names.push(name));
    }

    fn end(&self, name: &str) {
        self.change(|names| names.retain(|running| *running != name));
        self.progress.inc(1);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<&'a str>)) {
        let mut names = self.names.lock().expect("nothing panics while holding it");
        change(&mut names);
        self.progress.set_message(names.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::qemu::stand_in::machine;

    /// A kernel with one scenario for each way to end.
    const KERNEL: &str = r#"
outcome() {
    echo "@outcome passed=$1 fault=page-fault verdict=exit frames=2 released=1 poisoned=1 leaked=0 trap_to_free=10 trap_to_gone=20"
}
case $scenario in
list) echo "@scenario passes as it should"; echo "@scenario hangs for ever"; exit 33 ;;
passes) echo "@check ok the lock is free again"; outcome true; exit 33 ;;
fails) echo "@check ok one"; echo "@check FAILED two"; outcome false; exit 35 ;;
silent) echo "@check ok one"; exit 33 ;;
resets) echo "@check ok one"; outcome true; exit 0 ;;
hangs) echo "@check ok one"; outcome true; exec sleep 1000 ;;
esac"#;

    fn run_all(names: &[&str], jobs: usize, time_limit: Duration) -> Vec<Report> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let machine = machine(KERNEL, time_limit);
        let jobs = NonZeroUsize::new(jobs).unwrap();
        run(&machine, &names, jobs, &AtomicBool::new(false), &ProgressBar::hidden()).unwrap()
    }

    fn list_from(script: &str) -> Result<Vec<Scenario>, String> {
        let machine = machine(script, Duration::from_secs(30));
        list(&machine, &AtomicBool::new(false)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_way_to_end_is_told_in_the_order_asked_for() {
        let reports =
            run_all(&["hangs", "fails", "passes", "silent", "resets"], 3, Duration::from_secs(2));
        let told: Vec<_> = reports
            .iter()
            .map(|r| (r.name.as_str(), r.failure.as_ref().map(ToString::to_string)))
            .collect();
        let failed = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                ("hangs", failed("no end within 2 s")),
                ("fails", failed("check failed: two")),
                ("passes", None),
                ("silent", failed("the kernel reported success, but without an @outcome line")),
                ("resets", failed("the machine reset")),
            ]
        );
    }

    #[test]
    fn machines_run_side_by_side() {
        let started = Instant::now();
        run_all(&["hangs"; 8], 8, Duration::from_millis(500));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }

    #[test]
    fn an_interrupt_stops_the_suite() {
        let machine = machine(KERNEL, Duration::from_secs(30));
        let names = vec!["hangs".to_owned(); 4];
        let cancelled = AtomicBool::new(true);
        let result = run(&machine, &names, NonZeroUsize::MIN, &cancelled, &ProgressBar::hidden());
        assert!(matches!(result, Err(BootError::Interrupted)));
    }

    #[test]
    fn the_kernel_names_its_scenarios() {
        let scenarios = list_from(KERNEL).unwrap();
        let told: Vec<_> =
            scenarios.iter().map(|s| (s.name.as_str(), s.summary.as_str())).collect();
        assert_eq!(told, [("passes", "as it should"), ("hangs", "for ever")]);
    }

    #[test]
    fn a_list_that_cannot_be_trusted_is_refused() {
        for (script, complaint) in [
            ("echo '@scenario a b'; exit 0", "the machine reset"),
            ("echo '@scenario a b'; exit 35", "the kernel reported failure"),
            ("echo nothing; exit 33", "is empty"),
            ("echo '@scenario a'; echo '@scenario'; exit 33", "garbled"),
            ("echo '@scenario a'; echo '@scenario a b'; exit 33", "`a` twice"),
        ] {
            let error = list_from(script).unwrap_err();
            assert!(error.contains(complaint), "{script}: {error}");
        }
    }
}
