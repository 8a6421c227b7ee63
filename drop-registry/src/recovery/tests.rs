use super::*;
use crate::hosted::{Hosted, Machine, Stop, yield_now};
use crate::{LockError, Mutex, TrackedBox, TryLockError};
use std::boxed::Box;
use std::vec::Vec;
use task_model::FaultKind;

type Lock = Mutex<u64, Hosted>;

/// A machine for this thread.
fn machine() -> Machine {
    // SAFETY: tasks here keep nothing in thread-locals, and none is stopped by the instruction. What
    // they share is static, or leaked.
    unsafe { Machine::new() }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn some_fault() -> FaultInfo {
    FaultInfo::killed(0x1234)
}

/// What a task found out.
struct Answer<T>(std::sync::Mutex<T>);

impl<T: Copy> Answer<T> {
    fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    fn set(&self, value: T) {
        *self.0.lock().unwrap() = value;
    }

    fn get(&self) -> T {
        *self.0.lock().unwrap()
    }
}

#[test]
fn a_body_that_returns_leaves_no_point() {
    let mut machine = machine();
    let task = machine.spawn(|| {
        // SAFETY: the body acquires nothing and borrows nothing.
        let sum = unsafe { catch_fault::<Hosted, _>(|| 1 + 2) };
        assert_eq!(sum, Ok(3));
    });
    assert_eq!(machine.run(task, None), Stop::Finished);
    assert!(machine.frozen(task).1.is_empty());
}

#[test]
fn what_the_body_returns_stays_held() {
    let lock: &'static Lock = leak(Mutex::new(0));
    let mut machine = machine();
    let task = machine.spawn(|| {
        // SAFETY: what the body acquires it returns.
        let guard = unsafe { catch_fault::<Hosted, _>(|| lock.lock().ok()) };
        yield_now();
        drop(guard);
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    assert!(lock.is_locked());
    let (frozen, ledger) = machine.frozen(task);
    assert_eq!(ledger.len(), 1);
    assert_eq!(RecoveryPoint::innermost(&frozen, ledger).unwrap_err(), NoRecoveryPoint::None);
    assert_eq!(machine.run(task, None), Stop::Finished);
    assert!(!lock.is_locked());
    assert!(machine.frozen(task).1.is_empty());
}

#[test]
fn a_recovery_gives_up_what_is_above_and_nothing_else() {
    let locks: &'static [Lock; 2] = leak([Mutex::new(0), Mutex::new(0)]);
    let told: &'static Answer<Option<Fault>> = leak(Answer::new(None));
    let mut machine = machine();
    let task = machine.spawn(|| {
        let mut outer = locks[0].lock().unwrap();
        // SAFETY: what is written is a number; the guard and the box stay in the body.
        let caught = unsafe {
            catch_fault::<Hosted, _>(|| {
                let _inner = locks[1].lock().unwrap();
                let _boxed = TrackedBox::<_, Hosted>::new(7u64).unwrap();
                yield_now();
            })
        };
        told.set(caught.err());
        *outer += 1;
        yield_now();
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    let settled = machine.recover(task, some_fault()).unwrap();
    let kinds: Vec<_> = settled.iter().map(|one| (one.kind, one.outcome)).collect();
    assert_eq!(
        kinds,
        [(ResourceKind::Box, Outcome::Reclaimed), (ResourceKind::Mutex, Outcome::OwnerDied)]
    );
    assert_eq!(machine.run(task, None), Stop::Yielded);
    assert_eq!(told.get(), Some(Fault::Stopped(some_fault())));
    let next = machine.spawn(|| {
        assert!(matches!(locks[0].try_lock(), Err(TryLockError::WouldBlock)), "it is the task's");
        assert!(matches!(locks[1].lock(), Err(LockError::OwnerDied(_))));
    });
    assert_eq!(machine.run(next, None), Stop::Finished);
    assert_eq!(machine.run(task, None), Stop::Finished);
    let last = machine.spawn(|| assert_eq!(*locks[0].lock().unwrap(), 1, "nobody was told"));
    assert_eq!(machine.run(last, None), Stop::Finished);
    assert!(machine.frozen(task).1.is_empty());
}

#[test]
fn points_nest_and_the_innermost_counts() {
    let reached: &'static Answer<u32> = leak(Answer::new(0));
    let mut machine = machine();
    let task = machine.spawn(|| {
        // SAFETY: the bodies acquire nothing.
        let outer = unsafe {
            catch_fault::<Hosted, _>(|| {
                let inner = catch_fault::<Hosted, _>(yield_now);
                reached.set(reached.get() + u32::from(inner.is_err()));
                yield_now();
            })
        };
        reached.set(reached.get() + if outer.is_err() { 10 } else { 0 });
        yield_now();
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    for expected in [1, 11] {
        machine.recover(task, some_fault()).unwrap();
        assert_eq!(machine.run(task, None), Stop::Yielded);
        assert_eq!(reached.get(), expected);
    }
    assert_eq!(machine.recover(task, some_fault()).unwrap_err(), NoRecoveryPoint::None);
    assert_eq!(machine.run(task, None), Stop::Finished);
}

#[test]
fn without_room_for_a_point_the_body_is_not_called() {
    let machine = machine();
    let task = machine.spawn(|| {
        let boxes: Vec<_> =
            core::iter::from_fn(|| TrackedBox::<_, Hosted>::new(1u64).ok()).collect();
        assert_eq!(boxes.len(), Ledger::CAPACITY);
        // SAFETY: the body is not called.
        let called = unsafe { catch_fault::<Hosted, _>(|| panic!("called")) };
        assert_eq!(called, Err(Fault::LedgerFull(crate::LedgerFull)));
    });
    assert_eq!(machine.run(task, None), Stop::Finished);
}

#[test]
fn a_panic_stops_at_the_point() {
    let told: &'static Answer<Option<Fault>> = leak(Answer::new(None));
    let mut machine = machine();
    let task = machine.spawn(|| {
        // SAFETY: the body acquires nothing.
        let caught = unsafe { catch_fault::<Hosted, ()>(|| panic!("a test's own")) };
        told.set(caught.err());
    });
    assert_eq!(machine.run(task, None), Stop::Panicked);
    machine.recover(task, FaultInfo::panicked(1)).unwrap();
    assert_eq!(machine.run(task, None), Stop::Finished);
    assert!(matches!(told.get(), Some(Fault::Stopped(f)) if f.kind == FaultKind::Panicked));
}

/// A task that stands in a body, with `lock` held outside of it.
fn in_a_body(machine: &mut Machine, lock: &'static Lock) -> task_model::TaskId {
    let task = machine.spawn(|| {
        let _outer = lock.lock().unwrap();
        // SAFETY: the body acquires nothing.
        let _ = unsafe { catch_fault::<Hosted, _>(yield_now) };
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    task
}

#[test]
fn a_point_that_was_written_over_is_refused_word_by_word() {
    use task_model::StackMemory;
    let mut machine = machine();
    let task = in_a_body(&mut machine, leak(Mutex::new(0)));
    let (mut frozen, ledger) = machine.frozen(task);
    let point = RecoveryPoint::innermost(&frozen, ledger).unwrap();
    let words = arch::SAVED_WORDS as u64 + 2;
    for address in (0..words).map(|n| point.point.address() + 8 * n).chain([point.stack_pointer()])
    {
        let word = frozen.read_u64(address).unwrap();
        for bit in 0..64 {
            frozen.write_u64(address, word ^ 1 << bit).unwrap();
            assert_eq!(
                RecoveryPoint::innermost(&frozen, ledger).unwrap_err(),
                NoRecoveryPoint::Damaged,
                "{address:#x} bit {bit}",
            );
        }
        frozen.write_u64(address, word).unwrap();
    }
    assert!(RecoveryPoint::innermost(&frozen, ledger).is_ok());
}

#[test]
fn a_point_below_the_stack_pointer_or_outside_of_the_stack_is_refused() {
    use task_model::{Gpr, StackMemory};
    let mut machine = machine();
    let task = in_a_body(&mut machine, leak(Mutex::new(0)));
    let (mut frozen, ledger) = machine.frozen(task);
    let stack_pointer = RecoveryPoint::innermost(&frozen, ledger).unwrap().stack_pointer();
    frozen.registers_mut()[Gpr::Rsp] = stack_pointer + 8;
    assert_eq!(RecoveryPoint::innermost(&frozen, ledger).unwrap_err(), NoRecoveryPoint::Damaged);
    // A point somewhere else.
    let entry = ledger.held().find(|entry| entry.has(&POINT)).unwrap();
    for place in [0, 1 << 20, frozen.bounds().top(), frozen.bounds().top() - 8, u64::MAX - 7] {
        entry.resource.store(core::ptr::without_provenance_mut(place as usize), Ordering::Relaxed);
        if !entry.is_vacant() {
            assert_eq!(
                RecoveryPoint::innermost(&frozen, ledger).unwrap_err(),
                NoRecoveryPoint::Damaged
            );
        }
    }
}

#[test]
fn control_words_and_flags_are_those_of_the_point() {
    use core::arch::asm;
    use task_model::{Gpr, RegisterFile};

    let saved: arch::SavedWords = [1, 2, 3, 4, 5, 6, 7, 8, 0x200, 0];
    let mut registers = RegisterFile::new();
    // DF, AC, CF and TF, with interrupts off.
    registers.rflags = 0x4_0502 | 1;
    arch::land(&mut registers, &saved, 0x1000);
    assert_eq!(registers.rflags, 0x302, "TF is the debugger's; IF as it was");
    let restored = [Gpr::Rbx, Gpr::Rbp, Gpr::R12, Gpr::R13, Gpr::R14, Gpr::R15, Gpr::Rsp, Gpr::Rdi];
    assert_eq!(restored.map(|register| registers[register]), [1, 2, 3, 4, 5, 6, 7, 0x1000]);

    let after: &'static Answer<(u32, u16, u16)> = leak(Answer::new((0, 0, 0)));
    let mut machine = machine();
    let task = machine.spawn(|| {
        // Rounds to zero, and keeps 53 bits.
        let (mxcsr, control) = (0x7f80u32, 0x027fu16);
        // SAFETY: both leave all exceptions masked; they are put back at the end.
        unsafe { asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &mxcsr, in(reg) &control) };
        // SAFETY: the body leaves the x87 stack full and the modes changed, as one that was cut
        // may.
        let caught = unsafe {
            catch_fault::<Hosted, _>(|| {
                let (mxcsr, control) = (0x1f80u32, 0x0f7fu16);
                asm!(
                    "ldmxcsr [{}]", "fldcw [{}]", "fld1", "fld1", "fld1",
                    in(reg) &mxcsr, in(reg) &control,
                );
                yield_now();
            })
        };
        assert!(caught.is_err());
        let (mut mxcsr, mut environment) = (0u32, [0u16; 14]);
        // SAFETY: stores into these, and puts back what Rust expects.
        unsafe {
            asm!("stmxcsr [{}]", "fnstenv [{}]", in(reg) &mut mxcsr, in(reg) &mut environment);
            let (mxcsr, control) = (0x1f80u32, 0x037fu16);
            asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &mxcsr, in(reg) &control);
        }
        // Control, and tags: all empty.
        after.set((mxcsr, environment[0], environment[4]));
    });
    assert_eq!(machine.run(task, None), Stop::Yielded);
    machine.recover(task, some_fault()).unwrap();
    assert_eq!(machine.run(task, None), Stop::Finished);
    assert_eq!(after.get(), (0x7f80, 0x027f, 0xffff));
}
