//! The seed's `main` and `foo`: each holds a box, and `foo`, which cannot panic, faults.

use core::hint::black_box;

use drop_registry::{Outcome, ResourceKind, TrackedBox};

use crate::heap;
use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::Kernel;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "box-in-nounwind-frame",
    summary: "foo() holds a box, cannot panic, and faults; its box and its caller's are freed",
    ..Scenario::kept(run)
};

fn caller(_: usize) {
    let Ok(boxed) = TrackedBox::<[u64; 4], Kernel>::new([10; 4]) else { return };
    foo();
    black_box(&boxed);
}

/// `extern "C"`: nothing may unwind out of here, so the compiler makes no landing pad for it.
#[inline(never)]
extern "C" fn foo() {
    let Ok(boxed) = TrackedBox::<[u64; 8], Kernel>::new([5; 8]) else { return };
    deaths::page_fault();
    black_box(&boxed);
}

fn run(stage: &mut Stage) {
    let before = heap::books();
    let dying = stage.spawn("caller", caller);
    let freed = stage.report_on(dying).map(|report| {
        let boxes = report.resources.iter().filter(|r| r.kind == ResourceKind::Box);
        boxes.map(|r| (r.outcome, r.frame)).take(4).collect::<heapless::Vec<_, 4>>()
    });
    let freed = freed.unwrap_or_default();
    let innermost = freed.first().copied().unwrap_or((Outcome::Disowned, None));
    stage.check("both boxes were reclaimed", {
        freed.len() == 2 && freed.iter().all(|(outcome, _)| *outcome == Outcome::Reclaimed)
    });
    stage.check("foo's box was foo's, and its caller's another frame's", {
        freed.len() == 2 && innermost.1 == Some(0) && freed[1].1 > Some(0)
    });
    stage.check(format_args!("the memory is back: {}", heap::books()), heap::books() == before);
    let again = TrackedBox::<[u64; 8], Kernel>::new([6; 8]);
    stage.check("and can be taken again", again.is_ok_and(|boxed| boxed[7] == 6));
}
