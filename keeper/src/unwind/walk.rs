//! The steps in a row: a task's frames, innermost first.

use core::fmt;
use core::iter::FusedIterator;

use task_model::{FaultInfo, Gpr, RegisterFile, StackMemory};

use super::step::{Found, step_from_nowhere, step_into};
use super::{FrameAddress, FrameState, RuleSource, UnwindRegisters, WalkError};

/// The most frames that a walk yields unless [`Walk::max_frames`] says otherwise.
pub const MAX_FRAMES: usize = 64;

/// How a frame was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameOrigin {
    /// It is the innermost frame: the task's own registers name it.
    Stopped,
    /// The tables of its callee name it.
    Caller,
    /// The tables of a signal frame name it: it was interrupted.
    Interrupted,
    /// Its callee is not in the tables. The word on top of the stack names it, after a call that
    /// went nowhere. Less sure than the others.
    TopOfStack,
}

/// One frame of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where it stands.
    pub address: FrameAddress,
    /// How it was found.
    pub origin: FrameOrigin,
    /// Its stack pointer there.
    pub sp: u64,
    /// One past its highest byte (see [`Step::cfa`](super::Step::cfa)), so that the frame is
    /// `sp..cfa`. `None` only in the last frame of a partial walk, whose end could not be found.
    pub cfa: Option<u64>,
    /// Where its function begins; `None` if it is not known.
    pub function: Option<u64>,
    /// Whether it is a trap's or a signal's frame.
    pub signal_frame: bool,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkEnd {
    /// The last frame is the task's entry: its return address is undefined by the tables.
    Complete,
    /// There are, or may be, more frames; this is why they were not found.
    Partial(WalkError),
}

impl fmt::Display for WalkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Partial(error) => write!(f, "partial: {error}"),
        }
    }
}

/// A walk of a frozen task's frames, innermost first.
///
/// An iterator over [`Frame`]s; when it has given out the last, [`Walk::end`] says what that means.
/// The innermost frame is always given out, and so is every other whose address is known.
///
/// ```no_run
/// use keeper::unwind::{EhFrameRules, UnwindTables, Walk};
/// use task_model::{FaultInfo, FrozenTask};
///
/// fn show(task: &FrozenTask<'_>, fault: &FaultInfo, tables: UnwindTables<'static>) {
///     let mut rules = EhFrameRules::new(tables);
///     let mut walk = Walk::new(task.registers(), task, &mut rules).stopped_by(fault);
///     for frame in &mut walk {
///         log(frame.address.address(), frame.function);
///     }
///     assert!(walk.end().is_some());
/// }
/// # fn log(_: u64, _: Option<u64>) {}
/// ```
#[derive(Debug)]
pub struct Walk<'w, M: ?Sized, S> {
    memory: &'w M,
    source: &'w mut S,
    /// The frame that was given out last; before the first, that.
    last: FrameState,
    /// Its caller; all of it, or, if the stack pointer is here, what a compact rule gives.
    caller: FrameState,
    caller_by_compact_rule: Option<u64>,
    /// How the frame to be given out next was found, if there is one.
    next: Option<FrameOrigin>,
    frames_left: usize,
    fetch_failed: bool,
    end: Option<WalkEnd>,
}

impl<'w, M: StackMemory + ?Sized, S: RuleSource> Walk<'w, M, S> {
    /// A walk of the task that stopped with `registers` on the stack in `memory`.
    pub fn new(registers: &RegisterFile, memory: &'w M, source: &'w mut S) -> Self {
        Self {
            memory,
            source,
            last: FrameState::from(registers),
            caller: FrameState::UNKNOWN,
            caller_by_compact_rule: None,
            next: Some(FrameOrigin::Stopped),
            frames_left: MAX_FRAMES,
            fetch_failed: false,
            end: None,
        }
    }

    /// Says what stopped the task.
    ///
    /// It matters for one kind of fault: if the address that could not be accessed is that of the
    /// instruction itself, the task called something that is no code. Then, and only if there is
    /// no function at that address, the word at the stack pointer is tried once as the return
    /// address of that call.
    pub fn stopped_by(mut self, fault: &FaultInfo) -> Self {
        self.fetch_failed = fault.address == Some(fault.instruction_pointer);
        self
    }

    /// Sets the most frames to give out, in place of [`MAX_FRAMES`].
    pub const fn max_frames(mut self, limit: usize) -> Self {
        self.frames_left = limit;
        self
    }

    /// How the walk ended, or `None` as long as it has not.
    pub const fn end(&self) -> Option<WalkEnd> {
        self.end
    }

    /// What the registers held in the frame that was given out last; before the first, in that.
    pub const fn registers(&self) -> &UnwindRegisters {
        &self.last.registers
    }
}

impl<M: StackMemory + ?Sized, S: RuleSource> Iterator for Walk<'_, M, S> {
    type Item = Frame;

    #[inline]
    fn next(&mut self) -> Option<Frame> {
        let origin = self.next.take()?;
        let Some(frames_left) = self.frames_left.checked_sub(1) else {
            self.end = Some(WalkEnd::Partial(WalkError::TooDeep));
            return None;
        };
        self.frames_left = frames_left;
        if let Some(sp) = self.caller_by_compact_rule {
            self.last.set_to_compact(&self.caller, sp);
        } else if origin != FrameOrigin::Stopped {
            self.last = self.caller;
        }
        let (state, caller) = (&self.last, &mut self.caller);
        let mut frame = Frame {
            address: state.address,
            origin,
            // Every step but the first gives a state with a stack pointer, and so does the first.
            sp: state.registers.get(Gpr::Rsp).unwrap_or_default(),
            cfa: None,
            function: None,
            signal_frame: false,
        };

        match step_into(caller, state, self.memory, self.source) {
            Ok(Found { function, signal_frame, cfa, has_caller, by_compact_rule }) => {
                self.caller_by_compact_rule = by_compact_rule.then_some(cfa);
                frame.cfa = Some(cfa);
                frame.function = Some(function);
                frame.signal_frame = signal_frame;
                let origin =
                    if signal_frame { FrameOrigin::Interrupted } else { FrameOrigin::Caller };
                if has_caller {
                    self.next = Some(origin);
                } else {
                    self.end = Some(WalkEnd::Complete);
                }
            }
            Err(WalkError::NoFde(_)) if self.fetch_failed && origin == FrameOrigin::Stopped => {
                match step_from_nowhere(state, self.memory, self.source) {
                    Ok((cfa, from_nowhere)) => {
                        *caller = from_nowhere;
                        self.caller_by_compact_rule = None;
                        frame.cfa = Some(cfa);
                        self.next = Some(FrameOrigin::TopOfStack);
                    }
                    Err(error) => self.end = Some(WalkEnd::Partial(error)),
                }
            }
            Err(error) => self.end = Some(WalkEnd::Partial(error)),
        }
        Some(frame)
    }
}

impl<M: StackMemory + ?Sized, S: RuleSource> FusedIterator for Walk<'_, M, S> {}
