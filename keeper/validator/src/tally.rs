//! What came of all comparisons.

use std::collections::BTreeMap;
use std::fmt;

use keeper::unwind::WalkError;

use crate::Answer;

/// The numbers, and a list of everything that was not agreed on.
#[derive(Debug, Default)]
pub struct Tally {
    /// Instruction boundaries at which a walk was compared with the truth.
    pub boundaries: u64,
    /// Frames at these. Each is one of the next three.
    pub frames: u64,
    /// The walker said the truth.
    pub agreed: u64,
    /// It gave no answer, and a reason for this frame or one further in.
    pub refused: u64,
    /// It said what is not true.
    pub wrong: u64,
    /// Boundaries right before frames were abandoned, at which nobody can say who the caller is.
    pub unjudged: u64,
    /// How often frames were abandoned, by anything but a return to their caller.
    pub abandoned: u64,
    /// The boundaries since the last at which all was agreed on.
    pending: Vec<Vec<(u64, Answer)>>,
    places: BTreeMap<Place, Row>,
}

/// Where and how an answer was not the truth.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    wrong: bool,
    kind: &'static str,
    function: String,
}

/// How often, and one example.
#[derive(Debug)]
struct Row {
    count: u64,
    address: u64,
    example: String,
}

impl Tally {
    /// Adds the answers of one boundary; `place_of` gives the function at an address, and the
    /// address as it is in the function's file.
    pub fn add(&mut self, answers: Vec<(u64, Answer)>, place_of: impl Fn(u64) -> (String, u64)) {
        let agreed = answers.iter().all(|(_, answer)| *answer == Answer::Agreed);
        self.pending.push(answers);
        if agreed {
            self.settle(place_of);
        }
    }

    /// Says that frames were abandoned by the last instruction: an exception was caught, or a
    /// `longjmp` executed.
    ///
    /// Whoever does that first overwrites, bit by bit, what the frames have saved with what the
    /// new ones are to find. Until it jumps, the tables and the calls that were made tell of
    /// different callers, and both are right. So an unbroken run of boundaries without
    /// agreement that ends in such a jump counts as unjudged.
    pub fn frames_abandoned(&mut self) {
        self.abandoned += 1;
        self.unjudged += self.pending.len() as u64;
        self.pending.clear();
    }

    /// Counts what is pending. To be called once more at the end.
    pub fn settle(&mut self, place_of: impl Fn(u64) -> (String, u64)) {
        for answers in std::mem::take(&mut self.pending) {
            self.count(&answers, &place_of);
        }
    }

    fn count(&mut self, answers: &[(u64, Answer)], place_of: impl Fn(u64) -> (String, u64)) {
        self.boundaries += 1;
        self.frames += answers.len() as u64;
        for (address, answer) in answers {
            let kind = match answer {
                Answer::Agreed => {
                    self.agreed += 1;
                    continue;
                }
                Answer::NotReached => {
                    self.refused += 1;
                    continue;
                }
                Answer::Refused(reason) => kind_of(*reason),
                Answer::Lost(_) => "register not recovered",
                Answer::Wrong(wrong) => wrong.kind(),
            };
            let wrong = matches!(answer, Answer::Wrong(_));
            *if wrong { &mut self.wrong } else { &mut self.refused } += 1;
            let (function, address) = place_of(*address);
            let place = Place { wrong, kind, function };
            let row = self.places.entry(place).or_insert_with(|| Row {
                count: 0,
                address,
                example: answer.to_string(),
            });
            row.count += 1;
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: Self) {
        self.boundaries += other.boundaries;
        self.frames += other.frames;
        self.agreed += other.agreed;
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.unjudged += other.unjudged;
        self.abandoned += other.abandoned;
        for (place, row) in other.places {
            match self.places.get_mut(&place) {
                Some(here) => here.count += row.count,
                None => _ = self.places.insert(place, row),
            }
        }
    }

    /// Whether the walker was never wrong, and had an answer for nearly every frame: of code
    /// that has no tables, written by hand or by a linker, there is less than one frame in forty.
    pub const fn holds(&self) -> bool {
        self.wrong == 0 && self.refused * 40 <= self.frames
    }

    /// Every place where an answer was refused or wrong, one a line; and how many frames lie behind
    /// those that were refused.
    pub fn list(&self) -> String {
        let line = |(place, row): (&Place, &Row)| {
            let verdict = if place.wrong { "wrong" } else { "refused" };
            format!(
                "{verdict} {}x {}: in {} (first at {:#x}: {})\n",
                row.count, place.kind, place.function, row.address, row.example
            )
        };
        let refused = self.places.iter().filter(|(place, _)| !place.wrong);
        let not_reached = self.refused - refused.map(|(_, row)| row.count).sum::<u64>();
        let mut list: String = self.places.iter().map(line).collect();
        if not_reached > 0 {
            list += &format!("refused {not_reached}x behind one of these\n");
        }
        list
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "boundaries={} frames={} agreed={} refused={} wrong={}",
            self.boundaries, self.frames, self.agreed, self.refused, self.wrong
        )
    }
}

/// A refusal without its numbers.
fn kind_of(reason: WalkError) -> &'static str {
    match reason {
        WalkError::NoFde(_) => "no unwind entry",
        WalkError::BadCfi(_) => "unusable unwind entry",
        WalkError::OutOfStack(_) => "outside the stack",
        WalkError::Misaligned(_) => "misaligned",
        WalkError::DidNotAdvance(_) => "caller not above callee",
        WalkError::BelowStackPointer(_) => "slot below the stack pointer",
        WalkError::UndefinedRegister(_) => "needs an unknown register",
        WalkError::ReturnAddressNotInText(_) => "return address not in the text",
        WalkError::NotAfterCall(_) => "no call before the return address",
        WalkError::TooDeep => "too deep",
        _ => "another reason",
    }
}
