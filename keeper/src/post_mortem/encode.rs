//! From a report to words. [What they mean](super) is documented with the module.

use super::record::word_of;
use super::{FIXED, FRAME, HEADER, RESOURCE};
use crate::unwind::{
    Frame, FrameAddress, FrameOrigin, Landing, LsdaError, PadKind, WalkEnd, WalkError,
};
use crate::{FrameReport, Refusal, Report, Resource, Verdict};

use task_model::{FaultInfo, TaskId, stored_as};

stored_as! { FrameOrigin { Stopped = 0, Caller = 1, Interrupted = 2, TopOfStack = 3, } }

stored_as! { PadKind { Cleanup = 0, Catch = 1, Filter = 2, Terminate = 3, } }

stored_as! { Refusal {
    Settled = 0,
    SameInstruction = 1,
    Finished = 2,
    CaseLost = 3,
    NoEntry = 4,
    TooManyCorpses = 5,
    NoToken = 6,
    NoVerdict = 7,
    NoRecoveryPoint = 8,
    NoRoomToWait = 9,
} }

/// Stands for no verdict, and for no refusal.
pub(super) const NONE: u16 = u16::MAX;

/// How many words the record of this report has.
pub(super) fn words_of(report: &Report) -> usize {
    HEADER
        + FIXED
        + FRAME * report.frames.len()
        + RESOURCE * report.resources.len()
        + report.message.len().div_ceil(8)
}

/// Gives the words of the report's record to `put`, from the fourth on.
pub(super) fn encode(report: &Report, mut put: impl FnMut(u64)) {
    // All fields, so that a new one is not forgotten.
    let Report {
        task,
        fault,
        message,
        registers,
        frames,
        walk_end,
        resources,
        settled,
        recovered_to,
        recovery: _,
        walked: _,
        lost_cases: _,
        is_marked: _,
        cause: _,
        faults: _,
        policy: _,
        told: _,
        peers_told: _,
        keepers,
        verdict,
        refusal,
        restarted_as,
        stopped_at,
        settled_at,
        reclaimed_at,
        gone_at,
    } = report;
    put(task.to_word());
    put_fault(fault, &mut put);
    let (verdict, ticks) = verdict.map_or((NONE, 0), verdict_code);
    let refusal = refusal.map_or(NONE, Refusal::code);
    let flags = [*settled, restarted_as.is_some(), registers.is_some(), recovered_to.is_some()];
    put(u64::from(verdict) | u64::from(refusal) << 16 | bits(&flags) << 32);
    put(ticks);
    put(restarted_as.map_or(0, TaskId::to_word));
    put(recovered_to.unwrap_or(0));
    [*stopped_at, *settled_at, *reclaimed_at, *gone_at].into_iter().for_each(&mut put);
    let (end, operand) = walk_end_code(*walk_end);
    put(end);
    put(operand);
    let counts = [frames.len(), resources.len(), keepers.len(), message.len()];
    put(counts.iter().rev().fold(0, |word, count| word << 16 | *count as u64));
    put(keepers.iter().rev().fold(0, |word, keeper| word << 8 | u64::from(keeper.number())));
    let registers = registers.unwrap_or_default();
    registers.gpr.into_iter().for_each(&mut put);
    put(registers.rip);
    put(registers.rflags);
    frames.iter().for_each(|frame| put_frame(frame, &mut put));
    resources.iter().for_each(|resource| put_resource(resource, &mut put));
    message.as_bytes().chunks(8).for_each(|bytes| put(word_of(bytes)));
}

fn put_fault(fault: &FaultInfo, put: &mut impl FnMut(u64)) {
    let FaultInfo { kind, vector, error_code, address, instruction_pointer, place } = *fault;
    let given = bits(&[vector.is_some(), error_code.is_some(), address.is_some()]);
    let vector = u64::from(vector.unwrap_or(0));
    put(u64::from(kind.code()) | vector << 16 | given << 24 | u64::from(place.code()) << 32);
    put(error_code.unwrap_or(0));
    put(address.unwrap_or(0));
    put(instruction_pointer);
}

fn put_frame(report: &FrameReport, put: &mut impl FnMut(u64)) {
    let FrameReport { frame, landing } = report;
    let Frame { address, origin, sp, cfa, function, signal_frame } = *frame;
    let returned_to = matches!(address, FrameAddress::ReturnAddress(_));
    put(address.address());
    put(sp);
    put(cfa.unwrap_or(0));
    put(function.unwrap_or(0));
    let (landing, kind, operand) = landing_code(*landing);
    put(operand);
    let flags = bits(&[returned_to, cfa.is_some(), function.is_some(), signal_frame]);
    put(flags | u64::from(origin.code()) << 8 | landing << 16 | kind << 24);
}

fn put_resource(resource: &Resource, put: &mut impl FnMut(u64)) {
    let Resource { entry, kind, address, stack_pointer, frame, escaped, outcome } = *resource;
    put(address);
    put(stack_pointer);
    let what = entry as u64 | u64::from(kind.code()) << 16 | u64::from(outcome.code()) << 24;
    let depth = frame.unwrap_or(0) as u64;
    put(what | depth << 32 | bits(&[frame.is_some(), escaped]) << 48);
}

/// The first is the lowest bit.
fn bits(bits: &[bool]) -> u64 {
    bits.iter().rev().fold(0, |word, bit| word << 1 | u64::from(*bit))
}

/// Its number, and its ticks.
fn verdict_code(verdict: Verdict) -> (u16, u64) {
    let ticks = if let Verdict::RestartAfter(ticks) = verdict { ticks } else { 0 };
    (verdict.code(), ticks)
}

fn walk_end_code(end: WalkEnd) -> (u64, u64) {
    let WalkEnd::Partial(error) = end else { return (0, 0) };
    match error {
        WalkError::NoFde(address) => (1, address),
        WalkError::BadCfi(address) => (2, address),
        WalkError::OutOfStack(address) => (3, address),
        WalkError::Misaligned(address) => (4, address),
        WalkError::DidNotAdvance(address) => (5, address),
        WalkError::BelowStackPointer(address) => (6, address),
        WalkError::UndefinedRegister(register) => (7, register as u64),
        WalkError::ReturnAddressNotInText(address) => (8, address),
        WalkError::TooDeep => (9, 0),
        WalkError::NotAfterCall(address) => (10, address),
    }
}

/// What is known of the landing pad, of what kind it or the error is, and what goes with that.
fn landing_code(landing: Landing) -> (u64, u64, u64) {
    match landing {
        Landing::Unknown => (0, 0, 0),
        Landing::NoTable => (1, 0, 0),
        Landing::NoCallSite => (2, 0, 0),
        Landing::NoPad => (3, 0, 0),
        Landing::Pad { address, kind } => (4, kind.code().into(), address),
        Landing::Unreadable(error) => {
            let (kind, operand) = match error {
                LsdaError::OutsideSection(address) => (0, address),
                LsdaError::Truncated => (1, 0),
                LsdaError::TooLarge => (2, 0),
                LsdaError::UnsupportedEncoding(encoding) => (3, encoding.into()),
                LsdaError::NoTypes => (4, 0),
                LsdaError::EndlessActions => (5, 0),
            };
            (5, kind, operand)
        }
    }
}
