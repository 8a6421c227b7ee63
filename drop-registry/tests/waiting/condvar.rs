//! Waiting for what a lock protects.

use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::{Condvar, LockError, Mutex, MutexGuard, Park, WaitStrategy};
use spin::relax::RelaxStrategy;

use crate::sweep::{Scene, kill_everywhere};

/// Spinning, on a machine where only one task runs.
struct Yield;

impl RelaxStrategy for Yield {
    fn relax() {
        yield_now();
    }
}

/// A queue of jobs, of which only the length matters.
struct Shared<R: WaitStrategy<Hosted>> {
    jobs: Mutex<u32, Hosted, R>,
    posted: Condvar<Hosted>,
}

impl<R: WaitStrategy<Hosted> + 'static> Shared<R> {
    fn leaked() -> &'static Self {
        Box::leak(Box::new(Self { jobs: Mutex::new(0), posted: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, u32, Hosted, R> {
        match self.jobs.lock() {
            Ok(jobs) => jobs,
            Err(LockError::OwnerDied(died)) => died.mark_consistent(),
            Err(error) => panic!("{error}"),
        }
    }

    fn post(&self) {
        self.posted
            .notify_one_after(|| {
                *self.lock() += 1;
                yield_now();
            })
            .unwrap();
    }

    fn take(&self) {
        loop {
            let taken = self.posted.wait_until(&self.jobs, |jobs| {
                *jobs = jobs.checked_sub(1)?;
                Some(())
            });
            match taken {
                Ok(()) => return,
                Err(LockError::OwnerDied(died)) => drop(died.mark_consistent()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn take_by_wait(&self) {
        let mut jobs = self.lock();
        while *jobs == 0 {
            jobs = match self.posted.wait(jobs) {
                Ok(jobs) => jobs,
                Err(LockError::OwnerDied(died)) => died.mark_consistent(),
                Err(error) => panic!("{error}"),
            };
        }
        *jobs -= 1;
    }

    /// How many jobs are left, and whether somebody died with the lock and nobody has been told.
    fn left(&'static self, machine: &mut Machine) -> (u32, bool) {
        let shown = format!("{:?}", self.jobs);
        assert!(shown.contains("held: false"), "{shown}");
        let untold = shown.contains("owner_died: true");
        let left = Box::leak(Box::new(std::sync::atomic::AtomicU32::new(0)));
        let looks =
            machine.spawn(|| left.store(*self.lock(), std::sync::atomic::Ordering::Relaxed));
        assert_eq!(machine.run(looks, None), Stop::Finished);
        (left.load(std::sync::atomic::Ordering::Relaxed), untold)
    }
}

fn no_job_lies_beside_a_sleeper<R: WaitStrategy<Hosted> + 'static>(
    take: fn(&Shared<R>),
    excused: fn(untold: bool) -> bool,
) {
    let played = kill_everywhere(|machine| {
        let shared = Shared::<R>::leaked();
        let takes = move || {
            yield_now();
            take(shared);
        };
        let posts = move || {
            yield_now();
            shared.post();
            shared.post();
        };
        Scene {
            tasks: vec![machine.spawn(takes), machine.spawn(takes), machine.spawn(posts)],
            died: Box::new(|_| ()),
            check: Box::new(move |machine, victim, asleep| {
                let (left, untold) = shared.left(machine);
                if !excused(untold) {
                    assert!(asleep.is_empty() || left == 0, "{left} left beside {asleep:?}");
                    assert!(victim == 2 || asleep.is_empty());
                }
                assert_eq!(shared.posted.is_idle(), asleep.is_empty());
            }),
        }
    });
    assert!(played.killed > 100, "{played:?}");
}

#[test]
fn whoever_dies_no_job_lies_beside_a_sleeper() {
    no_job_lies_beside_a_sleeper::<Park>(Shared::take, |_| false);
}

#[test]
fn the_same_under_a_lock_that_spins() {
    no_job_lies_beside_a_sleeper::<Yield>(Shared::take, |_| false);
}

/// But for the death of who had returned from `wait` and held the lock.
#[test]
fn the_same_for_plain_wait_unless_the_death_is_the_next_lockers_to_learn() {
    no_job_lies_beside_a_sleeper::<Park>(Shared::take_by_wait, |untold| untold);
}

#[test]
fn all_are_notified_whoever_dies() {
    kill_everywhere(|machine| {
        let shared = Shared::<Park>::leaked();
        let takes = move || {
            yield_now();
            shared.take();
        };
        let posts = move || {
            yield_now();
            shared.posted.notify_all_after(|| *shared.lock() += 2).unwrap();
        };
        Scene {
            tasks: vec![machine.spawn(takes), machine.spawn(takes), machine.spawn(posts)],
            died: Box::new(|_| ()),
            check: Box::new(move |machine, victim, asleep| {
                let (left, _) = shared.left(machine);
                assert!(asleep.is_empty() || left == 0, "{left} left beside {asleep:?}");
                assert!(victim == 2 || asleep.is_empty());
            }),
        }
    });
}
