//! Supervisors below supervisors.

use keeper::supervisor::{Backoff, ChildKind, RestartIntensity, Strategy, Supervisor};

use crate::family::{End, Family, SECOND, leak};

fn supervisor(strategy: Strategy, max: u32) -> &'static Supervisor {
    let intensity = RestartIntensity { max, period: 100 * SECOND };
    let supervisor = Supervisor::new(strategy, SECOND).with_backoff(Backoff::None);
    leak(supervisor.with_intensity(intensity))
}

/// `a`, then a supervisor of `b` and `c`, then `d`.
fn tree(top: Strategy, below: Strategy) -> (Family, &'static Supervisor) {
    let (top, below) = (supervisor(top, 1), supervisor(below, 1));
    let family = Family::new();
    family.child(top, 'a', ChildKind::Permanent);
    top.add_supervisor(below).unwrap();
    let family = family.children(top, "d").children(below, "bc");
    family.begun();
    (family, top)
}

#[test]
fn a_failure_stays_below_as_long_as_that_puts_up_with_it() {
    for (below, ended) in
        [(Strategy::OneForOne, "b"), (Strategy::OneForAll, "bc"), (Strategy::RestForOne, "bc")]
    {
        let (family, _) = tree(Strategy::OneForAll, below);
        assert_eq!(family.end('b', End::Faults), ended);
    }
}

#[test]
fn a_supervisor_that_fails_is_restarted_by_the_strategy_above() {
    for below in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        for (top, restarted) in [
            (Strategy::OneForOne, "bc"),
            (Strategy::OneForAll, "abcd"),
            (Strategy::RestForOne, "bcd"),
        ] {
            let (family, _) = tree(top, below);
            family.end('b', End::Faults);
            family.begun();
            // One too many for the supervisor below, but not for the one above.
            assert_eq!(family.end('b', End::Faults), restarted, "{top:?} {below:?}");
            assert_eq!(family.begun(), restarted);
            assert_eq!(family.alive().len(), 4);
            // The one below has begun anew, and puts up with one again.
            assert!(!family.end('b', End::Faults).contains(['a', 'd']));
            // Then it is one too many for the one above, too.
            let ended = family.end('b', End::Faults);
            assert_eq!(ended.len(), 4, "{ended}");
            assert_eq!(family.alive(), "");
        }
    }
}

#[test]
fn a_failure_above_restarts_what_is_below() {
    for (top, child, ended) in [
        (Strategy::OneForAll, 'd', "abcd"),
        (Strategy::RestForOne, 'a', "abcd"),
        (Strategy::RestForOne, 'd', "d"),
        (Strategy::OneForOne, 'a', "a"),
    ] {
        let (family, _) = tree(top, Strategy::OneForOne);
        assert_eq!(family.end(child, End::Faults), ended);
    }
}

#[test]
fn two_rounds_that_do_not_meet_do_not_wait_for_each_other() {
    let slow =
        Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::Fixed(9 * SECOND));
    let (top, slow) = (supervisor(Strategy::OneForOne, 1), leak(slow));
    let fast = supervisor(Strategy::OneForAll, 1);
    top.add_supervisor(slow).unwrap();
    top.add_supervisor(fast).unwrap();
    let family = Family::new().children(slow, "ab").children(fast, "cd");
    family.begun();
    assert_eq!(family.end('a', End::Faults), "");
    assert_eq!(family.alive(), "cd");
    assert_eq!(family.end('d', End::Faults), "cd");
    assert_eq!(family.serve_after(9 * SECOND), "ab");
}

#[test]
fn a_round_above_takes_over_one_below_that_waits() {
    let (top, below) =
        (supervisor(Strategy::OneForAll, 1), Supervisor::new(Strategy::OneForAll, SECOND));
    let below = leak(below.with_backoff(Backoff::Fixed(9 * SECOND)));
    let family = Family::new();
    top.add_supervisor(below).unwrap();
    let family = family.children(top, "c").children(below, "ab");
    family.begun();
    assert_eq!(family.end('b', End::Faults), "");
    assert_eq!(family.alive(), "c");
    // The delay below is of no consequence any more.
    assert_eq!(family.end('c', End::Faults), "abc");
    assert_eq!(family.serve_after(100 * SECOND), "");
    let begun = family.begun();
    assert_eq!((begun.len(), family.alive().len()), (3, 3), "{begun}");
}

#[test]
fn the_deepest_tree_there_can_be() {
    let levels: Vec<_> =
        (0..Supervisor::MAX_DEPTH).map(|_| supervisor(Strategy::OneForAll, 0)).collect();
    for pair in levels.windows(2) {
        pair[0].add_supervisor(pair[1]).unwrap();
    }
    let family = Family::new();
    for (level, name) in levels.iter().zip("abcdefgh".chars()) {
        family.child(level, name, ChildKind::Permanent);
    }
    family.begun();
    // Nobody puts up with anything.
    assert_eq!(family.end('h', End::Faults).len(), 8);
    assert_eq!(family.alive(), "");
}
