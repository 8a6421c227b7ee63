//! From words to a report.

use drop_registry::{Outcome, ResourceKind};
use heapless::{String, Vec};
use task_model::{FaultInfo, FaultKind, GeneralRegisters, Gpr, Place, TaskId};

use super::encode::NONE;
use super::{DecodeError, FIXED, FRAME, HEADER, RESOURCE};
use crate::report::MESSAGE;
use crate::unwind::{
    Frame, FrameAddress, FrameOrigin, Landing, LsdaError, PadKind, WalkEnd, WalkError,
};
use crate::{FrameReport, KeeperId, Refusal, Report, Resource, Verdict};

/// The report of a record of so many `words`, from its fourth word on.
pub(super) fn decode(
    words: usize,
    payload: impl Iterator<Item = u64>,
) -> Result<Report, DecodeError> {
    let wrong_length = DecodeError::Length(words as u16);
    // So that words of their own need no check: what is too short is refused by its counts.
    let mut payload = payload.fuse();
    let mut next = || payload.next().unwrap_or(0);
    if words < HEADER + FIXED {
        return Err(wrong_length);
    }
    let mut report = Report::empty();
    report.task = TaskId::from_word(next());
    report.fault = fault(&mut next)?;
    let ruling = next();
    let ticks = next();
    report.verdict = verdict(ruling as u16, ticks)?;
    let refusal = (ruling >> 16) as u16;
    report.refusal = match refusal {
        NONE => None,
        code => Some(Refusal::from_code(code).ok_or(unknown("refusal", code))?),
    };
    report.settled = bit(ruling, 32);
    let restarted_as = TaskId::from_word(next());
    report.restarted_as = bit(ruling, 33).then_some(restarted_as);
    let recovered_to = next();
    report.recovered_to = bit(ruling, 35).then_some(recovered_to);
    report.stopped_at = next();
    report.settled_at = next();
    report.reclaimed_at = next();
    report.gone_at = next();
    report.walk_end = walk_end(next(), next())?;
    let counts = next();
    let [frames, resources, keepers, message] = [0, 16, 32, 48].map(|n| (counts >> n) as u16);
    let lists = FRAME * usize::from(frames) + RESOURCE * usize::from(resources);
    if words != HEADER + FIXED + lists + usize::from(message).div_ceil(8) {
        return Err(wrong_length);
    }
    let asked = next().to_le_bytes();
    for number in asked.iter().take(keepers.into()) {
        let known = usize::from(*number) < KeeperId::MAX;
        known.then_some(()).ok_or(unknown("keeper", *number))?;
        report.asked(KeeperId::from_number(*number));
    }
    if usize::from(keepers) > asked.len() {
        return Err(unknown("number of keepers", keepers));
    }
    let mut registers = GeneralRegisters::default();
    registers.gpr.fill_with(&mut next);
    registers.rip = next();
    registers.rflags = next();
    report.registers = bit(ruling, 34).then_some(registers);
    for _ in 0..frames {
        let frame = frame(&mut next)?;
        report.frames.push(frame).map_err(|_| unknown("number of frames", frames))?;
    }
    for _ in 0..resources {
        let resource = resource(&mut next)?;
        let room = report.resources.push(resource);
        room.then_some(()).ok_or(unknown("number of resources", resources))?;
    }
    let bytes = (0..message.div_ceil(8)).flat_map(|_| next().to_le_bytes());
    let mut text = Vec::<u8, MESSAGE>::new();
    for byte in bytes.take(message.into()) {
        text.push(byte).map_err(|_| unknown("length of a message", message))?;
    }
    report.message = String::from_utf8(text).map_err(|_| DecodeError::Text)?;
    Ok(report)
}

fn fault(next: &mut impl FnMut() -> u64) -> Result<FaultInfo, DecodeError> {
    let what = next();
    let (error_code, address) = (next(), next());
    Ok(FaultInfo {
        kind: FaultKind::from_code(what as u16).ok_or(unknown("fault", what as u16))?,
        vector: bit(what, 24).then_some((what >> 16) as u8),
        error_code: bit(what, 25).then_some(error_code),
        address: bit(what, 26).then_some(address),
        instruction_pointer: next(),
        place: Place::from_code(byte(what, 32)).ok_or(unknown("place", byte(what, 32)))?,
    })
}

fn verdict(code: u16, ticks: u64) -> Result<Option<Verdict>, DecodeError> {
    if code == NONE {
        return Ok(None);
    }
    Verdict::from_code(code, ticks).map(Some).ok_or(unknown("verdict", code))
}

fn walk_end(code: u64, operand: u64) -> Result<WalkEnd, DecodeError> {
    Ok(WalkEnd::Partial(match code {
        0 => return Ok(WalkEnd::Complete),
        1 => WalkError::NoFde(operand),
        2 => WalkError::BadCfi(operand),
        3 => WalkError::OutOfStack(operand),
        4 => WalkError::Misaligned(operand),
        5 => WalkError::DidNotAdvance(operand),
        6 => WalkError::BelowStackPointer(operand),
        7 => {
            let register = u8::try_from(operand).ok().and_then(Gpr::from_encoding);
            WalkError::UndefinedRegister(register.ok_or(unknown("register", operand))?)
        }
        8 => WalkError::ReturnAddressNotInText(operand),
        9 => WalkError::TooDeep,
        10 => WalkError::NotAfterCall(operand),
        code => return Err(unknown("end of a walk", code)),
    }))
}

fn frame(next: &mut impl FnMut() -> u64) -> Result<FrameReport, DecodeError> {
    let [address, sp, cfa, function, operand, flags] = core::array::from_fn(|_| next());
    let origin = byte(flags, 8);
    let frame = Frame {
        address: if bit(flags, 0) {
            FrameAddress::ReturnAddress(address)
        } else {
            FrameAddress::InstructionPointer(address)
        },
        origin: FrameOrigin::from_code(origin).ok_or(unknown("origin of a frame", origin))?,
        sp,
        cfa: bit(flags, 1).then_some(cfa),
        function: bit(flags, 2).then_some(function),
        signal_frame: bit(flags, 3),
    };
    Ok(FrameReport { frame, landing: landing(byte(flags, 16), byte(flags, 24), operand)? })
}

fn landing(code: u16, kind: u16, operand: u64) -> Result<Landing, DecodeError> {
    Ok(match code {
        0 => Landing::Unknown,
        1 => Landing::NoTable,
        2 => Landing::NoCallSite,
        3 => Landing::NoPad,
        4 => {
            let kind = PadKind::from_code(kind).ok_or(unknown("kind of a landing pad", kind))?;
            Landing::Pad { address: operand, kind }
        }
        5 => Landing::Unreadable(match kind {
            0 => LsdaError::OutsideSection(operand),
            1 => LsdaError::Truncated,
            2 => LsdaError::TooLarge,
            3 => LsdaError::UnsupportedEncoding(
                operand.try_into().map_err(|_| unknown("pointer encoding", operand))?,
            ),
            4 => LsdaError::NoTypes,
            5 => LsdaError::EndlessActions,
            kind => return Err(unknown("error of a language table", kind)),
        }),
        code => return Err(unknown("landing", code)),
    })
}

fn resource(next: &mut impl FnMut() -> u64) -> Result<Resource, DecodeError> {
    let [address, stack_pointer, what] = core::array::from_fn(|_| next());
    let (kind, outcome) = (byte(what, 16), byte(what, 24));
    Ok(Resource {
        entry: (what as u16).into(),
        kind: ResourceKind::from_code(kind).ok_or(unknown("kind of a resource", kind))?,
        address,
        stack_pointer,
        frame: bit(what, 48).then_some(((what >> 32) as u16).into()),
        escaped: bit(what, 49),
        outcome: Outcome::from_code(outcome).ok_or(unknown("outcome", outcome))?,
    })
}

fn bit(word: u64, n: u32) -> bool {
    word >> n & 1 != 0
}

fn byte(word: u64, from: u32) -> u16 {
    (word >> from & 0xff) as u16
}

fn unknown(what: &'static str, code: impl Into<u64>) -> DecodeError {
    DecodeError::Unknown { what, code: code.into() }
}
