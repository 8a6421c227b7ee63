//! Plays a scene, and kills one of its tasks before each instruction that it executes.
//!
//! Each death happens in a child process, which goes on with the others and looks at what is
//! left, while the scene itself goes on by one instruction: so all deaths are of one play.
#![expect(unsafe_code, reason = "forks")]

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use drop_registry::hosted::{Machine, Stop};
use task_model::TaskId;

/// What looks at the resources once the task with this index has been killed, with the indices of the
/// others.
type Check = Box<dyn Fn(&mut Machine, usize, &[usize])>;

/// Some tasks, and what must hold after one of them has been killed and the others have gone on.
pub(crate) struct Scene {
    /// They take turns in this order. Each begins by yielding.
    pub(crate) tasks: Vec<TaskId>,
    /// Told which task was killed, right after it was settled.
    pub(crate) died: Box<dyn Fn(usize)>,
    /// Told which task was killed, and which others sleep for ever.
    pub(crate) check: Check,
}

/// How often a task was killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Played {
    pub(crate) killed: u64,
}

/// No death leaves the others with more to do than this.
const SECONDS: libc::c_uint = 20;

/// Kills each task of the scene before each of its instructions, and while it sleeps.
pub(crate) fn kill_everywhere(scene: impl Fn(&mut Machine) -> Scene) -> Played {
    static SHOW_PANICS: Once = Once::new();
    // The output that a test captures would end with the child.
    SHOW_PANICS.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let _ = writeln!(std::io::stderr(), "{panic}");
        }));
    });
    let mut killed = 0;
    for victim in 0.. {
        let mut machine = Machine::new();
        let scene = scene(&mut machine);
        if victim == scene.tasks.len() {
            break;
        }
        killed += kill_one_everywhere(&mut machine, &scene, victim);
    }
    println!("{killed} deaths");
    Played { killed }
}

fn kill_one_everywhere(machine: &mut Machine, scene: &Scene, victim: usize) -> u64 {
    for task in &scene.tasks {
        assert_eq!(machine.run(*task, None), Stop::Yielded);
    }
    let mut killed = 0;
    while machine.is_alive(scene.tasks[victim]) {
        for (role, task) in scene.tasks.iter().enumerate() {
            if !machine.is_alive(*task) {
                continue;
            }
            let stop = loop {
                if role != victim {
                    break machine.run(*task, None);
                }
                in_child(&format!("task {role}, death {killed}"), || {
                    machine.kill(*task);
                    (scene.died)(role);
                    let asleep = run_others(machine, &scene.tasks);
                    (scene.check)(machine, role, &asleep);
                });
                killed += 1;
                match machine.run(*task, Some(1)) {
                    Stop::BudgetSpent => {}
                    stop => break stop,
                }
            };
            assert!(
                matches!(stop, Stop::Yielded | Stop::Parked | Stop::Finished),
                "task {role}, with nobody killed: {stop:?}",
            );
        }
    }
    killed
}

/// Runs all that are alive until they have finished, and returns those that sleep for ever.
fn run_others(machine: &mut Machine, tasks: &[TaskId]) -> Vec<usize> {
    match machine.run_all() {
        Ok(()) => Vec::new(),
        Err((_, Stop::Parked)) => {
            (0..tasks.len()).filter(|role| machine.is_alive(tasks[*role])).collect()
        }
        Err((task, stop)) => panic!("after the death task {task}: {stop:?}"),
    }
}

/// Does `body` in a child process.
fn in_child(what: &str, body: impl FnOnce()) {
    // SAFETY: the child has this thread alone. Unless it fails, it uses no lock that another one may
    // hold but the allocator's, which `fork` looks after; and it leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: ends the child if it takes too long.
            unsafe { libc::alarm(SECONDS) };
            let passed = std::panic::catch_unwind(AssertUnwindSafe(body)).is_ok();
            // SAFETY: ends the child.
            unsafe { libc::_exit(if passed { 0 } else { 1 }) };
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child);
            assert_eq!(status, 0, "{what}");
        }
    }
}
