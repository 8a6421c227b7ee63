//! What the machine promises.
#![expect(unsafe_code, reason = "tasks that fault")]

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

use task_model::{FaultInfo, FaultKind, Gpr, StackMemory};

use super::signals;
use super::{Hosted, Machine, Stop, yield_now};
use crate::{Mutex, RepairMutex, catch_fault};

/// A machine for this thread.
fn machine() -> Machine {
    // SAFETY: tasks here keep nothing in thread-locals, and those that are stopped by the
    // instruction allocate nothing. What they share is static.
    unsafe { Machine::new() }
}

/// Executes `body` as a task, which ends by a fault.
fn fault_of(body: impl FnOnce() + Send + 'static) -> FaultInfo {
    let machine = machine();
    let task = machine.spawn(body);
    match machine.run(task, None) {
        Stop::Faulted(fault) => fault,
        stop => panic!("{stop:?}"),
    }
}

#[test]
fn tasks_take_turns() {
    static LOG: std::sync::Mutex<Vec<u32>> = std::sync::Mutex::new(Vec::new());
    let machine = machine();
    for n in 1..=2 {
        machine.spawn(move || {
            LOG.lock().unwrap().push(n);
            yield_now();
            LOG.lock().unwrap().push(n * 10);
        });
    }
    machine.run_all().unwrap();
    assert_eq!(*LOG.lock().unwrap(), [1, 2, 10, 20]);
}

#[test]
fn faults_say_what_the_machine_said() {
    let page = fault_of(|| {
        // SAFETY: it is not: address 16 is not mapped, which is what is tested.
        unsafe { core::ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
    });
    assert_eq!((page.kind, page.address), (FaultKind::PageFault, Some(16)));
    // SAFETY: it stops the task, which is what is tested.
    let opcode = fault_of(|| unsafe { core::arch::asm!("ud2") });
    assert_eq!(opcode.kind, FaultKind::InvalidOpcode);
    // SAFETY: it stops the task, which is what is tested.
    let divide = fault_of(|| unsafe {
        core::arch::asm!("div {0}", in(reg) 0u64, inout("rax") 1u64 => _, inout("rdx") 0u64 => _);
    });
    assert_eq!(divide.kind, FaultKind::DivideError);
    // SAFETY: it stops the task, which is what is tested.
    let breakpoint = fault_of(|| unsafe { core::arch::asm!("int3") });
    assert_eq!(breakpoint.kind, FaultKind::Breakpoint);
}

#[test]
fn a_slice_of_time_stops_a_task_that_never_stops_by_itself() {
    static TURNS: AtomicU64 = AtomicU64::new(0);
    let machine = machine();
    let task = machine.spawn(|| {
        loop {
            TURNS.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    for _ in 0..3 {
        assert_eq!(machine.run_slice(task, Duration::from_millis(1)), Stop::BudgetSpent);
        let after = TURNS.load(Ordering::Relaxed);
        assert!(after > before, "it went on where it was stopped");
        before = after;
    }
}

#[test]
fn tasks_that_are_stopped_while_they_allocate_do_not_hold_up_each_other() {
    let machine = machine();
    let tasks = [1usize, 2].map(|n| {
        machine.spawn(move || {
            loop {
                drop(core::hint::black_box(Vec::<u8>::with_capacity(n * 40_000)));
            }
        })
    });
    for turn in 0..10 {
        let stop = machine.run_slice(tasks[turn % 2], Duration::from_micros(100));
        assert_eq!(stop, Stop::BudgetSpent);
        drop(core::hint::black_box(Vec::<u8>::with_capacity(100_000 + turn)));
    }
}

#[test]
fn a_restarted_task_runs_its_entry_again_on_another_stack() {
    static STACKS: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    let machine = machine();
    let task = machine.spawn_restartable(|| {
        let here = 0u8;
        STACKS.lock().unwrap().push((&raw const here).addr());
        // SAFETY: it stops the task, which is what is tested.
        unsafe { core::arch::asm!("ud2") };
    });
    assert!(matches!(machine.run(task, None), Stop::Faulted(_)));
    // SAFETY: it held nothing.
    let next = unsafe { machine.restart(task) };
    assert_eq!(next, Some(task.next_generation()));
    assert!(!machine.is_alive(task) && machine.is_alive(task.next_generation()));
    assert!(matches!(machine.run(task.next_generation(), None), Stop::Faulted(_)));
    let stacks = STACKS.lock().unwrap();
    assert_eq!(stacks.len(), 2);
    assert_ne!(stacks[0], stacks[1]);

    let once = machine.spawn(|| ());
    // SAFETY: it held nothing.
    assert_eq!(unsafe { machine.restart(once) }, None);
    assert_eq!(machine.run(once, None), Stop::Finished);
}

#[test]
fn running_over_the_guard_page_is_a_stack_overflow() {
    fn deeper(n: u64) -> u64 {
        let room = core::hint::black_box([n; 64]);
        if room[0] == u64::MAX { 0 } else { deeper(n + 1) + room[1] }
    }
    let fault = fault_of(|| {
        core::hint::black_box(deeper(0));
    });
    assert_eq!(fault.kind, FaultKind::StackOverflow);
}

#[test]
fn a_budget_stops_a_task_after_exactly_so_many_instructions() {
    let mut machine = machine();
    let task = machine.spawn(|| {
        // SAFETY: counts in a register, for ever.
        unsafe { core::arch::asm!("2: inc rcx", "jmp 2b", options(noreturn)) };
    });
    assert_eq!(machine.run(task, Some(10_000)), Stop::BudgetSpent);
    let before = *machine.registers(task);
    assert_eq!(machine.run(task, Some(2000)), Stop::BudgetSpent);
    let after = machine.registers(task);
    let counted = Gpr::ALL.map(|register| after[register].wrapping_sub(before[register]));
    assert_eq!(counted.iter().filter(|n| **n == 1000).count(), 1);
    assert_eq!(counted.iter().filter(|n| **n == 0).count(), 15);
}

#[test]
fn vector_registers_survive_the_switch() {
    let machine = machine();
    for value in [0x1111u64, 0x2222] {
        machine.spawn(move || {
            let seen: u64;
            // SAFETY: keeps a value in a vector register over a call that yields and keeps all.
            unsafe {
                core::arch::asm!(
                    "movq xmm9, {value}",
                    "call {call_driver}",
                    "movq {seen}, xmm9",
                    call_driver = sym signals::call_driver,
                    value = in(reg) value,
                    seen = out(reg) seen,
                    out("xmm9") _,
                );
            }
            assert_eq!(seen, value);
        });
    }
    machine.run_all().unwrap();
}

#[test]
fn nothing_is_written_below_the_stack_pointer() {
    let mut machine = machine();
    let task = machine.spawn(|| {
        // SAFETY: fills the red zone and stops.
        unsafe {
            core::arch::asm!(
                "mov qword ptr [rsp - 8], {0}",
                "mov qword ptr [rsp - 128], {0}",
                "ud2",
                in(reg) 0x5a5a_5a5au64,
            );
        }
    });
    assert!(matches!(machine.run(task, None), Stop::Faulted(_)));
    let (frozen, _) = machine.frozen(task);
    let sp = frozen.registers().rsp();
    assert_eq!(frozen.read_u64(sp - 8), Ok(0x5a5a_5a5a));
    assert_eq!(frozen.read_u64(sp - 128), Ok(0x5a5a_5a5a));
}

/// Where the ledgers of its tasks are: what a lock says of its owner.
fn addresses(machine: &Machine) -> BTreeSet<usize> {
    machine.ledgers().map(|(_, ledger)| core::ptr::from_ref(ledger).addr()).collect()
}

#[test]
fn what_a_task_held_when_its_machine_went_is_no_later_task_s() {
    static LOCKS: [Mutex<(), Hosted>; 100] = [const { Mutex::new(()) }; 100];
    let first = machine();
    for lock in &LOCKS {
        let task = first.spawn(move || {
            let _guard = lock.lock();
            yield_now();
        });
        assert_eq!(first.run(task, None), Stop::Yielded);
    }
    let owners = addresses(&first);
    drop(first);
    assert!(LOCKS.iter().all(Mutex::is_locked));
    let second = machine();
    for _ in &LOCKS {
        second.spawn(|| ());
    }
    let later = addresses(&second);
    assert!(owners.is_disjoint(&later), "locks say that these tasks hold them");
}

/// Two locks, of which the second one's routine panics when the first is free.
struct Torn(Mutex<(), Hosted>, RepairMutex<u64, Hosted>);

impl Torn {
    fn new() -> &'static Self {
        let panics = |_| std::panic::resume_unwind(Box::new(()));
        Box::leak(Box::new(Self(Mutex::new(()), RepairMutex::new(0, panics))))
    }

    fn hold(&'static self) {
        let _guards = (self.0.lock(), self.1.lock());
        yield_now();
    }
}

/// Its locks are others' by then.
#[test]
fn a_task_whose_settlement_panics_never_runs_again() {
    let mut machine = machine();
    let torn = Torn::new();
    let task = machine.spawn(|| torn.hold());
    assert_eq!(machine.run(task, None), Stop::Yielded);
    let kill = AssertUnwindSafe(|| machine.kill(task).len());
    assert!(catch_unwind(kill).is_err());
    assert!(!torn.0.is_locked() && !machine.is_alive(task));
    assert!(catch_unwind(AssertUnwindSafe(|| machine.run(task, None))).is_err());
}

#[test]
fn a_task_whose_recovery_panics_never_runs_again() {
    let mut machine = machine();
    let torn = Torn::new();
    let task = machine.spawn(|| {
        // SAFETY: the locks are leaked, and tell of its end.
        let _ = unsafe { catch_fault::<Hosted, _>(|| torn.hold()) };
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    let recover = AssertUnwindSafe(|| machine.recover(task, FaultInfo::killed(0)).is_ok());
    assert!(catch_unwind(recover).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| machine.run(task, None))).is_err());
}

#[test]
fn a_panic_stops_its_task_alone() {
    let mut machine = machine();
    let task = machine.spawn(|| std::panic::resume_unwind(Box::new(())));
    assert_eq!(machine.run(task, None), Stop::Panicked);
    assert_eq!(machine.run(task, None), Stop::Panicked, "it cannot go on");
    machine.kill(task);
    assert!(!machine.is_alive(task));
    let other = machine.spawn(|| ());
    assert_eq!(machine.run(other, None), Stop::Finished);
}
