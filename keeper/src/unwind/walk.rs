//! The steps in a row: a task's frames, innermost first.

use core::fmt;
use core::iter::FusedIterator;

use task_model::{FaultInfo, Gpr, RegisterFile, StackMemory};

use super::step::{Call, find_call, step_by_any_rules, step_from_nowhere};
use super::{FrameAddress, FrameState, RuleSource, Step, UnwindRegisters, WalkError};

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

/// Which frame comes next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The innermost.
    Stopped,
    /// Who made this call, which made the last frame.
    Caller(Call),
    /// This, found in this way.
    Found(FrameState, FrameOrigin),
    /// None, for this reason.
    Nothing(WalkEnd),
}

/// It goes on, and nobody looked.
const TOO_DEEP: WalkEnd = WalkEnd::Partial(WalkError::TooDeep);

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
    next: Next,
    frames_left: usize,
    fetch_failed: bool,
}

impl<'w, M: StackMemory + ?Sized, S: RuleSource> Walk<'w, M, S> {
    /// A walk of the task that stopped with `registers` on the stack in `memory`.
    pub fn new(registers: &RegisterFile, memory: &'w M, source: &'w mut S) -> Self {
        Self {
            memory,
            source,
            last: FrameState::from(registers),
            next: Next::Stopped,
            frames_left: MAX_FRAMES,
            fetch_failed: false,
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
        match self.next {
            Next::Nothing(end) => Some(end),
            _ => None,
        }
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
        let (Next::Caller(call), Some(frames_left)) = (self.next, self.frames_left.checked_sub(1))
        else {
            return self.next_otherwise().ok();
        };
        self.frames_left = frames_left;
        let Some((frame, next)) = self.caller(call) else {
            return Some(self.end_of_last(FrameOrigin::Caller));
        };
        self.next = Next::Caller(next);
        Some(frame)
    }
}

impl<M: StackMemory + ?Sized, S: RuleSource> Walk<'_, M, S> {
    /// Gives out all frames that are left, each with what its registers hold, and returns how the
    /// walk ended.
    ///
    /// A loop over the iterator does the same; this is quicker, since what leads from a frame to
    /// its caller need not be put down in between.
    pub fn run(&mut self, mut each: impl FnMut(&Frame, &UnwindRegisters)) -> WalkEnd {
        loop {
            if let Next::Caller(mut call) = self.next {
                // What it is if nothing else is found, or if `each` panics.
                self.next = Next::Nothing(TOO_DEEP);
                while let Some(frames_left) = self.frames_left.checked_sub(1) {
                    self.frames_left = frames_left;
                    let Some((frame, next)) = self.caller(call) else {
                        let frame = self.end_of_last(FrameOrigin::Caller);
                        each(&frame, self.registers());
                        break;
                    };
                    call = next;
                    each(&frame, self.registers());
                }
            }
            match self.next_otherwise() {
                Ok(frame) => each(&frame, self.registers()),
                Err(end) => return end,
            }
        }
    }

    /// The frame that made this call, and the call that made it, if that is simple. The last frame
    /// is that one then.
    #[inline]
    fn caller(&mut self, call: Call) -> Option<(Frame, Call)> {
        call.undo(&mut self.last, self.memory);
        let (function, next) = call.find_next(&self.last, self.memory, self.source)?;
        let frame = Frame {
            address: FrameAddress::ReturnAddress(call.return_address()),
            origin: FrameOrigin::Caller,
            sp: call.cfa(),
            cfa: Some(next.cfa()),
            function: Some(function),
            signal_frame: false,
        };
        Some((frame, next))
    }

    /// [`next`](Self::next) for a frame that is not a call's caller, or is one too many; or the
    /// end.
    #[cold]
    #[inline(never)]
    fn next_otherwise(&mut self) -> Result<Frame, WalkEnd> {
        if let Next::Nothing(end) = self.next {
            return Err(end);
        }
        let Some(frames_left) = self.frames_left.checked_sub(1) else {
            self.next = Next::Nothing(TOO_DEEP);
            return Err(TOO_DEEP);
        };
        self.frames_left = frames_left;
        let origin = match &self.next {
            Next::Found(state, origin) => {
                self.last = *state;
                *origin
            }
            _ => FrameOrigin::Stopped,
        };
        let Some((function, call)) = find_call(&self.last, self.memory, self.source) else {
            return Ok(self.end_of_last(origin));
        };
        let mut frame = self.last_frame(origin);
        frame.cfa = Some(call.cfa());
        frame.function = Some(function);
        self.next = Next::Caller(call);
        Ok(frame)
    }

    /// The last frame, without an end.
    fn last_frame(&self, origin: FrameOrigin) -> Frame {
        Frame {
            address: self.last.address,
            origin,
            // Every step but the first gives a state with a stack pointer, and so does the first.
            sp: self.last.registers.get(Gpr::Rsp).unwrap_or_default(),
            cfa: None,
            function: None,
            signal_frame: false,
        }
    }

    /// The last frame, and its end; and finds its caller, or the walk's end.
    #[cold]
    #[inline(never)]
    fn end_of_last(&mut self, origin: FrameOrigin) -> Frame {
        let mut frame = self.last_frame(origin);
        let partial = |error| Next::Nothing(WalkEnd::Partial(error));
        self.next = match step_by_any_rules(&self.last, self.memory, self.source) {
            Ok(Step { function, signal_frame, cfa, caller }) => {
                frame.cfa = Some(cfa);
                frame.function = Some(function);
                frame.signal_frame = signal_frame;
                let origin =
                    if signal_frame { FrameOrigin::Interrupted } else { FrameOrigin::Caller };
                caller.map_or(Next::Nothing(WalkEnd::Complete), |it| Next::Found(it, origin))
            }
            Err(WalkError::NoFde(_)) if self.fetch_failed && origin == FrameOrigin::Stopped => {
                match step_from_nowhere(&self.last, self.memory, self.source) {
                    Ok((cfa, caller)) => {
                        frame.cfa = Some(cfa);
                        Next::Found(caller, FrameOrigin::TopOfStack)
                    }
                    Err(error) => partial(error),
                }
            }
            Err(error) => partial(error),
        };
        frame
    }
}

impl<M: StackMemory + ?Sized, S: RuleSource> FusedIterator for Walk<'_, M, S> {}
