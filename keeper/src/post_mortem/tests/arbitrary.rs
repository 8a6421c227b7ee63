//! Reports of all kinds.

use std::vec::Vec;

use drop_registry::{Ledger, Outcome, ResourceKind};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use task_model::{FaultInfo, FaultKind, GeneralRegisters, Gpr, Place, TaskId};

use crate::unwind::{
    Frame, FrameAddress, FrameOrigin, Landing, LsdaError, MAX_FRAMES, PadKind, WalkEnd, WalkError,
};
use crate::{FrameReport, KeeperId, Refusal, Report, Resource, Verdict};

/// Any of those that have a number.
fn any_of<T: Clone + core::fmt::Debug + 'static>(
    from_code: impl Fn(u16) -> Option<T>,
) -> impl Strategy<Value = T> {
    prop::sample::select((0..=u16::MAX).filter_map(from_code).collect::<Vec<_>>())
}

fn task() -> impl Strategy<Value = TaskId> {
    any::<(u32, u32)>().prop_map(|(index, generation)| TaskId { index, generation })
}

fn fault() -> impl Strategy<Value = FaultInfo> {
    (
        any_of(FaultKind::from_code),
        any::<(Option<u8>, Option<u64>, Option<u64>, u64)>(),
        any_of(Place::from_code),
    )
        .prop_map(|(kind, (vector, error_code, address, instruction_pointer), place)| {
            FaultInfo { kind, vector, error_code, address, instruction_pointer, place }
        })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        any::<u64>().prop_map(Verdict::RestartAfter),
        prop::sample::select(std::vec![
            Verdict::Resume,
            Verdict::Recover,
            Verdict::Exit,
            Verdict::Restart,
            Verdict::Hold,
            Verdict::TryNext,
            Verdict::Panic,
            Verdict::Deferred,
        ]),
    ]
}

fn walk_end() -> impl Strategy<Value = WalkEnd> {
    let of_address = prop::sample::select(std::vec![
        WalkError::NoFde as fn(u64) -> WalkError,
        WalkError::BadCfi,
        WalkError::OutOfStack,
        WalkError::Misaligned,
        WalkError::DidNotAdvance,
        WalkError::BelowStackPointer,
        WalkError::ReturnAddressNotInText,
        WalkError::NotAfterCall,
    ]);
    prop_oneof![
        Just(WalkEnd::Complete),
        Just(WalkEnd::Partial(WalkError::TooDeep)),
        prop::sample::select(&Gpr::ALL[..])
            .prop_map(|register| WalkEnd::Partial(WalkError::UndefinedRegister(register))),
        (of_address, any::<u64>()).prop_map(|(error, address)| WalkEnd::Partial(error(address))),
    ]
}

fn landing() -> impl Strategy<Value = Landing> {
    prop_oneof![
        prop::sample::select(std::vec![
            Landing::Unknown,
            Landing::NoTable,
            Landing::NoCallSite,
            Landing::NoPad,
            Landing::Unreadable(LsdaError::Truncated),
            Landing::Unreadable(LsdaError::TooLarge),
            Landing::Unreadable(LsdaError::NoTypes),
            Landing::Unreadable(LsdaError::EndlessActions),
        ]),
        any::<u64>().prop_map(|at| Landing::Unreadable(LsdaError::OutsideSection(at))),
        any::<u8>().prop_map(|it| Landing::Unreadable(LsdaError::UnsupportedEncoding(it))),
        (any::<u64>(), any_of(PadKind::from_code))
            .prop_map(|(address, kind)| Landing::Pad { address, kind }),
    ]
}

fn frame() -> impl Strategy<Value = FrameReport> {
    let numbers = any::<(bool, u64, u64, Option<u64>, Option<u64>, bool)>();
    (numbers, any_of(FrameOrigin::from_code), landing()).prop_map(|(numbers, origin, landing)| {
        let (returned_to, address, sp, cfa, function, signal_frame) = numbers;
        let address = if returned_to {
            FrameAddress::ReturnAddress(address)
        } else {
            FrameAddress::InstructionPointer(address)
        };
        let frame = Frame { address, origin, sp, cfa, function, signal_frame };
        FrameReport { frame, landing }
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let numbers = any::<(u64, u64, bool)>();
    let places = (0..=Ledger::CAPACITY, option::of(0..4096_usize));
    (places, any_of(ResourceKind::from_code), any_of(Outcome::from_code), numbers).prop_map(
        |((entry, frame), kind, outcome, (address, stack_pointer, escaped))| Resource {
            entry,
            kind,
            address,
            stack_pointer,
            frame,
            escaped,
            outcome,
        },
    )
}

fn registers() -> impl Strategy<Value = Option<GeneralRegisters>> {
    option::of(any::<([u64; 16], u64, u64)>().prop_map(|(gpr, rip, rflags)| GeneralRegisters {
        gpr,
        rip,
        rflags,
    }))
}

/// Any report that a keeper may write.
pub(super) fn any_report() -> impl Strategy<Value = Report> {
    let task_and_fault = (task(), fault(), registers(), ".{0,48}");
    let found = (
        vec(frame(), 0..=MAX_FRAMES),
        walk_end(),
        vec(resource(), 0..=Ledger::CAPACITY + 1),
        vec((0..KeeperId::MAX as u8).prop_map(KeeperId::from_number), 0..=8),
    );
    let ruled = (
        option::of(verdict()),
        option::of(any_of(Refusal::from_code)),
        option::of(task()),
        any::<(bool, Option<u64>, [u64; 4])>(),
    );
    (task_and_fault, found, ruled).prop_map(|(what, found, ruled)| {
        let mut report = Report::empty();
        let message: std::string::String;
        (report.task, report.fault, report.registers, message) = what;
        report.note_message(&message);
        let (frames, walk_end, resources, keepers) = found;
        report.frames.extend(frames);
        report.walk_end = walk_end;
        for resource in resources {
            assert!(report.resources.push(resource));
        }
        for keeper in keepers {
            report.asked(keeper);
        }
        let times;
        (
            report.verdict,
            report.refusal,
            report.restarted_as,
            (report.settled, report.recovered_to, times),
        ) = ruled;
        [report.stopped_at, report.settled_at, report.reclaimed_at, report.gone_at] = times;
        report
    })
}

/// Everything of a report, to be compared.
pub(super) fn everything(report: &Report) -> std::string::String {
    std::format!("{report:?}")
}
