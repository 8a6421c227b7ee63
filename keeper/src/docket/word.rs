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

impl Phase {
    const ALL: [Self; 7] = [
        Self::Free,
        Self::Serving,
        Self::Deferring,
        Self::Ruled,
        Self::Deferred,
        Self::Delayed,
        Self::Waiting,
    ];

    /// Whether a keeper is at it.
    pub(crate) const fn is_in_hand(self) -> bool {
        matches!(self, Self::Serving | Self::Deferring | Self::Ruled)
    }
}

/// A case's word. The generation counts its changes, so that an old copy never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) phase: Phase,
    pub(crate) keeper: KeeperId,
    /// What was ruled, if it was. The delay of a [`Verdict::RestartAfter`] is beside the word.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) generation: u32,
}

/// In the order of their numbers in the word, from 1.
const VERDICTS: [Verdict; 8] = [
    Verdict::Resume,
    Verdict::Exit,
    Verdict::Restart,
    Verdict::RestartAfter(0),
    Verdict::Hold,
    Verdict::TryNext,
    Verdict::Panic,
    Verdict::Deferred,
];

impl Word {
    pub(crate) const FREE: Self =
        Self { phase: Phase::Free, keeper: KeeperId::ROOT, verdict: None, generation: 0 };

    /// The word after this one.
    pub(crate) const fn next(
        self,
        phase: Phase,
        keeper: KeeperId,
        verdict: Option<Verdict>,
    ) -> Self {
        Self { phase, keeper, verdict, generation: self.generation.wrapping_add(1) }
    }

    pub(crate) fn pack(self) -> u64 {
        let number = |verdict: Verdict| {
            let same = |other: &Verdict| {
                core::mem::discriminant(other) == core::mem::discriminant(&verdict)
            };
            VERDICTS.iter().position(same).map_or(0, |n| n as u64 + 1)
        };
        u64::from(self.generation) << 32
            | self.verdict.map_or(0, number) << 16
            | u64::from(self.keeper.number()) << 8
            | self.phase as u64
    }

    pub(crate) fn unpack(word: u64) -> Self {
        let byte = |shift: u32| (word >> shift) as u8;
        Self {
            phase: Phase::ALL.get(usize::from(byte(0))).copied().unwrap_or(Phase::Free),
            keeper: KeeperId::from_number(byte(8)),
            verdict: usize::from(byte(16)).checked_sub(1).and_then(|n| VERDICTS.get(n).copied()),
            generation: (word >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing() {
        for phase in Phase::ALL {
            for verdict in VERDICTS.into_iter().map(Some).chain([None]) {
                let keeper = KeeperId::from_number(31);
                let word = Word { phase, keeper, verdict, generation: 0xdead_beef };
                assert_eq!(Word::unpack(word.pack()), word);
            }
        }
    }

    #[test]
    fn every_change_makes_old_copies_stale() {
        let word = Word::FREE.next(Phase::Serving, KeeperId::ROOT, None);
        assert_ne!(word.next(word.phase, word.keeper, word.verdict), word);
    }
}
