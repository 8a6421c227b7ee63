//! The machine, one instruction at a time, and what is known of its frames.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, ensure};
use task_model::{Gpr, RegisterFile};
use validator::{Answer, Caller, Flow, Images, Shadow, flow, judge};

use super::layout::{Layout, stack_of};
use super::memory::TrapMemory;
use crate::gdb::Gdb;

/// How often the timer may fire, unless the kernel waits for it: tasks are preempted, at whatever
/// instruction, and come forward nevertheless.
const STEPS_PER_TICK: u64 = 2000;

/// A string instruction that repeats itself more often than this is run to its end.
const REPETITIONS: u64 = 8;

/// A call that has returned this often, and in which no task has trapped, is run to its return.
const RETURNS: u64 = 10;

/// The timer's vector, as the kernel has it: a trap that comes from outside.
const TIMER: u64 = 0x30;

/// The bytes of each vector's stub.
const STUB_SIZE: u64 = 16;

/// The interrupt flag.
const IF: u64 = 1 << 9;

/// A machine on its way, and all that is known of its frames.
pub(super) struct Stepper {
    gdb: Gdb,
    layout: Layout,
    registers: RegisterFile,
    /// By the number of the stack.
    shadows: HashMap<usize, Shadow>,
    /// Whether the dispatcher has just returned to the stub.
    dispatched: bool,
    /// In a stub that is about to return: the registers that it is to restore.
    resumes: Option<RegisterFile>,
    traps: u64,
    since_tick: u64,
    /// How often each call has returned, by its return address.
    returns: HashMap<u64, u64>,
    /// Those in which a task has trapped by itself.
    trapping: HashSet<u64>,
}

impl Stepper {
    /// A machine that stands before its first task.
    pub(super) fn new(mut gdb: Gdb, layout: Layout) -> anyhow::Result<Self> {
        gdb.set_breakpoint(layout.trap_entry, true)?;
        Ok(Self {
            registers: gdb.registers()?,
            gdb,
            layout,
            shadows: HashMap::new(),
            dispatched: false,
            resumes: None,
            traps: 0,
            since_tick: 0,
            returns: HashMap::new(),
            trapping: HashSet::new(),
        })
    }

    /// The next instruction.
    pub(super) const fn address(&self) -> u64 {
        self.registers.rip
    }

    /// How many traps were taken.
    pub(super) const fn traps(&self) -> u64 {
        self.traps
    }

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

    /// Walks from here, and holds what is found against the truth.
    pub(super) fn judge(&mut self, images: &mut Images) -> anyhow::Result<Vec<(u64, Answer)>> {
        let callers = self.callers()?;
        let mut memory = TrapMemory::new(&mut self.gdb, self.layout.data.clone());
        memory.add(self.registers.rsp())?;
        for caller in callers.iter().filter(|caller| caller.was_interrupted()) {
            memory.add(caller.registers[Gpr::Rsp as usize])?;
        }
        Ok(judge(&self.registers, &callers, &memory, images))
    }

    /// Executes one instruction, or one and all that it repeats or calls, and keeps the shadows.
    /// Returns whether the machine still runs.
    pub(super) fn step(&mut self) -> anyhow::Result<bool> {
        let before = self.registers;
        let flow = flow(self.layout.code(before.rip), before.rip);
        self.since_tick += 1;
        let tick = flow == Flow::Halt || self.since_tick >= STEPS_PER_TICK;
        if tick {
            self.since_tick = 0;
        }
        match flow {
            Flow::Repeat(next) if before[Gpr::Rcx] > REPETITIONS => {
                return self.run_to(next, before.rsp());
            }
            _ => {}
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
            if (after.rip - self.layout.trap_text.start) / STUB_SIZE != TIMER {
                let shadow = self.shadows.entry(from).or_default();
                self.trapping
                    .extend(shadow.callers().iter().map(|caller| caller.address.address()));
            }
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
            if flow == Flow::Return {
                *self.returns.entry(after.rip).or_default() += 1;
            }
            if let Flow::Call(next) = flow {
                ensure!(self.word(after.rsp())? == next, "a call without a return address");
                let often = self.returns.get(&next).is_some_and(|returns| *returns >= RETURNS);
                let by_stub = self.layout.trap_text.contains(&next);
                if often && !by_stub && !self.trapping.contains(&next) {
                    return self.run_to(next, before.rsp());
                }
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

    /// Runs, with interrupts off, to the instruction at `address` with this stack pointer: to the
    /// end of what repeats itself, or to a return. Returns whether the machine still runs.
    fn run_to(&mut self, address: u64, sp: u64) -> anyhow::Result<bool> {
        let enabled = self.registers.rflags & IF;
        let from = self.registers.rip;
        if enabled != 0 {
            self.gdb.set_flags(self.registers.rflags & !IF)?;
        }
        self.gdb.set_breakpoint(address, true)?;
        loop {
            if !self.gdb.run()? {
                return Ok(false);
            }
            self.registers = self.gdb.registers()?;
            ensure!(self.registers.rip == address, "a trap in what is run through at {from:#x}");
            if self.registers.rsp() == sp {
                break;
            }
            // The same place in a function further in.
            self.gdb.step(false)?;
        }
        self.gdb.set_breakpoint(address, false)?;
        if enabled != 0 {
            self.registers.rflags |= IF;
            self.gdb.set_flags(self.registers.rflags)?;
        }
        Ok(true)
    }

    /// The stub on `stack` has put the dispatcher's answer, which was in RAX, to where the tables
    /// look for the interrupted registers: those at `area` are meant from here on.
    fn interruption_moves(&mut self, area: u64, stack: usize) -> anyhow::Result<()> {
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
