//! How often is too often.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many restarts a supervisor puts up with: `max` in any time of `period` ticks, and not one
/// more.
///
/// The period slides: what counts are the restarts between now and `period` ago, not those since
/// some mark on a clock. So there is no moment at which the count starts anew and twice as many
/// pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartIntensity {
    /// The most restarts, up to [`RestartIntensity::MOST`]. With 0, the first failure is one too
    /// many.
    pub max: u32,
    /// In ticks. A child that lives longer than this counts as sound again: see
    /// [`Backoff`](super::Backoff).
    pub period: u64,
}

impl RestartIntensity {
    /// The most restarts that can be counted.
    pub const MOST: u32 = 16;

    /// Never too often. For a supervisor whose [`Backoff`](super::Backoff) alone keeps it from
    /// spinning.
    pub const fn unlimited(period: u64) -> Self {
        Self { max: u32::MAX, period }
    }

    pub(super) const fn is_valid(&self) -> bool {
        self.max <= Self::MOST || self.max == u32::MAX
    }
}

/// When the last restarts were: a ring, as long as the intensity's `max`.
pub(super) struct Restarts {
    at: [AtomicU64; RestartIntensity::MOST as usize],
    next: AtomicUsize,
}

/// There has been none.
const NEVER: u64 = u64::MAX;

impl Restarts {
    pub(super) const fn none() -> Self {
        let at = [const { AtomicU64::new(NEVER) }; RestartIntensity::MOST as usize];
        Self { at, next: AtomicUsize::new(0) }
    }

    /// Counts one more restart, unless that is one too many.
    ///
    /// If the keeper dies between the two stores, the restart is not counted; it was not made,
    /// either. What is left in its place is over, so it is not in the way of others.
    pub(super) fn admit(&self, now: u64, intensity: RestartIntensity) -> bool {
        if intensity.max == u32::MAX {
            return true;
        }
        // Relaxed, all of them: a keeper decides at a time, and cases are handed on with Release.
        let next = self.next.load(Ordering::Relaxed);
        // With `max` of them in the ring, the oldest is in the way of one more.
        let Some(oldest) = self.at[..intensity.max as usize].get(next) else { return false };
        let at = oldest.load(Ordering::Relaxed);
        if at != NEVER && now.saturating_sub(at) <= intensity.period {
            return false;
        }
        self.next.store((next + 1) % intensity.max as usize, Ordering::Relaxed);
        // Release: not before the line above, for whoever comes after a keeper that dies here.
        oldest.store(now, Ordering::Release);
        true
    }

    /// All that it remembers.
    #[cfg(test)]
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let at = self.at.iter().map(|at| at.load(Ordering::Relaxed));
        at.chain([self.next.load(Ordering::Relaxed) as u64])
    }

    /// Forgets all of them: the supervisor itself begins anew.
    pub(super) fn forget(&self) {
        for at in &self.at {
            at.store(NEVER, Ordering::Relaxed);
        }
        self.next.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn admitted(times: &[u64], intensity: RestartIntensity) -> Vec<u64> {
        let restarts = Restarts::none();
        times.iter().copied().filter(|now| restarts.admit(*now, intensity)).collect()
    }

    #[test]
    fn the_period_slides() {
        let intensity = RestartIntensity { max: 2, period: 10 };
        // By a count that starts anew every ten ticks, 19, 20 and 21 would all pass.
        assert_eq!(admitted(&[10, 19, 20, 21, 29, 30, 31], intensity), [10, 19, 21, 30]);
    }

    #[test]
    fn none_at_all_and_no_end() {
        assert!(admitted(&[0, 1000], RestartIntensity { max: 0, period: 0 }).is_empty());
        assert_eq!(admitted(&[5; 100], RestartIntensity::unlimited(10)).len(), 100);
    }

    #[test]
    fn what_is_forgotten_does_not_count() {
        let intensity = RestartIntensity { max: 1, period: 10 };
        let restarts = Restarts::none();
        assert!(restarts.admit(0, intensity) && !restarts.admit(10, intensity));
        restarts.forget();
        assert!(restarts.admit(10, intensity));
    }

    proptest! {
        /// In every window of the period, wherever it begins, there are at most `max`; and a
        /// restart is refused only if there have been as many.
        #[test]
        fn every_window_obeys(
            steps in prop::collection::vec(0_u64..20, 0..200),
            max in 0..=RestartIntensity::MOST,
            period in 0_u64..100,
        ) {
            let intensity = RestartIntensity { max, period };
            let times: Vec<_> =
                steps.iter().scan(0, |now, step| { *now += step; Some(*now) }).collect();
            let restarts = Restarts::none();
            let mut admitted = Vec::new();
            for now in times {
                let within = admitted.iter().filter(|at| now - **at <= period).count();
                let admits = restarts.admit(now, intensity);
                prop_assert_eq!(admits, within < max as usize);
                if admits {
                    admitted.push(now);
                }
            }
        }
    }
}
