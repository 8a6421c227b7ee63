//! What was found, and what was done.

use core::fmt;
use core::sync::atomic::{Ordering, compiler_fence};

use drop_registry::{Ledger, Outcome, ResourceKind, Settled};
use heapless::{String, Vec};
use task_model::{FaultInfo, GeneralRegisters, TaskId};

use crate::inbox::{Cause, Notice};
use crate::unwind::{Frame, FrameOrigin, Landing, MAX_FRAMES, WalkEnd};
use crate::{KeeperId, Log, Orders, Policy, Refusal, Verdict};

/// A frame of the dead task, and what the compiler knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameReport {
    /// The frame.
    pub frame: Frame,
    /// What an unwinder would find for the instruction that the frame stands at. It is here to be
    /// reported: no landing pad is run.
    pub landing: Landing,
}

/// A resource of the dead task, and what was done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// The entry of the ledger that listed it.
    pub entry: usize,
    /// What kind of resource it is.
    pub kind: ResourceKind,
    /// Its address: the lock word, the count, the block.
    pub address: u64,
    /// The stack pointer of the frame that acquired it.
    pub stack_pointer: u64,
    /// That frame's depth, which is its index in [`Report::frames`] as far as those go; `None` if
    /// it has returned, or the walk did not come so far.
    pub frame: Option<usize>,
    /// Whether that frame has returned: the guard was forgotten, or moved out of it.
    pub escaped: bool,
    /// What became of it.
    pub outcome: Outcome,
}

impl Resource {
    /// What is never shown.
    const FILLER: Self = Self {
        entry: 0,
        kind: ResourceKind::Unknown,
        address: 0,
        stack_pointer: 0,
        frame: None,
        escaped: false,
        outcome: Outcome::Refused,
    };
}

/// The most bytes of a panic's message in a report.
pub(crate) const MESSAGE: usize = 192;

/// The record of one death: what was found, and what was done.
///
/// Its [`Display`](fmt::Display) is for people, a few lines of at most 100 columns.
#[derive(Debug, Clone)]
pub struct Report {
    /// The task.
    pub task: TaskId,
    /// Why it stopped.
    pub fault: FaultInfo,
    /// What it said when it panicked, and where, if its platform
    /// [knows](crate::Platform::panic_message); what there is room for.
    pub message: String<MESSAGE>,
    /// Its registers, from when its frames were looked at.
    pub registers: Option<GeneralRegisters>,
    /// Its frames, innermost first: as many as there is room for of those that the walk found.
    pub frames: Vec<FrameReport, MAX_FRAMES>,
    /// How the walk ended.
    pub walk_end: WalkEnd,
    /// What it held, innermost first. One more than a ledger has room for: what a window had
    /// acquired, if the ledger has no place for it.
    pub resources: Log<Resource, { Ledger::CAPACITY + 1 }>,
    /// Whether what it held has been given up: not before its locks and counts are free.
    pub settled: bool,
    /// Where its stack was cut, if it was [recovered](Verdict::Recover): the stack pointer with
    /// which it went on. The resources are those that it had acquired since then, and were given
    /// up.
    pub recovered_to: Option<u64>,
    /// How far the recovery has come.
    pub(crate) recovery: Recovery,
    /// Whether its frames have been looked at.
    pub(crate) walked: bool,
    /// Whether those have been told that watch it.
    pub(crate) peers_told: bool,
    /// Whether it served a keeper, and its cases are another's by now.
    pub(crate) lost_cases: bool,
    /// Whether there may be anything here of what [`wipe`](Self::wipe) takes away.
    pub(crate) is_marked: bool,
    /// Which notice opened the case.
    pub(crate) cause: Cause,
    /// How many faults of it had been posted when the case was opened.
    pub(crate) faults: u32,
    /// The policy that the task names, which is told of its end.
    pub(crate) policy: Option<&'static dyn Policy>,
    /// How often that has been told.
    pub(crate) told: u8,
    /// The keepers that were asked, in that order; of a longer chain, the first ones.
    pub keepers: Log<KeeperId, 8>,
    /// The ruling as it was carried out; `None` while it is being made.
    pub verdict: Option<Verdict>,
    /// Why that is not what was ruled first; the last reason, if there were several.
    pub refusal: Option<Refusal>,
    /// The id of its next life, if it was restarted.
    pub restarted_as: Option<TaskId>,
    /// When it stopped, or was told to, in the platform's ticks.
    pub stopped_at: u64,
    /// When its locks and counts were free.
    pub settled_at: u64,
    /// When its memory was free too; as `settled_at` if none was to be freed.
    pub reclaimed_at: u64,
    /// When it was gone, or restarted, or held.
    pub gone_at: u64,
}

impl Report {
    /// A record to be filled in.
    pub(crate) const fn empty() -> Self {
        Self {
            task: TaskId::first(0),
            fault: FaultInfo::killed(0),
            message: String::new(),
            registers: None,
            frames: Vec::new(),
            walk_end: WalkEnd::Complete,
            resources: Log::new(Resource::FILLER),
            settled: false,
            recovered_to: None,
            recovery: Recovery::Cutting,
            walked: false,
            peers_told: false,
            lost_cases: false,
            is_marked: false,
            cause: Cause::Fault,
            faults: 0,
            policy: None,
            told: 0,
            keepers: Log::new(KeeperId::ROOT),
            verdict: None,
            refusal: None,
            restarted_as: None,
            stopped_at: 0,
            settled_at: 0,
            reclaimed_at: 0,
            gone_at: 0,
        }
    }

    /// Begins the record of another death, in place: it is large.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        notice: &Notice,
        fault: &FaultInfo,
        faults: u32,
        policy: Option<&'static dyn Policy>,
    ) {
        let stopped_at = notice.at;
        self.task = notice.task;
        self.fault = *fault;
        if self.is_marked {
            self.wipe();
        }
        debug_assert!(self.is_wiped(), "what is written into a report is marked before");
        self.cause = notice.cause;
        self.refusal = None;
        self.faults = faults;
        self.policy = policy;
        self.keepers.clear();
        self.verdict = None;
        self.stopped_at = stopped_at;
        self.settled_at = stopped_at;
        self.reclaimed_at = stopped_at;
        self.gone_at = stopped_at;
    }

    /// Notes, before that is done, that more is written than when a task is asked about and
    /// resumed.
    pub(crate) fn mark(&mut self) {
        self.is_marked = true;
        // Should the keeper die.
        compiler_fence(Ordering::SeqCst);
    }

    fn is_wiped(&self) -> bool {
        self.message.is_empty()
            && self.registers.is_none()
            && self.frames.is_empty()
            && self.walk_end == WalkEnd::Complete
            && self.resources.is_empty()
            && !self.settled
            && self.recovered_to.is_none()
            && self.recovery == Recovery::Cutting
            && !self.walked
            && !self.peers_told
            && !self.lost_cases
            && self.told == 0
            && self.restarted_as.is_none()
    }

    #[cold]
    fn wipe(&mut self) {
        self.message.clear();
        self.registers = None;
        self.frames.clear();
        self.walk_end = WalkEnd::Complete;
        self.resources.clear();
        self.settled = false;
        self.recovered_to = None;
        self.recovery = Recovery::Cutting;
        self.walked = false;
        self.peers_told = false;
        self.lost_cases = false;
        self.told = 0;
        self.restarted_as = None;
        compiler_fence(Ordering::SeqCst);
        self.is_marked = false;
    }

    /// How many resources came to this end.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.resources.iter().filter(|resource| resource.outcome == outcome).count()
    }

    /// How many resources are free again, in whatever way.
    pub fn freed(&self) -> usize {
        [
            Outcome::Released,
            Outcome::OwnerDied,
            Outcome::RolledBack,
            Outcome::Repaired,
            Outcome::Reclaimed,
        ]
        .into_iter()
        .map(|outcome| self.count(outcome))
        .sum()
    }

    /// Tells the task's policy that this life of it is over. A policy that keepers die over is told
    /// twice at most.
    pub(crate) fn tell_policy(&mut self, orders: &Orders<'_>) {
        self.mark();
        if self.told < 2 {
            self.told += 1;
            if let Some(policy) = self.policy {
                policy.ended(self, orders);
            }
            self.told = u8::MAX;
        }
    }

    /// Notes what the task said.
    pub(crate) fn note_message(&mut self, message: &str) {
        self.message.clear();
        let fits = message.floor_char_boundary(self.message.capacity());
        // As much as fits, fits.
        let _ = self.message.push_str(&message[..fits]);
    }

    /// Notes who is asked. Returns whether it is the first one.
    #[inline]
    pub(crate) fn asked(&mut self, keeper: KeeperId) -> bool {
        let first = self.keepers.has_none();
        // Full: the first ones are the ones to show.
        self.keepers.push(keeper);
        first
    }

    /// Forgets what the keeper may have been writing that died over it. It is written over, and not
    /// looked at: of what takes more than one store to write, there may be a part. What stays is
    /// single bytes, the [logs](Log), and what was written before the case could be found.
    pub(crate) fn inherited(&mut self) {
        self.message.clear();
        self.verdict = None;
        self.refusal = None;
        self.restarted_as = None;
        if self.recovery != Recovery::Cutting {
            // The walk is complete, and the task's registers are not those of the fault any more.
            return;
        }
        self.frames.clear();
        self.walked = false;
        self.walk_end = WalkEnd::Complete;
        for resource in self.resources.iter_mut() {
            resource.frame = None;
        }
    }

    /// Notes what [`drop_registry::settle`] did about one entry.
    pub(crate) fn note_settled(&mut self, settled: Settled) {
        let resource = Resource {
            entry: settled.entry,
            kind: settled.kind,
            address: settled.resource,
            stack_pointer: settled.frame,
            frame: None,
            escaped: settled.escaped,
            outcome: settled.outcome,
        };
        // Of what a settler died over it may have told; then the next one tells it again.
        match self.resources.iter_mut().find(|known| known.entry == settled.entry) {
            Some(known) => *known = resource,
            None => {
                let pushed = self.resources.push(resource);
                debug_assert!(pushed, "there is room for a whole ledger");
            }
        }
    }

    /// Notes what [`drop_registry::reclaim`] did about an entry that was orphaned.
    pub(crate) fn note_reclaimed(&mut self, settled: Settled) {
        if let Some(resource) = self.resources.iter_mut().find(|r| r.entry == settled.entry) {
            resource.outcome = settled.outcome;
        }
    }

    /// Notes a frame of the walk, and finds which resources are its own.
    pub(crate) fn note_frame(
        &mut self,
        depth: usize,
        frame: Frame,
        landing: impl FnOnce() -> Landing,
    ) {
        if let Some(cfa) = frame.cfa {
            for resource in self.resources.iter_mut() {
                if (frame.sp..cfa).contains(&resource.stack_pointer) {
                    resource.frame = Some(depth);
                }
            }
        }
        // Full after MAX_FRAMES: the innermost are the ones to show.
        if !self.frames.is_full() {
            let _ = self.frames.push(FrameReport { frame, landing: landing() });
        }
    }

    /// How many frames the registry, the compiler, or neither could clean up.
    pub fn coverage(&self) -> FrameCoverage {
        let mut coverage = FrameCoverage::default();
        for (depth, frame) in self.frames.iter().enumerate() {
            let registry = self.resources_of(depth).next().is_some();
            let compiler = matches!(frame.landing, Landing::Pad { .. });
            coverage.registry += usize::from(registry);
            coverage.landing_pad += usize::from(compiler);
            coverage.neither += usize::from(!registry && !compiler);
        }
        coverage
    }

    fn resources_of(&self, depth: usize) -> impl Iterator<Item = &Resource> {
        self.resources.iter().filter(move |resource| resource.frame == Some(depth))
    }
}

/// How far the recovery of a task has come, so that whoever goes on with it does the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// What is above the point is being given up, and the frames looked at; or there is none.
    Cutting,
    /// The registers are being put where the task goes on.
    Landing,
    /// They are. The task may run already.
    Landed,
}

/// How many of a report's frames could be cleaned up, and by what.
///
/// A frame may count for both. One that counts for neither owned nothing that the registry tracks,
/// and the compiler has no landing pad for its instruction: if it owned anything else, nobody
/// knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameCoverage {
    /// Frames of which the ledger listed a resource.
    pub registry: usize,
    /// Frames that stand at an instruction for which there is a [landing pad](Landing::Pad).
    pub landing_pad: usize,
    /// All others.
    pub neither: usize,
}

impl fmt::Display for FrameCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, landing_pad, neither } = self;
        write!(
            f,
            "frames with entries {registry}, with a landing pad {landing_pad}, with neither {neither}"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "task {}: {}", self.task, self.fault)?;
        for line in self.message.lines() {
            writeln!(f, "  {line}")?;
        }
        if let Some(registers) = &self.registers {
            writeln!(f, "{registers}")?;
        }
        for (index, frame) in self.frames.iter().enumerate() {
            write_frame(f, index, frame)?;
            for resource in self.resources_of(index) {
                writeln!(f, "        {resource}")?;
            }
        }
        writeln!(f, "  walk {}", self.walk_end)?;
        writeln!(f, "  {}", self.coverage())?;
        let unseen = |resource: &&Resource| resource.frame.is_none_or(|n| n >= self.frames.len());
        for resource in self.resources.iter().filter(unseen) {
            match resource.frame {
                Some(depth) => writeln!(f, "  of frame #{depth}: {resource}")?,
                None => writeln!(f, "  of no frame in sight: {resource}")?,
            }
        }
        let since = |at: u64| at.saturating_sub(self.stopped_at);
        if let [_, others @ ..] = &self.keepers[..]
            && !others.is_empty()
        {
            write!(f, "  asked:")?;
            self.keepers.iter().try_for_each(|keeper| write!(f, " {keeper}"))?;
            writeln!(f)?;
        }
        if let Some(refusal) = self.refusal {
            writeln!(f, "  {refusal}")?;
        }
        if let Some(stack_pointer) = self.recovered_to {
            let after = since(self.settled_at);
            write!(f, "  settled below stack {stack_pointer:#x} after {after} ticks")?;
        } else if self.settled {
            write!(f, "  settled after {} ticks", since(self.settled_at))?;
        } else {
            write!(f, "  not settled")?;
        }
        if self.reclaimed_at != self.settled_at {
            write!(f, ", memory free after {}", since(self.reclaimed_at))?;
        }
        match (self.verdict, self.restarted_as) {
            (None, _) => write!(f, "; no verdict yet"),
            (Some(verdict), None) => write!(f, "; {verdict} after {}", since(self.gone_at)),
            (Some(verdict), Some(id)) => {
                write!(f, "; {verdict} as {id} after {}", since(self.gone_at))
            }
        }
    }
}

fn write_frame(f: &mut fmt::Formatter<'_>, index: usize, report: &FrameReport) -> fmt::Result {
    let FrameReport { frame, landing } = report;
    let address = frame.address.address();
    write!(f, "  #{index:<2} {address:#x}")?;
    if let Some(function) = frame.function {
        write!(f, " = {function:#x}+{:#x}", address.wrapping_sub(function))?;
    }
    match frame.origin {
        FrameOrigin::Interrupted => write!(f, ", interrupted")?,
        FrameOrigin::TopOfStack => write!(f, ", guessed from the top of the stack")?,
        FrameOrigin::Stopped | FrameOrigin::Caller => {}
    }
    match frame.cfa {
        Some(cfa) => writeln!(f, ", stack {:#x}..{cfa:#x}", frame.sp)?,
        None => writeln!(f, ", stack {:#x}..?", frame.sp)?,
    }
    match landing {
        // The same for every frame, so it tells nothing of this one.
        Landing::Unknown => Ok(()),
        landing => writeln!(f, "        {landing}"),
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}: {}", self.kind, self.address, self.outcome)?;
        if self.escaped { f.write_str(" (escaped)") } else { Ok(()) }
    }
}
