//! The machine's exceptions: signals, and the one handler for all of them.
#![expect(unsafe_code, reason = "installs signal handlers and exchanges contexts")]

use core::arch::naked_asm;
use core::cell::Cell;
use core::ops::Range;
use core::ptr;
use std::boxed::Box;
use std::sync::Once;
use std::thread_local;
use std::vec;

use super::image::Image;
use super::switch::{Context, TRAP_FLAG};
use super::timer;

/// What runs on a machine's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    /// The machine's owner.
    Driver,
    /// The machine's owner, about to execute the breakpoint that starts a task.
    Entering,
    /// A task.
    Task,
}

/// Why a task gave the thread back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trap {
    /// The budget, of instructions or of time, is spent.
    Budget,
    /// It asked for this, by `call_driver`.
    Call,
    /// It cannot go on: the vector, the error code, and CR2.
    Fault { vector: u8, error_code: u64, address: u64 },
}

/// The state of one machine that its signal handler needs.
#[derive(Debug)]
pub(super) struct Cpu {
    running: Running,
    driver: Context,
    task: *mut Context,
    /// How many more instructions the task may execute.
    budget: Option<u64>,
    trap: Option<Trap>,
    /// The program's own code.
    text: Range<u64>,
}

thread_local! {
    /// The machine of this thread.
    static CPU: Cell<*mut Cpu> = const { Cell::new(ptr::null_mut()) };
}

const SIGNALS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];
const ALTERNATE_STACK_BYTES: usize = 64 * 1024;
/// `si_code` of a trap after a single step (Linux `asm-generic/siginfo.h`).
const TRAP_TRACE: libc::c_int = 2;

impl Cpu {
    pub(super) fn new() -> Self {
        Self {
            text: Image::running().text(),
            running: Running::Driver,
            driver: Context::new(),
            task: ptr::null_mut(),
            budget: None,
            trap: None,
        }
    }

    /// Makes this the machine of the calling thread.
    ///
    /// # Panics
    /// If the thread has one already.
    pub(super) fn attach(cpu: *mut Self) {
        assert!(CPU.get().is_null(), "one machine for each thread");
        install_handlers();
        CPU.set(cpu);
    }

    pub(super) fn detach() {
        CPU.set(ptr::null_mut());
    }

    /// Runs a task until it traps.
    ///
    /// # Safety
    /// `cpu` is attached to this thread; `task` may run: whatever it needs is alive, and it stands
    /// where it last stopped, or at its entry.
    pub(super) unsafe fn run(cpu: *mut Self, task: *mut Context, budget: Option<u64>) -> Trap {
        if budget == Some(0) {
            return Trap::Budget;
        }
        // SAFETY: the owner of the machine is here, so the handler does not use `cpu` now.
        unsafe {
            (*task).registers.rflags &= !TRAP_FLAG;
            if budget.is_some() {
                (*task).registers.rflags |= TRAP_FLAG;
            }
            (*cpu).task = task;
            (*cpu).budget = budget;
            (*cpu).trap = None;
            (*cpu).running = Running::Entering;
            // The handler comes back to the next instruction, with all registers as they are now.
            core::arch::asm!("int3");
            (*cpu).trap.take().expect("the handler says why")
        }
    }
}

/// Whether a task of some machine is what runs here.
pub(super) fn in_task() -> bool {
    let cpu = CPU.get();
    // SAFETY: a machine that is attached is alive, and only this thread uses it.
    !cpu.is_null() && unsafe { (*cpu).running == Running::Task }
}

/// Gives the thread back to the machine's owner; returns when the task is run again, with all
/// registers kept. Only for tasks: in one, the handler takes this breakpoint as the call.
#[unsafe(naked)]
pub(super) extern "C" fn call_driver() {
    naked_asm!(".cfi_startproc", "int3", "ret", ".cfi_endproc")
}

/// Where a task stands that has executed the breakpoint, which is one byte long.
fn after_call() -> u64 {
    call_driver as *const () as u64 + 1
}

/// Handlers for the process, an alternate stack for the thread.
fn install_handlers() {
    static HANDLERS: Once = Once::new();
    thread_local! {
        static ALTERNATE_STACK: Cell<bool> = const { Cell::new(false) };
    }
    HANDLERS.call_once(|| {
        for signal in SIGNALS.into_iter().chain([timer::SIGNAL]) {
            // SAFETY: all zero is a valid `sigaction`, filled in below; the handler has the
            // signature that SA_SIGINFO asks for.
            let installed = unsafe {
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
                // What the handler saves is the task's context, never its own.
                libc::sigaddset(&raw mut action.sa_mask, timer::SIGNAL);
                libc::sigaction(signal, &raw const action, ptr::null_mut())
            };
            assert_eq!(installed, 0, "no handler for signal {signal}");
        }
    });
    if !ALTERNATE_STACK.replace(true) {
        // Leaked: a thread may trap until it is gone.
        let memory = Box::leak(vec![0u8; ALTERNATE_STACK_BYTES].into_boxed_slice());
        let stack = libc::stack_t {
            ss_sp: memory.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: ALTERNATE_STACK_BYTES,
        };
        // SAFETY: the memory is this thread's for ever.
        let set = unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
        assert_eq!(set, 0, "no alternate stack for signals");
    }
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, frame: *mut libc::c_void) {
    let frame = frame.cast::<libc::ucontext_t>();
    let cpu = CPU.get();
    // SAFETY: the frame and the info are the kernel's for this call. An attached machine is alive,
    // and its thread is here, so nobody else uses it.
    unsafe {
        match cpu.as_mut().map(|cpu| cpu.running) {
            Some(Running::Entering) if signal == libc::SIGTRAP => {
                let cpu = &mut *cpu;
                cpu.driver.save(frame);
                (*cpu.task).load(frame);
                cpu.running = Running::Task;
            }
            Some(Running::Task) => {
                let cpu = &mut *cpu;
                let Some(trap) = cpu.trap_of(signal, info, frame) else { return };
                cpu.trap = Some(trap);
                (*cpu.task).save(frame);
                (*cpu.task).registers.rflags &= !TRAP_FLAG;
                cpu.driver.load(frame);
                cpu.running = Running::Driver;
            }
            // The task that it was for has stopped already, or has not begun.
            _ if signal == timer::SIGNAL => {}
            // Not a task's: the same thing happens again, and takes its usual course.
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

impl Cpu {
    /// What a signal that interrupted a task means; `None` if the task is to go on.
    ///
    /// # Safety
    /// The arguments are those of the handler that runs now.
    unsafe fn trap_of(
        &mut self,
        signal: libc::c_int,
        info: *const libc::siginfo_t,
        frame: *const libc::ucontext_t,
    ) -> Option<Trap> {
        // SAFETY: this function's contract.
        let (code, registers) = unsafe { ((*info).si_code, &(*frame).uc_mcontext.gregs) };
        let rip = registers[libc::REG_RIP as usize].cast_unsigned();
        if signal == timer::SIGNAL {
            // In a library the task may hold a lock that the machine's owner needs, such as the
            // allocator's: the next signal will do.
            return self.text.contains(&rip).then_some(Trap::Budget);
        }
        let is_step = signal == libc::SIGTRAP && code == TRAP_TRACE;
        if signal == libc::SIGTRAP && !is_step && rip == after_call() {
            return Some(Trap::Call);
        }
        if !is_step {
            return Some(Trap::Fault {
                vector: registers[libc::REG_TRAPNO as usize] as u8,
                error_code: registers[libc::REG_ERR as usize].cast_unsigned(),
                address: registers[libc::REG_CR2 as usize].cast_unsigned(),
            });
        }
        match &mut self.budget {
            Some(budget) if *budget > 1 => {
                *budget -= 1;
                None
            }
            _ => Some(Trap::Budget),
        }
    }
}
