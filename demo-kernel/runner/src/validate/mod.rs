//! Steps through the kernel from outside, by QEMU's debugger port, and judges the walker before
//! every instruction: of tasks, of the trap stubs and their handlers, of the scheduler and the
//! keeper alike.
//!
//! Each stack has a shadow of its own. A trap begins a new one on its trap stack, with the
//! interrupted registers as its outermost entry; behind that the interrupted stack's shadow goes
//! on. When a stub returns, it may be to another task: from the instruction on at which the
//! dispatcher's answer is where the tables look for it, whoever goes on is who was interrupted,
//! and the truth about that is checked once the stub has returned.

mod layout;
mod memory;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use task_model::{Gpr, RegisterFile};
use validator::{Caller, Flow, Shadow, Tally, flow, judge};

use crate::gdb::Gdb;
use crate::qemu::{BootError, Machine};
use layout::{Layout, stack_of};
use memory::TrapMemory;

/// What is stepped through if nothing is named.
pub(crate) const SCENARIOS: [&str; 3] =
    ["page-fault-holding-lock", "refcount-held", "stack-overflow"];

/// How often the timer may fire, unless the kernel waits for it: tasks are preempted, at whatever
/// instruction, and come forward nevertheless.
const STEPS_PER_TICK: u64 = 2000;

/// One scenario, stepped through.
#[derive(Debug)]
pub(crate) struct Stepped {
    /// What came of the comparisons.
    pub(crate) tally: Tally,
    /// How many different instructions were stepped over.
    pub(crate) instructions: usize,
    /// How many traps were taken.
    pub(crate) traps: u64,
    /// Whether the kernel came to its end.
    pub(crate) to_the_end: bool,
}

impl fmt::Display for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, instructions, traps, to_the_end } = self;
        let end = if *to_the_end { "to the end" } else { "in part" };
        write!(f, "{tally} instructions={instructions} traps={traps}, {end}")
    }
}

/// Steps through at most `steps` instructions of a scenario, from its first task on.
///
/// # Errors
/// If the machine cannot be stepped, or what is seen cannot be true.
pub(crate) fn validate(
    machine: &Machine,
    kernel: &Path,
    scenario: &str,
    steps: u64,
    cancelled: &AtomicBool,
) -> anyhow::Result<Stepped> {
    let (layout, mut images) = Layout::read(kernel)?;
    let directory = tempfile::tempdir().context("no place for a socket")?;
    let socket = directory.path().join("debugger");
    let mut guest = machine.start_stopped(scenario, &socket)?;
    let output = guest.output();
    let mut gdb = Gdb::connect(&socket)?;
    ensure!(gdb.run_to(layout.task_start)?, "the kernel ends before its first task");

    let mut stepper = Stepper {
        registers: gdb.registers()?,
        gdb,
        layout,
        shadows: HashMap::new(),
        dispatched: false,
        resumes: None,
        traps: 0,
        since_tick: 0,
    };
    let mut tally = Tally::default();
    let mut instructions = HashSet::new();
    let mut to_the_end = false;
    for _ in 0..steps {
        // Relaxed: the flag carries nothing but itself.
        if cancelled.load(Ordering::Relaxed) {
            return Err(BootError::Interrupted.into());
        }
        // Nobody reads it, but the guest must be able to write.
        while output.try_recv().is_ok() {}
        instructions.insert(stepper.registers.rip);
        let callers = stepper.callers()?;
        let answers = stepper.judge(&callers, &mut images)?;
        tally.add(answers, |address| images.place(address));
        if !stepper.step()? {
            to_the_end = true;
            break;
        }
    }
    tally.settle(|address| images.place(address));
    Ok(Stepped { tally, instructions: instructions.len(), traps: stepper.traps, to_the_end })
}

/// A machine on its way, and all that is known of its frames.
struct Stepper {
    gdb: Gdb,
    layout: Layout,
    registers: RegisterFile,
    /// By the number of the stack.
    shadows: HashMap<u64, Shadow>,
    /// Whether the dispatcher has just returned to the stub.
    dispatched: bool,
    /// In a stub that is about to return: the registers that it is to restore.
    resumes: Option<RegisterFile>,
    traps: u64,
    since_tick: u64,
}

impl Stepper {
    /// The truth about the callers, innermost first.
    fn callers(&mut self) -> anyhow::Result<Vec<Caller>> {
        let mut callers = vec![];
        let mut sp = self.registers.rsp();
        loop {
            let (stack, _) = stack_of(sp).with_context(|| format!("no stack at {sp:#x}"))?;
            let here = self.shadows.entry(stack).or_default().callers();
            // A trap's shadow has the interruption as its outermost entry.
            let interrupted = here.last().filter(|caller| caller.was_interrupted()).copied();
            callers.extend(here);
            match interrupted {
                Some(caller) => sp = caller.registers[Gpr::Rsp as usize],
                None => return Ok(callers),
            }
        }
    }

    fn judge(
        &mut self,
        callers: &[Caller],
        images: &mut validator::Images,
    ) -> anyhow::Result<Vec<(u64, validator::Answer)>> {
        let mut memory = TrapMemory::new(&mut self.gdb, self.layout.data.clone());
        memory.add(self.registers.rsp())?;
        for caller in callers.iter().filter(|caller| caller.was_interrupted()) {
            memory.add(caller.registers[Gpr::Rsp as usize])?;
        }
        Ok(judge(&self.registers, callers, &memory, images))
    }

    /// Executes one instruction and keeps the shadows. Returns whether the machine still runs.
    fn step(&mut self) -> anyhow::Result<bool> {
        let before = self.registers;
        let flow = flow(self.layout.code(before.rip), before.rip);
        self.since_tick += 1;
        let tick = flow == Flow::Halt || self.since_tick >= STEPS_PER_TICK;
        if tick {
            self.since_tick = 0;
        }
        if !self.gdb.step(tick)? {
            return Ok(false);
        }
        let after = self.gdb.registers()?;
        self.registers = after;
        let (from, _) = stack_of(before.rsp()).context("no stack")?;
        let (to, bounds) = stack_of(after.rsp()).context("no stack")?;

        if flow == Flow::InterruptReturn {
            self.shadows.remove(&from);
            let promised = self.resumes.take().context("a return from a trap not seen")?;
            ensure!(
                promised.gpr == after.gpr && promised.rip == after.rip,
                "a trap returned to {:#x}, not to {:#x}",
                after.rip,
                promised.rip
            );
        } else if from != to {
            ensure!(
                self.layout.trap_text.contains(&after.rip),
                "a change of stacks at {:#x}",
                before.rip
            );
            // What the CPU has pushed (Intel SDM volume 3, figure 7-9).
            self.traps += 1;
            let mut interrupted = before;
            interrupted.rip = self.word(bounds.top() - 40)?;
            interrupted[Gpr::Rsp] = self.word(bounds.top() - 16)?;
            let mut shadow = Shadow::default();
            shadow.interrupted(&interrupted, u64::MAX);
            self.shadows.insert(to, shadow);
        } else {
            let shadow = self.shadows.entry(to).or_default();
            let abandoned = shadow.executed(&after);
            ensure!(!abandoned, "a frame was abandoned at {:#x}", before.rip);
            if let Flow::Call(next) = flow {
                ensure!(self.word(after.rsp())? == next, "a call without a return address");
                self.shadows.entry(to).or_default().called(&before, next);
            }
            let stub = &self.layout.trap_text;
            let returned = stub.contains(&after.rip) && !stub.contains(&before.rip);
            if std::mem::replace(&mut self.dispatched, returned) {
                self.interruption_moves(before[Gpr::Rax], to)?;
            }
        }
        Ok(true)
    }

    /// The stub on `stack` has put the dispatcher's answer, which was in RAX, to where the tables
    /// look for the interrupted registers: those at `area` are meant from here on.
    fn interruption_moves(&mut self, area: u64, stack: u64) -> anyhow::Result<()> {
        let resumes = self.saved_registers(area)?;
        let (next, bounds) = stack_of(resumes.rsp()).context("no stack")?;
        if resumes.rip == self.layout.task_start && resumes.rsp() == bounds.top() {
            self.shadows.remove(&next);
        }
        let mut shadow = Shadow::default();
        shadow.interrupted(&resumes, u64::MAX);
        self.shadows.insert(stack, shadow);
        self.resumes = Some(resumes);
        Ok(())
    }

    fn word(&mut self, address: u64) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        self.gdb.read(&mut bytes, address)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The registers in a save area: a `RegisterFile` of the guest.
    fn saved_registers(&mut self, address: u64) -> anyhow::Result<RegisterFile> {
        let mut bytes = [0; 18 * 8];
        self.gdb.read(&mut bytes, address)?;
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let mut registers = RegisterFile::new();
        registers.gpr.copy_from_slice(&words[..16]);
        (registers.rip, registers.rflags) = (words[16], words[17]);
        Ok(registers)
    }
}
