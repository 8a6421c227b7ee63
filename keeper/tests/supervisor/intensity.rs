//! How often children are restarted, and after which delay; and what comes then.

use keeper::supervisor::{Backoff, ChildKind, RestartIntensity, Strategy, Supervisor};
use keeper::{KeeperId, Policy, Refusal, Verdict, policy};
use proptest::prelude::*;

use crate::family::{Above, End, Family, SECOND, leak};

fn quick(strategy: Strategy, max: u32) -> &'static Supervisor {
    let intensity = RestartIntensity { max, period: 10 * SECOND };
    let supervisor = Supervisor::new(strategy, SECOND).with_backoff(Backoff::None);
    leak(supervisor.with_intensity(intensity))
}

#[test]
fn one_failure_too_many_ends_all_children_and_goes_to_the_next_keeper() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let supervisor = quick(strategy, 2);
        let above: &'static Above = Box::leak(Box::default());
        let family = Family::new();
        let parent = family.kernel.register(KeeperId::ROOT, above, u64::MAX).unwrap();
        let keeper = family.kernel.register(parent, &policy::Panic, u64::MAX).unwrap();
        let family = family.children(supervisor, "abc");
        for name in ['a', 'b', 'c'] {
            family.kernel.keepers().keep(family.task(name), keeper).unwrap();
        }
        family.begun();
        assert!(!family.end('a', End::Faults).is_empty());
        assert!(!family.end('b', End::Faults).is_empty());
        family.begun();
        // Then the others are ended, the last one first.
        let last = family.task('b');
        let ended = family.end('b', End::Faults);
        assert!(["BCA", "CBA", "CAB"].contains(&&*ended), "{strategy:?}: {ended}");
        assert_eq!(*above.0.lock().unwrap(), [last], "{strategy:?}: for that one alone");
        assert_eq!((family.alive(), family.begun()), (String::new(), String::new()));
        assert_eq!(supervisor.children().count(), 0);

        // It can be used again, and what was does not count.
        let family = family.children(supervisor, "de");
        for name in ['d', 'e'] {
            family.kernel.keepers().keep(family.task(name), keeper).unwrap();
        }
        family.begun();
        assert!(family.end('d', End::Faults).contains('d'));
        assert!(family.end('d', End::Faults).contains('d'));
        assert!(family.end('d', End::Faults).contains('D'));
    }
}

#[test]
fn the_others_are_ended_whatever_the_next_keeper_rules() {
    for (above, verdict) in [
        (&policy::Hold as &'static dyn Policy, Verdict::Hold),
        (&policy::Restart { at_most: 9 }, Verdict::Restart),
    ] {
        let supervisor = quick(Strategy::OneForOne, 0);
        let family = Family::new();
        let parent = family.kernel.register(KeeperId::ROOT, above, u64::MAX).unwrap();
        let keeper = family.kernel.register(parent, &policy::Panic, u64::MAX).unwrap();
        let family = family.children(supervisor, "ab");
        family.kernel.keepers().keep(family.task('a'), keeper).unwrap();
        family.kernel.kill(family.task('a'));
        let reports = family.kernel.serve();
        let of = |name| reports.iter().find(|report| report.task == family.task(name)).unwrap();
        assert_eq!((of('a').verdict, of('b').verdict), (Some(verdict), Some(Verdict::Exit)));
        // Whoever restarts it has it from now on.
        assert_eq!(supervisor.children().count(), 0);
    }
}

#[test]
fn failures_that_are_long_ago_do_not_count() {
    let family = Family::new().children(quick(Strategy::OneForOne, 1), "a");
    for _ in 0..5 {
        assert_eq!(family.end('a', End::IsKilled), "a");
        family.serve_after(11 * SECOND);
    }
    assert_eq!(family.end('a', End::IsKilled), "a");
    assert_eq!(family.end('a', End::IsKilled), "A");
}

#[test]
fn a_round_counts_as_one_restart() {
    let family = Family::new().children(quick(Strategy::OneForAll, 2), "abc");
    assert_eq!(family.end('a', End::IsKilled), "abc");
    assert_eq!(family.end('a', End::IsKilled), "abc");
    assert_eq!(family.end('a', End::IsKilled).len(), 3);
    assert_eq!(family.alive(), "");
}

/// Kills `a` again and again, and returns how long it waited for each restart.
fn delays(supervisor: Supervisor, failures: usize) -> Vec<u64> {
    let intensity = RestartIntensity::unlimited(100 * SECOND);
    let family = Family::new().children(leak(supervisor.with_intensity(intensity)), "ab");
    let mut delays = Vec::new();
    for _ in 0..failures {
        let mut waited = 0;
        let mut ended = family.end('a', End::IsKilled);
        while ended.is_empty() {
            assert!(!family.alive().contains('a'));
            waited += SECOND;
            ended = family.serve_after(SECOND);
        }
        assert_eq!(family.alive(), "ab");
        delays.push(waited / SECOND);
    }
    delays
}

#[test]
fn a_restart_waits_as_long_as_its_backoff_says() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let with = |backoff| Supervisor::new(strategy, SECOND).with_backoff(backoff);
        assert_eq!(delays(with(Backoff::None), 3), [0; 3]);
        assert_eq!(delays(with(Backoff::Fixed(3 * SECOND)), 3), [3; 3]);
        let linear = Backoff::Linear { step: 2 * SECOND, cap: 7 * SECOND };
        assert_eq!(delays(with(linear), 5), [2, 4, 6, 7, 7]);
        let exponential = Backoff::Exponential { first: SECOND, cap: 10 * SECOND };
        assert_eq!(delays(with(exponential), 6), [1, 2, 4, 8, 10, 10]);
    }
}

#[test]
fn a_child_that_has_lived_for_a_period_begins_with_the_first_delay() {
    let exponential = Backoff::Exponential { first: SECOND, cap: 100 * SECOND };
    let supervisor = leak(
        Supervisor::new(Strategy::OneForOne, SECOND)
            .with_backoff(exponential)
            .with_intensity(RestartIntensity::unlimited(50 * SECOND)),
    );
    let family = Family::new().children(supervisor, "ab");
    for delay in [1, 2, 4] {
        assert_eq!(family.end('a', End::IsKilled), "");
        assert_eq!(family.serve_after((delay - 1) * SECOND), "");
        assert_eq!(family.serve_after(SECOND), "a");
    }
    // Another child's failures are its own.
    assert_eq!(family.end('b', End::IsKilled), "");
    assert_eq!(family.serve_after(SECOND), "b");
    family.serve_after(51 * SECOND);
    assert_eq!(family.end('a', End::IsKilled), "");
    assert_eq!(family.serve_after(SECOND), "a");
}

#[test]
fn the_defaults_put_up_with_three_failures_and_not_with_a_fourth() {
    let family = Family::new().children(leak(Supervisor::new(Strategy::OneForOne, SECOND)), "ab");
    for delay in [10, 20, 40] {
        assert_eq!(family.end('a', End::IsKilled), "");
        assert_eq!(family.serve_after(delay * SECOND / 1000), "a");
    }
    assert_eq!(family.end('a', End::IsKilled), "AB");
}

#[test]
fn who_waits_too_long_for_the_others_goes_to_the_next_keeper() {
    let supervisor = leak(
        Supervisor::new(Strategy::OneForAll, SECOND)
            .with_backoff(Backoff::None)
            .with_patience(SECOND),
    );
    let family = Family::new().children(supervisor, "a");
    // One that cannot come down, since there is no such task any more.
    let gone = task_model::TaskId::first(60);
    supervisor.add(gone, ChildKind::Permanent).unwrap();
    family.begun();
    assert_eq!(family.end('a', End::Faults), "");
    assert_eq!(family.serve_after(SECOND / 2), "");
    family.kernel.pass(std::time::Duration::from_nanos(SECOND));
    let report = family.kernel.serve().pop().unwrap();
    assert_eq!((report.refusal, report.verdict), (Some(Refusal::NoVerdict), Some(Verdict::Exit)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever fails, whenever: in no window of the period are there more restarts than allowed,
    /// by the reports of the keeper.
    #[test]
    fn restarts_obey_the_intensity_in_every_window(
        failures in prop::collection::vec((0..3_usize, 0..4_u64, 0..4_usize), 1..40),
        max in 0..4_u32,
        period in 1..12_u64,
        one_for_all in any::<bool>(),
    ) {
        let strategy = if one_for_all { Strategy::OneForAll } else { Strategy::OneForOne };
        let intensity = RestartIntensity { max, period: period * SECOND };
        let supervisor = leak(
            Supervisor::new(strategy, SECOND).with_backoff(Backoff::None).with_intensity(intensity),
        );
        let family = Family::new().children(supervisor, "abc");
        family.begun();
        // When each was decided on: not before the first, and not after the second.
        let mut restarts: Vec<(u64, u64)> = Vec::new();
        for (who, pause, end) in failures {
            family.serve_after(pause * SECOND);
            let name = ['a', 'b', 'c'][who];
            let task = family.task(name);
            family.order_end(name, [End::Returns, End::Faults, End::Panics, End::IsKilled][end]);
            let reports = family.kernel.run_turns(3);
            let report = reports.iter().find(|report| report.task == task).unwrap();
            let decided = (report.settled_at, report.gone_at);
            let restarted = report.verdict == Some(Verdict::Restart);
            family.watch(reports);
            // Of the last ones that were put up with, as many as there may be, the first.
            let first = restarts.len().checked_sub(max as usize).map(|n| restarts.get(n));
            if restarted {
                let (settled, _) = *first.unwrap_or(None).unwrap_or(&(0, 0));
                let fits = restarts.len() < max as usize
                    || max > 0 && decided.1 - settled > intensity.period;
                prop_assert!(fits, "{:?} {:?}", restarts, decided);
                restarts.push(decided);
            } else {
                let too_many = max == 0
                    || first.flatten().is_some_and(|it| decided.0.saturating_sub(it.1) <= intensity.period);
                prop_assert!(too_many, "{:?} {:?}", restarts, decided);
                prop_assert_eq!(family.alive(), "");
                break;
            }
        }
    }
}
