//! The one word that says how far a case has come and who has it.

use crate::Verdict;
use crate::chain::KeeperId;

/// How far a case has come.
///
/// ```text
///            ┌──────────── Waiting ◄─────────────┬───────────────────┐
///            ▼                ▲                  │ (the time is up,  │ (due)
///  Free ─► Serving ───────────┤ (try next)       │  or an answer)    │
///   ▲        │  │             │                  │                   │
///   │        │  └─► Deferring ┴──────────► Deferred                  │
///   │        ▼                                                       │
///   └────── Ruled ───────────────────────────────────────────► Delayed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// There is no case here.
    Free,
    /// A keeper has it, and has not ruled yet.
    Serving,
    /// A keeper has it, and gives the token away.
    Deferring,
    /// A keeper has ruled, and carries that out.
    Ruled,
    /// Whoever has the token is to rule.
    Deferred,
    /// It is to be restarted when its time comes.
    Delayed,
    /// A keeper is to take it up.
    Waiting,
}

/// A case's word: from the lowest byte, its phase, what was ruled (0: nothing; the delay of a
/// [`Verdict::RestartAfter`] is beside the word), and its keeper; in the upper half its generation,
/// which counts the changes, so that an old copy never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(super) u64);

const VERDICT: u32 = 8;
const KEEPER: u32 = 16;
const GENERATION: u32 = 32;

impl Word {
    pub(crate) const FREE: Self = Self(Phase::Free as u64);

    pub(crate) const fn phase(self) -> Phase {
        match self.0 as u8 {
            1 => Phase::Serving,
            2 => Phase::Deferring,
            3 => Phase::Ruled,
            4 => Phase::Deferred,
            5 => Phase::Delayed,
            6 => Phase::Waiting,
            _ => Phase::Free,
        }
    }

    #[inline]
    pub(crate) const fn is(self, phase: Phase) -> bool {
        self.0 as u8 == phase as u8
    }

    /// Whether a keeper is at it.
    pub(crate) const fn is_in_hand(self) -> bool {
        matches!(self.phase(), Phase::Serving | Phase::Deferring | Phase::Ruled)
    }

    #[inline]
    pub(crate) const fn keeper(self) -> KeeperId {
        KeeperId::from_number((self.0 >> KEEPER) as u8)
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> GENERATION) as u32
    }

    /// What was ruled, if it was.
    pub(crate) const fn verdict(self) -> Option<Verdict> {
        match (self.0 >> VERDICT) as u8 {
            0 => None,
            number => Verdict::from_code(number as u16 - 1, 0),
        }
    }

    /// The word after this one.
    #[inline]
    pub(crate) const fn next(
        self,
        phase: Phase,
        keeper: KeeperId,
        verdict: Option<Verdict>,
    ) -> Self {
        let new = number(verdict) << VERDICT | (keeper.number() as u64) << KEEPER | phase as u64;
        Self((self.0 & !0xff_ffff).wrapping_add(1 << GENERATION | new))
    }

    /// The word after this one, of the same keeper.
    #[inline]
    pub(crate) const fn next_of_same(self, phase: Phase, verdict: Option<Verdict>) -> Self {
        let new = number(verdict) << VERDICT | phase as u64;
        Self((self.0 & !0xffff).wrapping_add(1 << GENERATION | new))
    }

    /// The same, in another phase: its token keeps its generation.
    pub(crate) const fn in_phase(self, phase: Phase) -> Self {
        Self(self.0 & !0xff | phase as u64)
    }

    /// The same, with a verdict: its token keeps its generation.
    pub(crate) const fn with_verdict(self, verdict: Verdict) -> Self {
        Self(self.0 & !(0xff << VERDICT) | number(Some(verdict)) << VERDICT)
    }
}

#[inline]
const fn number(verdict: Option<Verdict>) -> u64 {
    match verdict {
        None => 0,
        Some(verdict) => verdict.code() as u64 + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::*;

    const VERDICTS: [Verdict; 9] = [
        Verdict::Resume,
        Verdict::Exit,
        Verdict::Restart,
        Verdict::RestartAfter(0),
        Verdict::Hold,
        Verdict::TryNext,
        Verdict::Panic,
        Verdict::Deferred,
        Verdict::Recover,
    ];

    #[test]
    fn a_word_says_what_was_put_into_it() {
        let keeper = KeeperId::from_number(31);
        for phase in [Free, Serving, Deferring, Ruled, Deferred, Delayed, Waiting] {
            for verdict in VERDICTS.into_iter().map(Some).chain([None]) {
                let word = Word(0xdead_beef << 32).next(phase, keeper, verdict);
                assert_eq!((word.phase(), word.keeper()), (phase, keeper));
                assert_eq!((word.verdict(), word.generation()), (verdict, 0xdead_bef0));
                let waiting = word.in_phase(Waiting).with_verdict(Verdict::Hold);
                assert_eq!((waiting.phase(), waiting.keeper()), (Waiting, keeper));
                assert_eq!(waiting.verdict(), Some(Verdict::Hold));
                assert_eq!(waiting.generation(), word.generation());
            }
        }
    }

    #[test]
    fn every_change_makes_old_copies_stale() {
        let word = Word::FREE.next(Serving, KeeperId::ROOT, None);
        assert_ne!(word.next(Serving, KeeperId::ROOT, None), word);
    }
}
