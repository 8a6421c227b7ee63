//! What has to be true of any walk, whatever it is given.

use keeper::unwind::{
    CompactRow, EhFrameRules, Frame, FrameOrigin, RuleSource, TablesError, UnwindTables, Walk,
    WalkEnd,
};
use task_model::{FaultInfo, RegisterFile, StackMemory as _};

use super::image::TEXT_SIZE;
use super::stack::Stack;

/// The most frames that are looked at: deeper ones show nothing new.
const LIMIT: usize = 8;

/// The most reads that one frame can cost: the CFA and the return address by expressions of at most
/// 128 operations, and sixteen registers by expressions that are evaluated twice, the first time to
/// see whether their base has been restored; and one more read for each slot.
const READS_PER_FRAME: usize = (2 + 2 * 16) * 129;

/// What a walk found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Walked {
    frames: [Option<Frame>; LIMIT],
    end: WalkEnd,
}

/// Walks, so many frames one by one and then the rest at once, and checks that the walk ends, in
/// bounds, and without frames that overlap.
pub(super) fn checked_walk(
    registers: &RegisterFile,
    fault: &FaultInfo,
    stack: &Stack,
    source: &mut impl RuleSource,
    one_by_one: usize,
) -> Walked {
    let bounds = stack.bounds();
    let reads_before = stack.reads();
    let mut walk = Walk::new(registers, stack, source).stopped_by(fault).max_frames(LIMIT);
    let mut frames = [None; LIMIT];
    let mut depth = 0;
    let mut previous = None;
    let mut unfinished = false;
    let mut check = |frame: Frame| {
        assert!(!unfinished, "a frame without an end is the last");
        assert_eq!(frame.origin == FrameOrigin::Stopped, depth == 0);
        if let Some((sp, end)) = previous {
            assert!(sp < end, "a frame without extent has a caller");
            assert!(end <= frame.sp && frame.sp <= bounds.top(), "frames overlap");
        }
        if let Some(cfa) = frame.cfa {
            assert!(cfa <= bounds.top(), "a frame outside of the stack");
        }
        unfinished = frame.cfa.is_none();
        previous = frame.cfa.map(|cfa| (frame.sp, cfa));
        frames[depth] = Some(frame);
        depth += 1;
    };
    walk.by_ref().take(one_by_one).for_each(&mut check);
    let end = walk.run(|frame, _| check(*frame));
    assert_eq!(walk.end(), Some(end));
    assert!(depth > 0, "the innermost frame is always found");
    assert!(!unfinished || end != WalkEnd::Complete);
    assert!(stack.reads() - reads_before <= depth * READS_PER_FRAME);
    Walked { frames, end }
}

/// Walks by the tables as they are, and compiled if there is room for that, and checks that both
/// walks find the same.
pub(super) fn checked_walks(
    registers: &RegisterFile,
    fault: &FaultInfo,
    stack: &Stack,
    tables: UnwindTables<'_>,
) {
    let walk = |tables, one_by_one| {
        checked_walk(registers, fault, stack, &mut EhFrameRules::new(tables), one_by_one)
    };
    let plain = walk(tables, LIMIT);
    let mut rows = [CompactRow::EMPTY; 128];
    let mut buckets = [0; TEXT_SIZE as usize / 128 + 1];
    match tables.compile_into(&mut rows, &mut buckets) {
        Ok(compiled) => assert_eq!(walk(compiled, 2), plain, "compiled tables say something else"),
        Err(error) => {
            assert!(matches!(error, TablesError::NoRoom { rows: 129.., .. }), "{error}");
        }
    }
}
