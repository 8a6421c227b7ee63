//! Which children are restarted at all: every kind, every strategy, every end.

use keeper::supervisor::{Backoff, ChildKind, Strategy, Supervisor};

use crate::family::{Above, End, Family, SECOND, leak};

#[test]
fn a_child_is_restarted_by_its_kind_and_its_end() {
    use ChildKind::*;
    use End::*;
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        for (kind, end, restarted) in [
            (Permanent, Returns, true),
            (Permanent, Faults, true),
            (Permanent, Panics, true),
            (Permanent, IsKilled, true),
            (Transient, Returns, false),
            (Transient, Faults, true),
            (Transient, Panics, true),
            (Transient, IsKilled, true),
            (Temporary, Returns, false),
            (Temporary, Faults, false),
            (Temporary, Panics, false),
            (Temporary, IsKilled, false),
        ] {
            let supervisor = leak(Supervisor::new(strategy, SECOND).with_backoff(Backoff::None));
            let family = Family::new();
            family.child(supervisor, 'a', Permanent);
            family.child(supervisor, 'b', kind);
            family.child(supervisor, 'c', Permanent);
            family.begun();
            let ended = family.end('b', end);
            let expected = match (restarted, strategy) {
                // Of no consequence for the others.
                (false, _) => "B",
                (true, Strategy::OneForOne) => "b",
                (true, Strategy::OneForAll) => "abc",
                (true, _) => "bc",
            };
            assert_eq!(ended, expected, "{strategy:?} {kind:?} {end:?}");
            let alive = if restarted { "abc" } else { "ac" };
            assert_eq!(family.alive(), alive, "{strategy:?} {kind:?} {end:?}");
            assert_eq!(family.begun(), expected.replace('B', ""));
        }
    }
}

#[test]
fn in_a_round_temporary_children_end_and_transient_ones_begin_again() {
    let supervisor = leak(Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::None));
    let family = Family::new();
    family.child(supervisor, 'a', ChildKind::Permanent);
    family.child(supervisor, 'b', ChildKind::Temporary);
    family.child(supervisor, 'c', ChildKind::Transient);
    family.begun();
    assert_eq!(family.end('a', End::Faults), "Bac");
    assert_eq!((family.begun(), family.alive()), ("ac".into(), "ac".into()));
    // The place is free: nothing waits for a child that is no more.
    assert_eq!(family.end('c', End::Faults), "ac");
}

#[test]
fn a_transient_child_that_finishes_in_a_round_is_not_brought_back() {
    let supervisor = leak(Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::None));
    let family = Family::new();
    family.child(supervisor, 'a', ChildKind::Permanent);
    family.child(supervisor, 'b', ChildKind::Transient);
    family.begun();
    family.order_end('a', End::Faults);
    family.order_end('b', End::Returns);
    for name in ['a', 'b'] {
        family.run_to_end(name);
    }
    assert_eq!(family.serve(), "Ba");
    assert_eq!(family.alive(), "a");
}

#[test]
fn a_child_without_an_entry_to_begin_again_from_is_no_child_any_more() {
    let supervisor = leak(Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::None));
    let family = Family::new();
    family.child_that_lives_once(supervisor, 'a');
    let family = family.children(supervisor, "bc");
    family.begun();
    // The others do not wait for it.
    assert_eq!(family.end('c', End::Faults), "Abc");
    assert_eq!((family.begun(), family.alive()), ("bc".into(), "bc".into()));
    assert_eq!(supervisor.children().count(), 2);
}

#[test]
fn a_task_that_is_removed_can_be_killed_and_the_next_keeper_rules_on_it() {
    static ABOVE: Above = Above(std::sync::Mutex::new(Vec::new()));
    let supervisor = leak(Supervisor::new(Strategy::OneForAll, SECOND));
    let family = Family::new();
    let keeper = family.kernel.register(keeper::KeeperId::ROOT, &ABOVE, u64::MAX).unwrap();
    let family = family.children(supervisor, "ab");
    family.begun();
    let removed = family.task('b');
    let below = family.kernel.register(keeper, &keeper::policy::TryNext, u64::MAX).unwrap();
    family.kernel.keepers().keep(removed, below).unwrap();
    supervisor.remove(removed).unwrap();
    assert_eq!(family.end('b', End::IsKilled), "B");
    assert_eq!(*ABOVE.0.lock().unwrap(), [removed]);
    assert_eq!(family.alive(), "a");
}
