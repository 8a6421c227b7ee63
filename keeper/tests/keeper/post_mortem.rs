//! What is recorded for who comes after, and what is not.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::Mutex;
use keeper::hosted::{Current, Kernel};
use keeper::post_mortem::{Ring, Slot};
use keeper::{Case, KeeperId, Policy, Report, Verdict, policy};

use crate::fault_path::CALLS;
use crate::{faults, kernel};

fn ring(slots: usize) -> &'static Ring {
    let slots: Box<[Slot]> = (0..slots).map(|_| Slot::new()).collect();
    Box::leak(Box::new(Ring::new(Box::leak(slots))))
}

fn recorded(ring: &Ring) -> Vec<Report> {
    ring.records().map(|record| record.report().unwrap()).collect()
}

#[test]
fn what_is_recorded_is_what_was_reported() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    let ring = ring(4);
    let kernel = kernel().configured(|keepers| keepers.with_post_mortem(ring));
    kernel.spawn(|| {
        let _guard = LOCK.lock().unwrap();
        faults::invalid_opcode();
    });
    kernel.spawn_with_policy(&policy::Hold, faults::divide_by_zero);
    let mut told = kernel.run();
    told.reverse();
    let read = recorded(ring);
    let texts = |reports: &[Report]| reports.iter().map(Report::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&read), texts(&told), "the latest first");
    let of_lock = &read[1];
    assert_eq!((of_lock.resources.len(), of_lock.verdict), (1, Some(Verdict::Exit)));
    let registers = of_lock.registers.expect("a settled task's are known");
    assert_eq!(registers.rip, of_lock.fault.instruction_pointer);
    assert_eq!(registers.gpr[4], of_lock.frames[0].frame.sp);
    assert!(of_lock.to_string().contains(&format!("rip {:016x}", registers.rip)));
}

#[test]
fn a_resumed_task_is_no_case_for_a_post_mortem() {
    #[derive(Debug)]
    struct Skip;
    impl Policy for Skip {
        fn rule(&self, case: &mut Case<'_>) -> Verdict {
            case.frozen().registers_mut().rip += 2;
            Verdict::Resume
        }
    }
    let ring = ring(2);
    let kernel = kernel().configured(|keepers| keepers.with_post_mortem(ring));
    kernel.spawn_with_policy(&Skip, faults::invalid_opcode);
    let reports = kernel.run();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].registers.is_none(), "they were not copied");
    assert_eq!(ring.records().count(), 0);
}

thread_local! {
    static CALLS_AT_VERDICT: Cell<u64> = const { Cell::new(0) };
}

#[test]
fn nothing_is_allocated_for_a_record() {
    /// Keeps the corpse: to retire a task, a hosted kernel may allocate.
    #[derive(Debug)]
    struct Holding;
    impl Policy for Holding {
        fn rule(&self, case: &mut Case<'_>) -> Verdict {
            case.settle();
            CALLS_AT_VERDICT.set(CALLS.get());
            Verdict::Hold
        }
    }
    static CALLED: AtomicU64 = AtomicU64::new(u64::MAX);
    let ring = ring(2);
    let kernel = kernel().configured(|keepers| keepers.with_post_mortem(ring));
    let kernel: &'static Kernel = Box::leak(Box::new(kernel));
    let keeper = kernel.keepers().register(KeeperId::ROOT, &policy::Exit, u64::MAX).unwrap();
    kernel.spawn_keeper(keeper, |_| {
        CALLED.store(CALLS.get() - CALLS_AT_VERDICT.get(), Ordering::Relaxed);
    });
    kernel.run();
    let task = kernel.spawn_with_policy(&Holding, faults::invalid_opcode);
    kernel.keepers().keep(task, keeper).unwrap();
    kernel.run();
    assert_eq!(recorded(ring)[0].task, task);
    assert_eq!(CALLED.load(Ordering::Relaxed), 0);
}
