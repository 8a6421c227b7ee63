//! A process of this host, run by the instruction through ptrace.
#![expect(unsafe_code, reason = "asks to be traced, between fork and exec")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use task_model::{Gpr, RegisterFile, StackBounds};

mod mappings;

use crate::bodies::STACK_BYTES;
use crate::{Flow, LONGEST_INSTRUCTION, Shadow, StackCopy, Tally, flow, judge};

/// Runs `command`, which is to bring itself to a body of [`bodies`](crate::bodies), and judges
/// the walker before every instruction of it.
///
/// # Errors
/// If the process cannot be traced, or does not come to the body's end.
pub fn validate(command: &mut Command) -> anyhow::Result<Tally> {
    let mut process = Process::start(command)?;
    let bounds = process.run_to_body()?;
    let mut images = mappings::images(process.pid, &process.memory)?;
    let mut shadow = Shadow::default();
    let mut tally = Tally::default();
    let mut registers = process.registers()?;
    loop {
        let stack = process.stack(bounds, &registers)?;
        let answers = judge(&registers, &shadow.callers(), &stack, &mut images);
        tally.add(answers, |address| images.place(address));

        let mut code = [0; LONGEST_INSTRUCTION];
        let len = process.memory.read_at(&mut code, registers.rip).context("no code here")?;
        let flow = flow(&code[..len], registers.rip);
        if flow == Flow::Breakpoint {
            break;
        }
        let mut stop = process.step(None)?;
        // A signal is delivered by the next step, to what has been executed by now.
        while let Stop::Signal(signal) = stop {
            let interrupted = process.registers()?;
            shadow.executed(&interrupted);
            stop = process.step(Some(signal))?;
            let handler = process.registers()?;
            // The system leaves the red zone alone.
            shadow.interrupted(&interrupted, interrupted.rsp() - 128);
            shadow.handler_began(&handler, process.word(handler.rsp())?);
        }
        ensure!(stop == Stop::Step, "the process ended inside of the body");
        let before = std::mem::replace(&mut registers, process.registers()?);
        if shadow.executed(&registers) {
            tally.frames_abandoned();
        }
        if let Flow::Call(next) = flow
            && registers.rsp() == before.rsp() - 8
            && process.word(registers.rsp())? == next
        {
            shadow.called(&before, next);
        }
    }
    ensure!(shadow.callers().is_empty(), "the body ended inside of a call");
    tally.settle(|address| images.place(address));
    Ok(tally)
}

/// Why a process stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It has executed one instruction, or stands at the first of a signal's handler.
    Step,
    /// It is about to get this signal.
    Signal(Signal),
    /// It is gone.
    Ended,
}

struct Process {
    child: Child,
    pid: Pid,
    memory: File,
}

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: `traceme` is one system call, which may be made between fork and exec.
        unsafe { command.pre_exec(|| ptrace::traceme().map_err(io::Error::from)) };
        let child = command.spawn().context("cannot start the process to be traced")?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let first = waitpid(pid, None)?;
        ensure!(matches!(first, WaitStatus::Stopped(_, Signal::SIGTRAP)), "{first:?} at the start");
        ptrace::setoptions(pid, ptrace::Options::PTRACE_O_EXITKILL)?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        Ok(Self { child, pid, memory })
    }

    /// Runs until the breakpoint at the beginning of a body's entry, where the stack is empty.
    fn run_to_body(&mut self) -> anyhow::Result<StackBounds> {
        ptrace::cont(self.pid, None)?;
        match waitpid(self.pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            status => bail!("{status:?} before the body"),
        }
        let top = self.registers()?.rsp();
        StackBounds::new(top - STACK_BYTES as u64, top, 0).context("no stack")
    }

    fn step(&mut self, signal: Option<Signal>) -> anyhow::Result<Stop> {
        ptrace::step(self.pid, signal)?;
        Ok(match waitpid(self.pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Stop::Step,
            WaitStatus::Stopped(_, signal) => Stop::Signal(signal),
            _ => Stop::Ended,
        })
    }

    fn registers(&self) -> anyhow::Result<RegisterFile> {
        let read = ptrace::getregs(self.pid)?;
        let mut registers = RegisterFile::new();
        for (gpr, value) in [
            (Gpr::Rax, read.rax),
            (Gpr::Rcx, read.rcx),
            (Gpr::Rdx, read.rdx),
            (Gpr::Rbx, read.rbx),
            (Gpr::Rsp, read.rsp),
            (Gpr::Rbp, read.rbp),
            (Gpr::Rsi, read.rsi),
            (Gpr::Rdi, read.rdi),
            (Gpr::R8, read.r8),
            (Gpr::R9, read.r9),
            (Gpr::R10, read.r10),
            (Gpr::R11, read.r11),
            (Gpr::R12, read.r12),
            (Gpr::R13, read.r13),
            (Gpr::R14, read.r14),
            (Gpr::R15, read.r15),
        ] {
            registers[gpr] = value;
        }
        registers.rip = read.rip;
        registers.rflags = read.eflags;
        Ok(registers)
    }

    fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, address)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn stack(&self, bounds: StackBounds, registers: &RegisterFile) -> io::Result<StackCopy> {
        StackCopy::take(bounds, registers.rsp(), |bytes, at| self.memory.read_exact_at(bytes, at))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to be done if these fail: the process is ours, so it is gone already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
