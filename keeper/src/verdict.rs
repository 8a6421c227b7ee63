//! What is to become of a task, and why a ruling was not carried out.

use core::fmt;

/// A ruling on a task that stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The task goes on where it stopped, with the registers that the policy has left it, as if it
    /// had not. Only before it is [settled](crate::Case::settle).
    Resume,
    /// The task ends.
    Exit,
    /// The task begins again from its entry, under the next generation of its id.
    Restart,
    /// As `Restart`, after so many ticks. Until then it stays as it is, settled.
    RestartAfter(u64),
    /// The task is kept as a corpse, with its stack and its memory, until it is
    /// [released](crate::Keepers::release).
    Hold,
    /// This keeper does not rule on it: its parent is to. If the root says that, the task ends.
    TryNext,
    /// The kernel cannot go on.
    Panic,
    /// The verdict comes later, by the [token](crate::Token) that was
    /// [taken](crate::Case::defer). Without one it is [`TryNext`](Self::TryNext).
    Deferred,
    /// The task goes on behind the innermost [`catch_fault`](drop_registry::catch_fault) that it is
    /// in, which returns the fault. What it acquired since is given up; what it held before stays
    /// held. Only before it is [settled](crate::Case::settle).
    Recover,
}

impl Verdict {
    /// Its number, in a case's word and in stored records: these stay what they are. Beside it go
    /// the ticks of a [`RestartAfter`](Self::RestartAfter). In the order of the variants, it takes
    /// no table.
    #[inline]
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Resume => 0,
            Self::Exit => 1,
            Self::Restart => 2,
            Self::RestartAfter(_) => 3,
            Self::Hold => 4,
            Self::TryNext => 5,
            Self::Panic => 6,
            Self::Deferred => 7,
            Self::Recover => 8,
        }
    }

    /// The verdict with this number.
    pub(crate) const fn from_code(code: u16, ticks: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Resume,
            1 => Self::Exit,
            2 => Self::Restart,
            3 => Self::RestartAfter(ticks),
            4 => Self::Hold,
            5 => Self::TryNext,
            6 => Self::Panic,
            7 => Self::Deferred,
            8 => Self::Recover,
            _ => return None,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resume => "resume",
            Self::Recover => "recover",
            Self::Exit => "exit",
            Self::Restart | Self::RestartAfter(_) => "restart",
            Self::Hold => "hold",
            Self::TryNext => "try next",
            Self::Panic => "panic",
            Self::Deferred => "deferred",
        })
    }
}

/// Why a verdict was not carried out, and another one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// [`Resume`](Verdict::Resume) or [`Recover`](Verdict::Recover) of a task whose locks are
    /// already others': the parent was asked.
    Settled,
    /// `Resume`, again and again, of the same fault at the same instruction: the parent was asked.
    SameInstruction,
    /// `Resume` of a task whose entry has returned: the parent was asked.
    Finished,
    /// `Resume` or `Recover` of a keeper that was in the middle of a case, which another one has by
    /// now: it began again instead.
    CaseLost,
    /// [`Recover`](Verdict::Recover) of a task that is in no `catch_fault`, or whose stack has been
    /// written over there: the parent was asked.
    NoRecoveryPoint,
    /// [`Restart`](Verdict::Restart) of a task that has nothing to begin again from: it ended.
    NoEntry,
    /// [`RestartAfter`](Verdict::RestartAfter) of one task more than may be
    /// [left to others or to time](crate::Capacity::deferred): it began again at once.
    NoRoomToWait,
    /// [`Hold`](Verdict::Hold) of one corpse more than may be kept: the task ended.
    TooManyCorpses,
    /// [`Deferred`](Verdict::Deferred) without a token: the parent was asked.
    NoToken,
    /// The verdict did not come in time, or whoever had to give it died or let its token go: the
    /// parent was asked.
    NoVerdict,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settled => "no resume or recovery of a settled task",
            Self::SameInstruction => "no resume at the same instruction for ever",
            Self::Finished => "no resume of a task that has finished",
            Self::CaseLost => "no resume or recovery of a keeper whose case is another's",
            Self::NoRecoveryPoint => "no recovery without an intact recovery point",
            Self::NoEntry => "no restart of a task without an entry",
            Self::NoRoomToWait => "no room for one more restart that waits",
            Self::TooManyCorpses => "no room for another corpse",
            Self::NoToken => "deferred without a token",
            Self::NoVerdict => "no verdict in time",
        })
    }
}
