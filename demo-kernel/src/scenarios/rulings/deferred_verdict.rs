//! Verdicts that somebody else gives, later, by a token; which can be dropped, or come too late.

use drop_registry::LockError;
use keeper::{Case, KeeperId, Policy, Refusal, Token, TooLate, Verdict};
use task_model::TaskState;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks::Spawn;
use crate::tracked::Mutex;
use crate::{keeping, tasks};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "deferred-verdict",
    summary: "a task waits for its verdict while others are kept; no token, no verdict",
    ..Scenario::kept(run)
};

/// Leaves the verdict to whoever takes the token, for so many ticks of the platform's time.
struct Later {
    patience: u64,
    token: Mutex<Option<Token>>,
}

impl Later {
    const fn new(patience: u64) -> Self {
        Self { patience, token: Mutex::new(None) }
    }

    fn take(&self) -> Option<Token> {
        self.token.lock().ok()?.take()
    }
}

impl core::fmt::Debug for Later {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Later").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Policy for Later {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        // A policy waits for nobody.
        let Ok(mut place) = self.token.try_lock() else { return Verdict::TryNext };
        *place = case.defer(self.patience);
        Verdict::Deferred
    }
}

static ANSWERED: Later = Later::new(u64::MAX);
static DROPPED: Later = Later::new(u64::MAX);
/// Some turns of the timer.
static LATE: Later = Later::new(1_000_000);

static LOCK: Mutex<u64> = Mutex::new(0);

fn holding(_: usize) {
    let _held = LOCK.lock();
    deaths::page_fault();
}

fn failing(_: usize) {
    deaths::invalid_opcode();
}

fn run(stage: &mut Stage) {
    let task = stage.spawn_under(&ANSWERED, "holding", holding);
    let mut token = None;
    stage.wait_for("there is a token", || {
        token = ANSWERED.take();
        token.is_some()
    });
    let Some(token) = token else { return };
    stage.check("the task waits", tasks::state(task) == Ok(TaskState::Frozen));
    stage.check("its lock is its own: it may be resumed", LOCK.is_locked());

    for (policy, claim) in [(&DROPPED, "whose token is dropped"), (&LATE, "whose token is late")] {
        let other = Spawn::new("failing", failing).policy(policy).start().expect("room for a task");
        let mut given = None;
        stage.wait_for(format_args!("there is a token for the task {claim}"), || {
            given = policy.take();
            given.is_some()
        });
        // Which is kept by the one that is late.
        let late = given.filter(|_| policy.patience != u64::MAX);
        let Some(report) = stage.report_on(other) else { return };
        let refused = report.refusal == Some(Refusal::NoVerdict);
        let by_root = report.keepers.last() == Some(&KeeperId::ROOT);
        let exit = report.verdict == Some(Verdict::Exit);
        stage.check(
            format_args!("the default rules on the one {claim}"),
            refused && by_root && exit,
        );
        if let Some(late) = late {
            let answer = keeping::answer(late, Verdict::Restart);
            stage.check("the late answer is refused", answer == Err(TooLate));
        }
    }

    stage.check("the first still waits", tasks::state(task) == Ok(TaskState::Frozen));
    let answer = keeping::answer(token, Verdict::Exit);
    stage.check("its verdict is taken", answer.is_ok());
    let exit = stage.report_on(task).is_some_and(|report| report.verdict == Some(Verdict::Exit));
    stage.check("and carried out", exit);
    let told = matches!(LOCK.lock(), Err(LockError::OwnerDied(_)));
    stage.check("its lock is free, and the next owner told", told);
}
