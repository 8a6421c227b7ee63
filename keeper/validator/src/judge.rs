//! The comparison of one walk with the truth.

use std::fmt;

use keeper::unwind::{Frame, RuleSource, UnwindRegisters, Walk, WalkEnd, WalkError};
use task_model::{Gpr, RegisterFile, StackMemory};

use crate::{Caller, Form, Images};

/// What a called function gives back as it got it (System V psABI for x86-64, figure 3.4).
const CALLEE_SAVED: [Gpr; 6] = [Gpr::Rbx, Gpr::Rbp, Gpr::R12, Gpr::R13, Gpr::R14, Gpr::R15];

/// More than any stack here has: a walk that goes on for longer is astray.
const MAX_FRAMES: usize = 4096;

/// What the walker said of one frame: where it ends, and who its caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All of it is true.
    Agreed,
    /// It gave none, for this reason.
    Refused(WalkError),
    /// It did not come to this frame, because it refused one further in.
    NotReached,
    /// It found everything but a register that functions preserve.
    Lost(Gpr),
    /// It is not true.
    Wrong(Wrong),
}

/// What is not true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The canonical frame address: the one given, and the true one.
    Cfa(Option<u64>, u64),
    /// Where the caller goes on: the address given, and the true one.
    Address(u64, u64),
    /// It is the address of an interrupted instruction and not a return address, or the reverse.
    AddressKind,
    /// What a register held in the caller: the value given, and the true one.
    Register(Gpr, u64, u64),
    /// The walk ended as complete, and there are more frames.
    EndsEarly,
    /// The compiled tables give another answer than those that they are made of.
    FormsDiffer,
    /// There are no more frames, and the walk went on, or did not say so.
    EndsLate,
}

/// Walks from `registers` by the tables in both of their forms. See [`judge_one`] for the answers;
/// where those by the one form and by the other differ, the answer is that.
pub fn judge(
    registers: &RegisterFile,
    callers: &[Caller],
    memory: &impl StackMemory,
    images: &mut Images,
) -> Vec<(u64, Answer)> {
    let by_the_tables = judge_one(registers, callers, memory, &mut images.form(Form::EhFrame));
    let mut answers = judge_one(registers, callers, memory, &mut images.form(Form::Compiled));
    for ((_, answer), (_, other)) in answers.iter_mut().zip(by_the_tables) {
        if *answer != other {
            *answer = Answer::Wrong(Wrong::FormsDiffer);
        }
    }
    answers
}

/// Walks from `registers`, and gives the answer for each frame, innermost first, with the address
/// at which the frame stands.
///
/// `callers` is the truth, innermost first; the last of them is the entry, which nobody called.
fn judge_one(
    registers: &RegisterFile,
    callers: &[Caller],
    memory: &impl StackMemory,
    source: &mut impl RuleSource,
) -> Vec<(u64, Answer)> {
    let mut walk = Walk::new(registers, memory, source).max_frames(MAX_FRAMES);
    let mut frames: Vec<(Frame, UnwindRegisters)> = vec![];
    while let Some(frame) = walk.next() {
        frames.push((frame, *walk.registers()));
    }
    let end = walk.end().expect("the walk has ended");

    let mut answers = vec![];
    let mut here = registers.rip;
    let mut next = 0;
    for caller in callers {
        let answer = match (frames.get(next), frames.get(next + 1), end) {
            (Some((frame, _)), Some(found), _) => compare(frame, found, caller),
            (Some(_), None, WalkEnd::Partial(reason)) => Answer::Refused(reason),
            (Some(_), None, WalkEnd::Complete) => Answer::Wrong(Wrong::EndsEarly),
            (None, ..) => match end {
                WalkEnd::Partial(_) => Answer::NotReached,
                WalkEnd::Complete => Answer::Wrong(Wrong::EndsEarly),
            },
        };
        answers.push((here, answer));
        here = caller.address.address();
        next += 1;
    }
    // The entry.
    answers.push((
        here,
        match (frames.len().cmp(&(next + 1)), end) {
            (std::cmp::Ordering::Equal, WalkEnd::Complete) => Answer::Agreed,
            (std::cmp::Ordering::Equal, WalkEnd::Partial(reason)) => Answer::Refused(reason),
            (std::cmp::Ordering::Less, WalkEnd::Partial(_)) => Answer::NotReached,
            (std::cmp::Ordering::Less, WalkEnd::Complete) => Answer::Wrong(Wrong::EndsEarly),
            (std::cmp::Ordering::Greater, _) => Answer::Wrong(Wrong::EndsLate),
        },
    ));
    answers
}

/// Whether `frame`, and what was `found` of its caller, are as they should be.
fn compare(frame: &Frame, found: &(Frame, UnwindRegisters), caller: &Caller) -> Answer {
    if let Some(cfa) = caller.cfa
        && frame.cfa != Some(cfa)
    {
        return Answer::Wrong(Wrong::Cfa(frame.cfa, cfa));
    }
    let (address, truth) = (found.0.address, caller.address);
    if address.address() != truth.address() {
        return Answer::Wrong(Wrong::Address(address.address(), truth.address()));
    }
    if address != truth {
        return Answer::Wrong(Wrong::AddressKind);
    }
    for gpr in Gpr::ALL {
        let truth = caller.registers[gpr as usize];
        match found.1.get(gpr) {
            Some(value) if value != truth => {
                return Answer::Wrong(Wrong::Register(gpr, value, truth));
            }
            // Everything that an interrupted frame held is to be found.
            None if caller.cfa.is_none() || CALLEE_SAVED.contains(&gpr) => {
                return Answer::Lost(gpr);
            }
            _ => {}
        }
    }
    Answer::Agreed
}

impl Wrong {
    /// What it is about, without the numbers.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Cfa(..) => "frame address",
            Self::Address(..) => "return address",
            Self::AddressKind => "kind of address",
            Self::Register(..) => "register",
            Self::FormsDiffer => "compiled tables differ",
            Self::EndsEarly => "ends early",
            Self::EndsLate => "ends late",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agreed => f.write_str("agreed"),
            Self::Refused(reason) => reason.fmt(f),
            Self::NotReached => f.write_str("not reached"),
            Self::Lost(gpr) => write!(f, "{gpr:?} is not recovered"),
            Self::Wrong(Wrong::Cfa(None, truth)) => write!(f, "no CFA, it is {truth:#x}"),
            Self::Wrong(Wrong::Cfa(Some(cfa), truth)) => write!(f, "CFA {cfa:#x}, is {truth:#x}"),
            Self::Wrong(Wrong::Address(address, truth)) => {
                write!(f, "returns to {address:#x}, is {truth:#x}")
            }
            Self::Wrong(Wrong::AddressKind) => f.write_str("called for interrupted, or reverse"),
            Self::Wrong(Wrong::Register(gpr, value, truth)) => {
                write!(f, "{gpr:?} = {value:#x}, is {truth:#x}")
            }
            Self::Wrong(Wrong::FormsDiffer) => f.write_str("compiled tables give another answer"),
            Self::Wrong(Wrong::EndsEarly) => f.write_str("complete, but there are more frames"),
            Self::Wrong(Wrong::EndsLate) => f.write_str("more frames than there are"),
        }
    }
}
