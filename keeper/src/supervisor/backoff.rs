//! How long to wait before a restart.

/// How long a failed child waits for its restart, in ticks.
///
/// What counts is how often it has failed *in a row*: each time within the
/// [period](super::RestartIntensity::period) after its last restart. One that has lived longer than
/// that begins from the first delay again.
///
/// A child whose delays together are longer than the period never fails too often: the supervisor
/// then tries for ever, at the pace of the backoff. That may be what is wanted, with
/// [`RestartIntensity::unlimited`](super::RestartIntensity::unlimited), but should not come as a
/// surprise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backoff {
    /// It is restarted at once.
    None,
    /// Always as long.
    Fixed(u64),
    /// `step` longer each time: once, twice, three times as long, up to `cap`.
    Linear {
        /// The first delay, and by how much it grows.
        step: u64,
        /// The longest delay.
        cap: u64,
    },
    /// Twice as long each time: once, twice, four times as long, up to `cap`.
    Exponential {
        /// The first delay.
        first: u64,
        /// The longest delay.
        cap: u64,
    },
}

impl Backoff {
    /// The delay before a restart, if so many came before it in a row.
    pub const fn delay(self, before: u32) -> u64 {
        let (delay, cap) = match self {
            Self::None => (0, 0),
            Self::Fixed(delay) => (delay, delay),
            Self::Linear { step, cap } => (step.saturating_mul(before as u64 + 1), cap),
            // A shift by 64 or more is no number of this size, and neither is what it stands for.
            Self::Exponential { first, cap } => match 1_u64.checked_shl(before) {
                Some(factor) => (first.saturating_mul(factor), cap),
                None if first == 0 => (0, cap),
                None => (u64::MAX, cap),
            },
        };
        if delay < cap { delay } else { cap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(backoff: Backoff) -> [u64; 6] {
        [0, 1, 2, 3, 4, 5].map(|before| backoff.delay(before))
    }

    #[test]
    fn each_grows_as_its_name_says() {
        assert_eq!(delays(Backoff::None), [0; 6]);
        assert_eq!(delays(Backoff::Fixed(7)), [7; 6]);
        assert_eq!(delays(Backoff::Linear { step: 10, cap: 45 }), [10, 20, 30, 40, 45, 45]);
        let doubling = Backoff::Exponential { first: 10, cap: 200 };
        assert_eq!(delays(doubling), [10, 20, 40, 80, 160, 200]);
    }

    #[test]
    fn however_long_it_goes_on_the_cap_holds() {
        for before in [6, 63, 64, 65, 1000, u32::MAX] {
            assert_eq!(Backoff::Exponential { first: 1000, cap: 9 }.delay(before), 9);
            assert_eq!(
                Backoff::Exponential { first: 1, cap: u64::MAX - 1 }.delay(before).max(64),
                { if before < 64 { 1 << before.max(6) } else { u64::MAX - 1 } }
            );
            assert_eq!(Backoff::Exponential { first: 0, cap: 9 }.delay(before), 0);
            assert_eq!(Backoff::Linear { step: u64::MAX / 2, cap: 8 }.delay(before), 8);
        }
    }
}
