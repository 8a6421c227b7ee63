//! The keeper: from a notice to a report.
#![expect(unsafe_code, reason = "settles tasks that the platform has stopped")]

use core::fmt;

use drop_registry::{Domain, reclaim, settle};
use task_model::{FaultInfo, TaskId};

use crate::mailbox::Mailbox;
use crate::unwind::{ImageRules, Images, UnwindTables, Walk, WalkEnd, WalkError};
use crate::{
    Cause, MailboxFull, NoSuchTask, Notice, Platform, Policy, Report, Stopped, Verdict, policy,
};

/// The most frames that are looked at to find whose a resource is.
const DEEPEST: usize = 4096;

/// Keeps the tasks of one platform.
///
/// Traps and killers [post](Self::post) to it from anywhere; the keeper's own task
/// [serves](Self::serve) what was posted, one death at a time. It never waits for a task that it
/// keeps.
pub struct Keeper<P> {
    platform: P,
    domain: Domain<'static>,
    images: Images<'static>,
    mailbox: Mailbox,
    default_policy: &'static dyn Policy,
}

impl<P: Platform> Keeper<P> {
    /// A keeper for the tasks of `platform`, whose ledgers speak of what is in `domain`, and whose
    /// frames `tables` describe, those of the kernel's own image, with room for `capacity` notices at a time: twice the number of
    /// tasks is enough for ever.
    ///
    /// Tasks that name no policy [exit](policy::Exit). Allocates the mailbox: this is the last
    /// allocation until a dead task's resources are settled.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn new(
        platform: P,
        domain: Domain<'static>,
        tables: UnwindTables<'static>,
        capacity: usize,
    ) -> Self {
        let images = Images::new();
        images.add(tables).expect("room for the first image");
        Self {
            platform,
            domain,
            images,
            mailbox: Mailbox::with_capacity(capacity),
            default_policy: &policy::Exit,
        }
    }

    /// Sets the policy of tasks that name none.
    #[must_use]
    pub fn with_default_policy(mut self, policy: &'static dyn Policy) -> Self {
        self.default_policy = policy;
        self
    }

    /// The platform.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The images whose frames have names: the one that it was made with, and what has been added
    /// since. Add a module before a task runs in it; remove it when none can any more.
    pub const fn images(&self) -> &Images<'static> {
        &self.images
    }

    /// Tells the keeper that `task` has stopped at a fault, at time `at`. For the trap that stopped
    /// it: it allocates nothing, takes no lock, and does not wait.
    ///
    /// # Errors
    /// If the mailbox is full, which it never is if its capacity is twice the number of tasks: half
    /// of it is kept for faults, and a task that has stopped cannot fault again.
    pub fn post(&self, task: TaskId, fault: FaultInfo, at: u64) -> Result<(), MailboxFull> {
        self.mailbox.post(Notice { task, cause: Cause::Fault(fault), at })
    }

    /// Ends `task`, whatever it is doing: at whatever instruction it has come to when the keeper
    /// stops it.
    ///
    /// # Errors
    /// If half of the mailbox is full: the other half is for faults. That the task is already gone shows only when the keeper
    /// [serves](Self::serve) the notice.
    pub fn kill(&self, task: TaskId) -> Result<(), MailboxFull> {
        self.send(task, Cause::Kill)
    }

    /// Lets go of a task that was [held](Verdict::Hold): frees its memory and retires it.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub fn release(&self, task: TaskId) -> Result<(), MailboxFull> {
        self.send(task, Cause::Release)
    }

    fn send(&self, task: TaskId, cause: Cause) -> Result<(), MailboxFull> {
        self.mailbox.request(Notice { task, cause, at: self.platform.now() })
    }

    /// Deals with the next notice, and tells `told` what was found and done: for the keeper's own
    /// task. Returns whether there was a notice.
    ///
    /// The report stays on this stack, since it is too large to be handed around by value; about
    /// 16 KiB of stack are enough for all of it. The notice of a task that is gone meanwhile is
    /// told as [`NoSuchTask`].
    pub fn serve(&self, told: impl FnOnce(Result<&Report, NoSuchTask>)) -> bool {
        let Some(notice) = self.mailbox.take() else { return false };
        let stopped = match self.platform.seize(notice.task) {
            Ok(stopped) => stopped,
            Err(gone) => {
                told(Err(gone));
                return true;
            }
        };
        let fault = match notice.cause {
            Cause::Fault(fault) => fault,
            Cause::Kill | Cause::Release => FaultInfo::killed(stopped.task.registers().rip),
        };
        let mut report = Report::new(notice.task, fault, notice.at);
        self.settle(&stopped, &mut report);
        self.walk(&stopped, &mut report);
        let verdict = match notice.cause {
            Cause::Release => Verdict::Exit,
            _ => stopped.policy.unwrap_or(self.default_policy).rule(&report, stopped.restarts),
        };
        self.act(verdict, stopped, &mut report);
        report.gone_at = self.platform.now();
        told(Ok(&report));
        true
    }

    /// Frees locks and counts. Before the walk, since it does not need it: whoever waits for a
    /// lock need not wait for the dead task's frames to be counted.
    fn settle(&self, stopped: &Stopped<'_>, report: &mut Report) {
        // SAFETY: `Platform::seize`: the task is stopped, the ledger is its own, and nobody else
        // has it. It is stopped for good: every verdict there is ends this life of it. What it
        // holds is alive: guards borrow their locks, shares keep their blocks, boxes own theirs.
        unsafe {
            settle(&stopped.task, stopped.ledger, &self.domain, |done| report.settled(done));
        };
        report.settled_at = self.platform.now();
        report.reclaimed_at = report.settled_at;
    }

    /// Names the frames, and the frame of each resource.
    fn walk(&self, stopped: &Stopped<'_>, report: &mut Report) {
        let mut rules = ImageRules::new(&self.images);
        let mut walk = Walk::new(stopped.task.registers(), &stopped.task, &mut rules)
            .stopped_by(&report.fault)
            .max_frames(DEEPEST);
        // Frames beyond the report's room are walked all the same: a resource may be theirs.
        for (depth, frame) in (&mut walk).enumerate() {
            report.walked(depth, frame, || self.images.landing(frame.address));
        }
        report.walk_end = walk.end().unwrap_or(WalkEnd::Partial(WalkError::TooDeep));
    }

    fn act(&self, verdict: Verdict, stopped: Stopped<'_>, report: &mut Report) {
        report.verdict = Some(verdict);
        if verdict == Verdict::Hold {
            return self.platform.hold(stopped);
        }
        self.reclaim(&stopped, report);
        if verdict == Verdict::Restart {
            match self.platform.restart(stopped) {
                Ok(next) => report.restarted_as = Some(next),
                Err(cannot) => {
                    report.verdict = Some(Verdict::Exit);
                    self.platform.retire(cannot.0);
                }
            }
        } else {
            self.platform.retire(stopped);
        }
    }

    /// Frees memory that nobody holds any more.
    fn reclaim(&self, stopped: &Stopped<'_>, report: &mut Report) {
        if stopped.ledger.is_empty() {
            return;
        }
        // SAFETY: the ledger has been settled, in this life of the task, and it is still stopped.
        unsafe { reclaim(stopped.ledger, &self.domain, |done| report.reclaimed(done)) };
        report.reclaimed_at = self.platform.now();
    }
}

impl<P> fmt::Debug for Keeper<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("mailbox", &self.mailbox).finish_non_exhaustive()
    }
}
