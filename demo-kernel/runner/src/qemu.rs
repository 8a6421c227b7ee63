//! The machine: one QEMU process, from boot to its end.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use crate::guest::{Chunk, Guest};

/// The name that QEMU goes by on the search path.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// What every boot has in common.
///
/// `-icount shift=0` makes the time stamp counter count instructions, and `sleep=off` makes idle
/// time virtual too, so that a run repeats exactly. `isa-debug-exit` lets the kernel choose QEMU's
/// exit status: `value << 1 | 1`.
const MACHINE: &str = "-machine q35 -cpu max -m 256M -display none -monitor none -serial stdio \
                       -icount shift=0,sleep=off -device isa-debug-exit,iobase=0xf4,iosize=0x04";

/// The scenarios that reset the machine on purpose. In all others a reset is a triple fault, and
/// `-no-reboot` makes it the end.
const RESET_ON_PURPOSE: [&str; 1] = ["post-mortem-after-reset"];

/// Exit statuses that the kernel chooses, by writing 0x10 or 0x11 to port 0xf4.
const STATUS_SUCCESS: i32 = 0x10 << 1 | 1;
const STATUS_FAILURE: i32 = 0x11 << 1 | 1;

/// How often a running machine is looked at when it says nothing.
const POLL: Duration = Duration::from_millis(20);

/// How long the last output of a machine that has ended may take to arrive.
const DRAIN: Duration = Duration::from_millis(200);

/// The most output that one boot may make, in bytes. The scenarios print a few kilobytes; a
/// kernel that logs in a loop must not fill the host's memory.
const MAX_OUTPUT: usize = 4 << 20;

/// How to boot the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    program: PathBuf,
    arguments: Vec<OsString>,
    kernel: PathBuf,
    time_limit: Duration,
}

/// What became of one boot.
#[derive(Debug)]
pub(crate) struct Boot {
    /// How it ended.
    pub(crate) end: End,
    /// What the guest wrote to its serial port.
    pub(crate) output: Vec<u8>,
    /// What QEMU itself had to say.
    pub(crate) errors: Vec<u8>,
    /// How long it took, in real time.
    pub(crate) elapsed: Duration,
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The kernel reported success.
    Success,
    /// The kernel reported failure.
    Failure,
    /// The machine reset, as it does on a triple fault; `-no-reboot` turns this into an exit.
    Reset,
    /// QEMU exited with a status that the kernel does not use.
    Status(i32),
    /// A signal ended QEMU.
    Signal(i32),
    /// It ran longer than this, and was killed.
    TimedOut(Duration),
    /// It wrote more than this many bytes, and was killed.
    TooMuchOutput(usize),
}

impl Machine {
    /// QEMU at `program`, booting `kernel`; a boot is killed after `time_limit` of real time.
    pub(crate) fn qemu(program: PathBuf, kernel: PathBuf, time_limit: Duration) -> Self {
        let arguments = MACHINE.split_whitespace().map(OsString::from).collect();
        Self { program, arguments, kernel, time_limit }
    }

    /// Boots with `scenario=SCENARIO` as the kernel's command line, and waits for the end.
    ///
    /// QEMU is gone when this returns, whatever it returns.
    ///
    /// # Errors
    /// [`BootError`], when there is no end to report.
    pub(crate) fn boot(&self, scenario: &str, cancelled: &AtomicBool) -> Result<Boot, BootError> {
        let started = Instant::now();
        let mut guest = self.start(scenario, &[])?;
        let chunks = guest.output();
        let mut boot =
            Boot { end: End::Reset, output: vec![], errors: vec![], elapsed: Duration::ZERO };
        boot.end = loop {
            // Relaxed: the flag carries nothing but itself.
            if cancelled.load(Ordering::Relaxed) {
                return Err(BootError::Interrupted);
            }
            if started.elapsed() >= self.time_limit {
                break End::TimedOut(self.time_limit);
            }
            match chunks.recv_timeout(POLL) {
                Ok(chunk) => {
                    boot.take(chunk);
                    if boot.output.len() + boot.errors.len() > MAX_OUTPUT {
                        break End::TooMuchOutput(MAX_OUTPUT);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Both pipes are closed, so the end is near.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
            }
            if let Some(status) = guest.try_wait().map_err(BootError::Wait)? {
                break End::from(status);
            }
        };
        drop(guest);
        // A terminal sends Ctrl-C to QEMU too, which may end by it before the flag is looked at.
        if cancelled.load(Ordering::Relaxed) {
            return Err(BootError::Interrupted);
        }
        boot.elapsed = started.elapsed();
        let drained = Instant::now() + DRAIN;
        while boot.output.len() + boot.errors.len() <= MAX_OUTPUT
            && let Ok(chunk) =
                chunks.recv_timeout(drained.saturating_duration_since(Instant::now()))
        {
            boot.take(chunk);
        }
        Ok(boot)
    }

    /// Starts the machine with `scenario=SCENARIO` as the kernel's command line, stopped before
    /// its first instruction, and with a debugger's socket at `socket`.
    ///
    /// # Errors
    /// If QEMU does not start.
    pub(crate) fn start_stopped(&self, scenario: &str, socket: &Path) -> Result<Guest, BootError> {
        let mut device = OsString::from("socket,id=debugger,server=on,wait=off,path=");
        device.push(socket);
        let chardev = ["-S", "-gdb", "chardev:debugger", "-chardev"].map(OsString::from);
        self.start(scenario, &[&chardev[..], &[device]].concat())
    }

    fn start(&self, scenario: &str, more: &[OsString]) -> Result<Guest, BootError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("-kernel").arg(&self.kernel);
        command.arg("-append").arg(format!("scenario={scenario}")).args(more);
        if !RESET_ON_PURPOSE.contains(&scenario) {
            command.arg("-no-reboot");
        }
        Guest::start(&mut command).map_err(|error| BootError::Start(self.program.clone(), error))
    }
}

impl Boot {
    fn take(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Output(bytes) => self.output.extend(bytes),
            Chunk::Errors(bytes) => self.errors.extend(bytes),
        }
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(STATUS_SUCCESS), _) => Self::Success,
            (Some(STATUS_FAILURE), _) => Self::Failure,
            (Some(0), _) => Self::Reset,
            (Some(code), _) => Self::Status(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("the kernel reported success"),
            Self::Failure => f.write_str("the kernel reported failure"),
            Self::Reset => f.write_str("the machine reset"),
            Self::Status(code) => write!(f, "QEMU exited with status {code}"),
            Self::Signal(signal) => write!(f, "QEMU was ended by signal {signal}"),
            Self::TimedOut(limit) => write!(f, "no end within {} s", limit.as_secs_f64()),
            Self::TooMuchOutput(limit) => write!(f, "more than {limit} bytes of output"),
        }
    }
}

/// Why a boot has no end to report.
#[derive(Debug)]
pub(crate) enum BootError {
    /// The program could not be started.
    Start(PathBuf, io::Error),
    /// The process could not be waited for.
    Wait(io::Error),
    /// The user asked to stop.
    Interrupted,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(program, error) => {
                write!(f, "cannot start {}: {error}", program.display())
            }
            Self::Wait(error) => write!(f, "cannot wait for QEMU: {error}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for BootError {}

#[cfg(test)]
pub(crate) mod stand_in {
    //! A shell script in QEMU's place.

    use super::*;

    /// A machine that runs `script`, in which `$scenario` is the scenario asked for.
    pub(crate) fn machine(script: &str, time_limit: Duration) -> Machine {
        // `sh -c SCRIPT stand-in -kernel … -append scenario=NAME`: `$4` is the kernel's command
        // line.
        let script = format!("scenario=${{4#scenario=}}\n{script}");
        Machine {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into(), "stand-in".into()],
            kernel: "/nonexistent/kernel".into(),
            time_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stand_in::machine;
    use super::*;

    static NOT_CANCELLED: AtomicBool = AtomicBool::new(false);
    const LONG: Duration = Duration::from_secs(30);

    fn boot(script: &str) -> Boot {
        machine(script, LONG).boot("x", &NOT_CANCELLED).unwrap()
    }

    /// Waits until process `pid` exists no more.
    fn is_gone(pid: &str) -> bool {
        (0..100).any(|_| {
            thread::sleep(Duration::from_millis(10));
            !Path::new("/proc").join(pid).exists()
        })
    }

    #[test]
    fn exit_statuses_have_their_meaning() {
        for (script, end) in [
            ("exit 33", End::Success),
            ("exit 35", End::Failure),
            ("exit 0", End::Reset),
            ("exit 1", End::Status(1)),
            ("kill -SEGV $$", End::Signal(11)),
        ] {
            assert_eq!(boot(script).end, end, "{script}");
        }
    }

    #[test]
    fn the_kernel_is_told_the_scenario() {
        let boot = machine("echo $1 $2 $3 $4", LONG).boot("torn-slice", &NOT_CANCELLED).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&boot.output),
            "-kernel /nonexistent/kernel -append scenario=torn-slice\n"
        );
    }

    #[test]
    fn the_guests_output_and_qemus_own_are_kept_apart() {
        let boot = boot("echo serial; echo complaint >&2; exit 33");
        assert_eq!(boot.output, b"serial\n");
        assert_eq!(boot.errors, b"complaint\n");
    }

    #[test]
    fn a_hang_is_killed_at_the_time_limit_with_its_output_kept() {
        let limit = Duration::from_millis(300);
        let boot = machine("echo $$; exec sleep 1000", limit).boot("x", &NOT_CANCELLED).unwrap();
        assert_eq!(boot.end, End::TimedOut(limit));
        assert!(boot.elapsed >= limit && boot.elapsed < LONG, "{:?}", boot.elapsed);
        assert!(is_gone(String::from_utf8_lossy(&boot.output).trim()));
    }

    #[test]
    fn a_machine_that_closed_its_output_is_still_bound_by_the_limit() {
        let limit = Duration::from_millis(300);
        let boot = machine("exec sleep 1000 >&- 2>&-", limit).boot("x", &NOT_CANCELLED).unwrap();
        assert_eq!(boot.end, End::TimedOut(limit));
    }

    #[test]
    fn an_end_is_seen_although_a_child_keeps_the_output_open() {
        let boot = boot("sleep 5 & exit 33");
        assert_eq!(boot.end, End::Success);
        assert!(boot.elapsed < Duration::from_secs(5), "{:?}", boot.elapsed);
    }

    #[test]
    fn a_flood_of_output_is_cut_off() {
        let boot = boot("exec yes");
        assert_eq!(boot.end, End::TooMuchOutput(MAX_OUTPUT));
        assert!(boot.output.len() < MAX_OUTPUT + (1 << 20));
    }

    #[test]
    fn an_interrupt_kills_the_machine() {
        let pid_file = std::env::temp_dir().join(format!("stand-in-{}", std::process::id()));
        let script = format!("echo $$ > {}; exec sleep 1000", pid_file.display());
        let cancelled = AtomicBool::new(false);
        let pid = thread::scope(|scope| {
            let running = scope.spawn(|| machine(&script, LONG).boot("x", &cancelled));
            let pid = loop {
                match std::fs::read_to_string(&pid_file) {
                    Ok(pid) if pid.ends_with('\n') => break pid,
                    _ => thread::sleep(Duration::from_millis(5)),
                }
            };
            cancelled.store(true, Ordering::Relaxed);
            assert!(matches!(running.join().unwrap(), Err(BootError::Interrupted)));
            pid
        });
        std::fs::remove_file(pid_file).unwrap();
        assert!(is_gone(pid.trim()));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        let machine = Machine::qemu("/nonexistent/qemu".into(), "kernel".into(), LONG);
        let error = machine.boot("x", &NOT_CANCELLED).unwrap_err();
        assert!(error.to_string().starts_with("cannot start /nonexistent/qemu: "), "{error}");
    }
}
