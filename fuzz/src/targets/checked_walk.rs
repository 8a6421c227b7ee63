//! What has to be true of any walk, whatever it is given.

use keeper::unwind::{FrameOrigin, RuleSource, Walk, WalkEnd};
use task_model::{FaultInfo, RegisterFile, StackMemory as _};

use super::stack::Stack;

/// The most frames that are looked at: deeper ones show nothing new.
const LIMIT: usize = 16;

/// The most reads that one frame can cost: seventeen registers and the CFA, by expressions of at
/// most 128 operations, and one more read for each slot.
const READS_PER_FRAME: usize = 18 * 129;

/// Walks, and checks that the walk ends, in bounds, and without frames that overlap.
pub(super) fn checked_walk(
    registers: &RegisterFile,
    fault: &FaultInfo,
    stack: &Stack,
    source: &mut impl RuleSource,
) {
    let bounds = stack.bounds();
    let mut walk = Walk::new(registers, stack, source).stopped_by(fault).max_frames(LIMIT);
    let mut frames = 0;
    let mut previous_end = None;
    let mut unfinished = false;
    for frame in &mut walk {
        assert!(!unfinished, "a frame without an end is the last");
        assert_eq!(frame.origin == FrameOrigin::Stopped, frames == 0);
        if let Some(end) = previous_end {
            assert!(end <= frame.sp && frame.sp <= bounds.top(), "frames overlap");
        }
        if let Some(cfa) = frame.cfa {
            assert!(cfa <= bounds.top(), "a frame outside of the stack");
        }
        unfinished = frame.cfa.is_none();
        previous_end = frame.cfa;
        frames += 1;
    }
    let end = walk.end().expect("a walk that is over has ended");
    assert!((1..=LIMIT).contains(&frames));
    assert!(!unfinished || end != WalkEnd::Complete);
    assert!(stack.reads() <= frames * READS_PER_FRAME);
}
