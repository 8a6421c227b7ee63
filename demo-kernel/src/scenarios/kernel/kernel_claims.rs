//! The kernel's own claims: preemption, complete registers, faults that tell the truth, waiting.
//! Without a keeper, so that the tasks that die here stay to be looked at.
#![expect(unsafe_code, reason = "tasks in assembly, and looks into frozen tasks")]

use core::arch::naked_asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use alloc::boxed::Box;
use alloc::vec::Vec;
use log::info;
use task_model::{FaultInfo, FaultKind, Gpr, StackMemory, TaskId, TaskState};

use crate::scenarios::{Scenario, Stage};
use crate::tasks::{self, Class, Spawn, SpawnError, TaskError};
use crate::{heap, stacks, traps};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kernel-claims",
    summary: "preemption, complete registers, truthful faults, no lost wake-up: no keeper yet",
    keeper: false,
    ..Scenario::kept(run)
};

type Check = Result<(), &'static str>;
type Claim = (&'static str, fn() -> Check);

fn run(stage: &mut Stage) {
    let claims: &[Claim] = &[
        ("preemption keeps every task's SSE state", preemption_keeps_sse_state),
        ("a page fault leaves registers and stack as they were", page_fault_is_exact),
        ("a fault in the guard page is a stack overflow", guard_fault_is_a_stack_overflow),
        ("a panic is a fault with a note", panic_is_a_fault_with_a_note),
        ("an unpark just before the trap of a park counts", unpark_just_before_the_trap_counts),
        ("no wake-up is lost", no_wake_up_is_lost),
        ("an urgent task runs at the next trap", urgent_task_runs_at_the_next_trap),
        ("a killed task does not run until resumed", killed_task_does_not_run_until_resumed),
        ("a stale id is refused", stale_id_is_refused),
        ("a full table is refused, and empties", full_table_is_refused_and_empties),
        ("the heap's books balance", heap_books_balance),
    ];
    let stacks_before = stacks::in_use();
    for (claim, check) in claims {
        match check() {
            Ok(()) => stage.check(claim, true),
            Err(reason) => stage.check(format_args!("{claim}: {reason}"), false),
        }
    }
    stage.check("no stack is leaked", stacks::in_use() == stacks_before);
}

fn ensure(condition: bool, otherwise: &'static str) -> Check {
    if condition { Ok(()) } else { Err(otherwise) }
}

fn spawn(name: &'static str, entry: fn(usize), argument: usize) -> Result<TaskId, &'static str> {
    Spawn::new(name, entry).argument(argument).start().map_err(|_| "could not spawn")
}

/// Waits for the task to stop by a fault and returns what is known of it.
fn wait_for_fault(id: TaskId) -> Result<FaultInfo, &'static str> {
    for _ in 0..50 {
        tasks::sleep_ticks(1);
        if tasks::state(id) == Ok(TaskState::Frozen) {
            return tasks::fault(id).ok().flatten().ok_or("a frozen task has no fault");
        }
    }
    Err("the task did not stop")
}

fn retire(id: TaskId) -> Check {
    tasks::retire(id).map_err(|_| "could not retire")
}

// Preemption.

static ROUNDS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static SPOILT: AtomicU64 = AtomicU64::new(0);

fn preemption_keeps_sse_state() -> Check {
    let spin = |n: usize| spin_on_sse(n as u64 + 1, ROUNDS[n].as_ptr(), SPOILT.as_ptr());
    let spinners = [spawn("spinner", spin, 0)?, spawn("spinner", spin, 1)?];
    let mut seen = [0; 2];
    for _ in 0..5 {
        tasks::sleep_ticks(5);
        ensure(SPOILT.load(Ordering::Relaxed) == 0, "a task found foreign SSE state")?;
        for (rounds, seen) in ROUNDS.iter().zip(&mut seen) {
            let now = rounds.load(Ordering::Relaxed);
            ensure(now > *seen, "a task that never yields keeps another from running")?;
            *seen = now;
        }
    }
    for spinner in spinners {
        tasks::kill(spinner).map_err(|_| "could not kill")?;
        retire(spinner)?;
    }
    Ok(())
}

/// Fills XMM0 to XMM15 with `pattern` and MXCSR with a rounding mode of its own, then for ever
/// checks them, counts `rounds`, and counts `spoilt` at a difference.
#[unsafe(naked)]
extern "C" fn spin_on_sse(pattern: u64, rounds: *mut u64, spoilt: *mut u64) {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rbx, -16",
        "mov ebx, edi",
        "shl ebx, 13",
        "or ebx, 0x1f80",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        "ldmxcsr [rsp]",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "lea rax, [rdi + rdi * 8 + \\n]",
        "movq xmm\\n, rax",
        ".endr",
        "2:",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "lea rax, [rdi + rdi * 8 + \\n]",
        "movq rcx, xmm\\n",
        "cmp rcx, rax",
        "jne 3f",
        ".endr",
        "stmxcsr [rsp]",
        "cmp dword ptr [rsp], ebx",
        "jne 3f",
        "lock inc qword ptr [rsi]",
        "jmp 2b",
        "3:",
        "lock inc qword ptr [rdx]",
        "jmp 2b",
        ".cfi_endproc",
    )
}

// A page fault.

const UNMAPPED: u64 = 0x50_0000_1000;
/// Bytes below the stack pointer that are compared: more than the 128 of the red zone.
const BELOW: u64 = 1024;
const PATTERN: u64 = 0x5a5a_0000;

unsafe extern "C" {
    /// The address of the store in [`fill_and_store`].
    fn claims_faulting_store();
}

fn page_fault_is_exact() -> Check {
    let id = spawn("page fault", |_| fill_and_store(), 0)?;
    let fault = wait_for_fault(id)?;
    info!("{fault}");
    let store = claims_faulting_store as *const () as u64;
    ensure(fault.kind == FaultKind::PageFault, "not seen as a page fault")?;
    ensure(fault.vector == Some(14), "wrong vector")?;
    ensure(fault.address == Some(UNMAPPED), "wrong address")?;
    // Intel SDM volume 3, figure 4-12: a write (bit 1) to a page that is not present (bit 0).
    ensure(fault.error_code == Some(0b10), "wrong error code")?;
    ensure(fault.instruction_pointer == store, "wrong instruction")?;

    // SAFETY: nobody else knows of this task.
    let task = unsafe { tasks::seize(id) }.map_err(|_| "not frozen")?.task;
    let registers = task.registers();
    ensure(registers.rip == store, "wrong saved instruction pointer")?;
    for register in Gpr::ALL {
        let expected = match register {
            Gpr::Rsp => continue,
            Gpr::Rax => UNMAPPED,
            other => PATTERN + other as u64,
        };
        ensure(registers[register] == expected, "a register was not saved as it was")?;
    }
    ensure(!registers.zero_flag(), "the zero flag was not saved as it was")?;
    ensure(registers.rflags & 1 != 0, "the carry flag was not saved as it was")?;
    ensure(registers.fpu.0[160..168] == PATTERN.to_le_bytes(), "XMM0 was not saved as it was")?;
    for address in (registers.rsp() - BELOW..registers.rsp()).step_by(8) {
        ensure(task.read_u64(address) == Ok(!address), "the trap wrote on the task's stack")?;
    }
    retire(id)
}

/// Gives every register and the stack below RSP known contents, and writes to [`UNMAPPED`].
#[unsafe(naked)]
extern "C" fn fill_and_store() {
    naked_asm!(
        ".cfi_startproc",
        "lea rcx, [rsp - {below}]",
        "2:",
        "mov rax, rcx",
        "not rax",
        "mov [rcx], rax",
        "add rcx, 8",
        "cmp rcx, rsp",
        "jne 2b",
        "mov ecx, {pattern}",
        "movq xmm0, rcx",
        "mov ecx, {pattern} + 1",
        "mov edx, {pattern} + 2",
        "mov ebx, {pattern} + 3",
        "mov ebp, {pattern} + 5",
        "mov esi, {pattern} + 6",
        "mov edi, {pattern} + 7",
        ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
        "mov r\\n, {pattern} + \\n",
        ".endr",
        "movabs rax, {unmapped}",
        // ZF = 0, CF = 1.
        "test rax, rax",
        "stc",
        ".globl claims_faulting_store",
        "claims_faulting_store:",
        "mov [rax], rax",
        "ret",
        ".cfi_endproc",
        below = const BELOW,
        pattern = const PATTERN,
        unmapped = const UNMAPPED,
    )
}

// A stack overflow.

fn guard_fault_is_a_stack_overflow() -> Check {
    let id = spawn("overflow", |_| _ = recurse(1), 0)?;
    let fault = wait_for_fault(id)?;
    info!("{fault}");
    ensure(fault.kind == FaultKind::StackOverflow, "not seen as a stack overflow")?;
    // SAFETY: nobody else knows of this task.
    let task = unsafe { tasks::seize(id) }.map_err(|_| "not frozen")?.task;
    let address = fault.address.ok_or("no address")?;
    ensure(task.bounds().guard_contains(address), "not in the guard")?;
    ensure(task.bounds().contains(task.bounds().base(), stacks::SIZE), "wrong bounds")?;
    retire(id)
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    // Reading the frame after the call keeps it from being a tail call.
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + frame[3] }
}

// A panic.

fn panic_is_a_fault_with_a_note() -> Check {
    let id = spawn("panic", |n| panic!("the answer is {n}"), 42)?;
    let fault = wait_for_fault(id)?;
    info!("{fault}");
    ensure(fault.kind == FaultKind::Panicked, "not seen as a panic")?;
    let note = tasks::panic_note(id).ok().flatten().ok_or("no note")?;
    info!("{note}");
    ensure(note.as_str().starts_with("the answer is 42"), "wrong note")?;
    ensure(note.as_str().contains("kernel_claims.rs:"), "the note does not say where")?;
    retire(id)?;

    // A panic while the note is formatted must not recurse.
    let id = spawn("panic twice", |_| panic!("{}", PanickingDisplay), 0)?;
    ensure(wait_for_fault(id)?.kind == FaultKind::Panicked, "a nested panic is not a panic")?;
    retire(id)
}

struct PanickingDisplay;

impl core::fmt::Display for PanickingDisplay {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        panic!("while formatting a panic")
    }
}

// Waiting.

static PARKED_IN_VAIN: AtomicBool = AtomicBool::new(true);

/// The narrow case, hit on purpose: the unpark comes after `park` has looked, before its trap.
fn unpark_just_before_the_trap_counts() -> Check {
    let id = spawn(
        "self-waker",
        |_| {
            let woken = tasks::current().map(tasks::unpark);
            traps::park();
            PARKED_IN_VAIN.store(woken != Some(Ok(())), Ordering::Relaxed);
        },
        0,
    )?;
    tasks::sleep_ticks(2);
    ensure(!PARKED_IN_VAIN.load(Ordering::Relaxed), "the trap blocked in spite of a token")?;
    ensure(tasks::state(id) == Err(TaskError::Stale), "it did not end")
}

const BALLS: usize = 2000;
static PLAYER: AtomicU64 = AtomicU64::new(0);
static BALLS_PLAYED: AtomicUsize = AtomicUsize::new(0);

fn no_wake_up_is_lost() -> Check {
    // Nothing but the wake-ups drives the two: one lost, and both wait for ever. Idling between
    // them varies where in a park the tick falls.
    let play = |partner: usize| {
        for ball in 0..BALLS {
            tasks::park();
            BALLS_PLAYED.fetch_add(1, Ordering::Relaxed);
            for _ in 0..black_box(ball % 97) {
                core::hint::spin_loop();
            }
            let partner = match partner {
                0 => unpack(PLAYER.load(Ordering::Relaxed)),
                other => unpack(other as u64),
            };
            let _ = tasks::unpark(partner);
        }
    };
    let first = spawn("player", play, 0)?;
    let second = spawn("player", play, pack(first) as usize)?;
    PLAYER.store(pack(second), Ordering::Relaxed);
    tasks::unpark(first).map_err(|_| "could not unpark")?;
    // However slow the build: it is lost only if nothing moves any more.
    let mut played = 0;
    loop {
        tasks::sleep_ticks(5);
        let now = BALLS_PLAYED.load(Ordering::Relaxed);
        if now == 2 * BALLS {
            break;
        }
        ensure(now > played, "a wake-up was lost")?;
        played = now;
    }
    tasks::sleep_ticks(1);
    ensure(tasks::state(first) == Err(TaskError::Stale), "a player still lives")
}

fn pack(id: TaskId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

fn unpack(raw: u64) -> TaskId {
    TaskId { index: raw as u32, generation: (raw >> 32) as u32 }
}

// Classes.

static URGENT_RAN: AtomicBool = AtomicBool::new(false);
static BYSTANDER_SAW: AtomicU64 = AtomicU64::new(0);

fn urgent_task_runs_at_the_next_trap() -> Check {
    // The bystander's slot comes first in turn; only its class lets the other overtake it.
    let bystander = spawn(
        "bystander",
        |_| {
            let urgent_ran = URGENT_RAN.load(Ordering::Relaxed);
            BYSTANDER_SAW.store(1 + u64::from(urgent_ran), Ordering::Relaxed);
        },
        0,
    )?;
    let urgent = Spawn::new("urgent", |_| URGENT_RAN.store(true, Ordering::Relaxed))
        .class(Class::Urgent)
        .start()
        .map_err(|_| "could not spawn")?;
    ensure(bystander.index < urgent.index, "the slots are not in the order that tests this")?;
    tasks::sleep_ticks(1);
    ensure(BYSTANDER_SAW.load(Ordering::Relaxed) == 2, "a normal task ran before an urgent one")
}

// Kills and stale ids.

static HEARTBEATS: AtomicU64 = AtomicU64::new(0);

fn killed_task_does_not_run_until_resumed() -> Check {
    let beat = |_| {
        loop {
            HEARTBEATS.fetch_add(1, Ordering::Relaxed);
        }
    };
    let id = spawn("heartbeat", beat, 0)?;
    tasks::sleep_ticks(3);
    tasks::kill(id).map_err(|_| "could not kill")?;
    let at_death = HEARTBEATS.load(Ordering::Relaxed);
    ensure(at_death > 0, "it never ran")?;
    ensure(tasks::kill(id) == Err(TaskError::State(TaskState::Frozen)), "killed twice")?;
    tasks::unpark(id).map_err(|_| "could not unpark")?;
    tasks::sleep_ticks(3);
    ensure(HEARTBEATS.load(Ordering::Relaxed) == at_death, "a dead task ran")?;
    ensure(
        tasks::fault(id)
            .is_ok_and(|fault| fault.is_some_and(|fault| fault.kind == FaultKind::Killed)),
        "the kill is not on record",
    )?;
    tasks::resume(id).map_err(|_| "could not resume")?;
    tasks::sleep_ticks(3);
    ensure(HEARTBEATS.load(Ordering::Relaxed) > at_death, "a resumed task does not run")?;
    tasks::kill(id).map_err(|_| "could not kill again")?;
    retire(id)?;

    let suicide = spawn("suicide", |_| _ = tasks::current().map(tasks::kill), 0)?;
    ensure(wait_for_fault(suicide)?.kind == FaultKind::Killed, "a task could not kill itself")?;
    retire(suicide)
}

fn stale_id_is_refused() -> Check {
    let old = spawn("short", |_| {}, 0)?;
    tasks::sleep_ticks(2);
    let new = spawn("short", |_| tasks::park(), 0)?;
    ensure(new.index == old.index, "the slot was not reused")?;
    ensure(new != old, "the generation did not change")?;
    ensure(tasks::unpark(old) == Err(TaskError::Stale), "a stale id was unparked")?;
    ensure(tasks::kill(old) == Err(TaskError::Stale), "a stale id was killed")?;
    ensure(tasks::retire(new) == Err(TaskError::State(TaskState::Ready)), "retired alive")?;
    tasks::unpark(new).map_err(|_| "could not unpark")?;
    tasks::sleep_ticks(2);
    ensure(tasks::state(new) == Err(TaskError::Stale), "it did not end")
}

fn full_table_is_refused_and_empties() -> Check {
    let mut crowd = Vec::with_capacity(tasks::CAPACITY);
    let refusal = loop {
        match Spawn::new("crowd", |_| tasks::park()).start() {
            Ok(id) => crowd.push(id),
            Err(refusal) => break refusal,
        }
        ensure(crowd.len() < tasks::CAPACITY, "there is no limit")?;
    };
    ensure(refusal == SpawnError::NoSlot, "refused for another reason")?;
    for &id in &crowd {
        tasks::unpark(id).map_err(|_| "could not unpark")?;
    }
    tasks::sleep_ticks(5);
    ensure(crowd.iter().all(|&id| tasks::state(id) == Err(TaskError::Stale)), "they did not end")?;
    spawn("after", |_| {}, 0)?;
    tasks::sleep_ticks(2);
    Ok(())
}

// The heap.

fn heap_books_balance() -> Check {
    let before = heap::books();
    let boxes: Vec<Box<[u64; 7]>> = (0..100).map(|n| Box::new([n; 7])).collect();
    let during = heap::books();
    ensure(during.blocks == before.blocks + 101, "blocks are not counted")?;
    ensure(during.bytes >= before.bytes + 100 * 56, "bytes are not counted")?;
    ensure(boxes.iter().zip(0..).all(|(block, n)| **block == [n; 7]), "blocks overlap")?;
    drop(boxes);
    ensure(heap::books() == before, "blocks are not freed")
}
