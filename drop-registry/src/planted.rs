//! Bugs to be planted, so that the proofs can be proved: each must make them fail.
//!
//! Nothing of this exists without the feature `planted-bugs`.

use core::sync::atomic::{AtomicU8, Ordering};

/// A mistake that one could make in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Bug {
    /// The entry is written outside of any window: a lock just taken is not in the ledger.
    RecordOutsideWindow = 1,
    /// The entry is removed outside of any window: a lock just released is still in the ledger.
    EraseOutsideWindow,
    /// The zero flag is not looked at: a failed compare-exchange counts as a success.
    ZeroFlagIgnored,
    /// Windows begin one instruction early: before the locked instruction.
    WindowEarly,
    /// Windows end at the last instruction, instead of after it.
    WindowShort,
    /// Windows end one instruction late. What is complete may be completed again; but where one ends
    /// that has failed, nothing has happened.
    WindowLong,
    /// The record names the wrong register for the resource or the entry.
    WrongRegister,
    /// A decrement to zero is taken for an ordinary one.
    LastIsOrdinary,
    /// An ordinary decrement is taken for one to zero.
    OrdinaryIsLast,
    /// Nobody looks at the window that a dead settler stood in.
    NoTakeOver,
    /// A dead task's lock is released like a living one's: nobody is told.
    SilentRelease,
    /// Settling again completes the last window again.
    NoWatermark,
    /// An entry is erased before its resource is given up.
    EraseFirst,
    /// The copy that closing gaps leaves for an instant counts as an entry.
    CopyCounts,
    /// A block counts as taken though somebody else was faster.
    TakenUnseen,
    /// A value whose destructor has begun is dropped once more.
    DropAgain,
    /// A dead task's value is put in quarantine that may be dropped.
    QuarantineAlways,
    /// An arena is used on after a death inside its allocator.
    TornArenaUsed,
    /// A clone is handed over without being counted.
    UncountedHandedOver,
    /// Changes count from the first of them on, before the unlock.
    CommittedEarly,
    /// What a dead owner was writing becomes the value.
    RestoredFromScratch,
    /// A value counts as made before it is whole.
    DoneBeforeWhole,
    /// A value whose maker died counts as made.
    DeathCompletes,
    /// A foreign lock is unlocked after the one that says whose it is.
    OursFirst,
    /// A channel's end that a dead task left behind is not taken on by the others.
    NobodyHelps,
    /// A repair routine that somebody died in is run once more.
    RepairedAgain,
    /// A dead waiter takes the wake-up that it was given with it.
    WakeUpDies,
    /// Nobody is woken for a holder that died after its unlock and before the wake-up.
    UnlockForgetsWake,
    /// As that, for a read-write lock's writer.
    WriterForgetsWake,
    /// Nobody is woken for a reader that died after it left, or while it read.
    ReaderForgetsWake,
    /// Nobody is woken for a task that died after it gave its permit back.
    PermitForgetsWake,
    /// A permit is given back by one exchange, whether that succeeds or not.
    GivenBackOnce,
    /// A waiter that a dead waker had chosen is not unparked again.
    UnparkedOnce,
    /// A waiter enters the queue before its ledger says so.
    BitBeforeEntry,
    /// A waiter enters the queue only after it has looked for the last time.
    QueuedAfterLook,
    /// A task takes its token by a load and a store.
    TokenInTwoSteps,
    /// What was handed over leaves a null behind, as those entries have that are beyond the last.
    GapIsNull,
    /// What a window has recorded is written over by the next one.
    CursorStays,
    /// A dead reader is taken off the count before the mark of its death is set.
    ReaderMarkedLate,
    /// What a dead reader left in a foreign lock is not cleared by the next writer.
    LeftoversStay,
    /// It is cleared by a writer who has not yet waited for the readers that live.
    ClearedInFront,
    /// A recovery gives up what was acquired before its point, too.
    CutTooDeep,
    /// A recovery goes to the outermost point.
    OutermostCounts,
    /// After a recovery, the last window of the task counts as resolved.
    WatermarkStays,
    /// A value that its dead owner had borrowed mutably is dropped.
    DroppedThoughLent,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 45] = [
        Self::RecordOutsideWindow,
        Self::EraseOutsideWindow,
        Self::ZeroFlagIgnored,
        Self::WindowEarly,
        Self::WindowShort,
        Self::WindowLong,
        Self::WrongRegister,
        Self::LastIsOrdinary,
        Self::OrdinaryIsLast,
        Self::NoTakeOver,
        Self::SilentRelease,
        Self::NoWatermark,
        Self::EraseFirst,
        Self::CopyCounts,
        Self::TakenUnseen,
        Self::DropAgain,
        Self::QuarantineAlways,
        Self::TornArenaUsed,
        Self::UncountedHandedOver,
        Self::CommittedEarly,
        Self::RestoredFromScratch,
        Self::DoneBeforeWhole,
        Self::DeathCompletes,
        Self::OursFirst,
        Self::NobodyHelps,
        Self::RepairedAgain,
        Self::WakeUpDies,
        Self::UnlockForgetsWake,
        Self::WriterForgetsWake,
        Self::ReaderForgetsWake,
        Self::PermitForgetsWake,
        Self::GivenBackOnce,
        Self::UnparkedOnce,
        Self::BitBeforeEntry,
        Self::QueuedAfterLook,
        Self::TokenInTwoSteps,
        Self::GapIsNull,
        Self::CursorStays,
        Self::ReaderMarkedLate,
        Self::LeftoversStay,
        Self::ClearedInFront,
        Self::CutTooDeep,
        Self::OutermostCounts,
        Self::WatermarkStays,
        Self::DroppedThoughLent,
    ];
}

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants `bug`, for the rest of the process.
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, Ordering::Relaxed);
}

/// Whether `bug` is planted.
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}
