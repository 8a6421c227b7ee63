//! What a dead task held, and what its next owner finds.

mod allocator_lock_holder_dies;
mod box_in_nounwind_frame;
mod destructor_takes_lock;
mod invalid_opcode_nested_locks;
mod killed_in_empty_loop;
mod lock_before_tasking;
mod page_fault_holding_lock;
mod panic_holding_lock;
mod refcount_held;
mod repair_routine;
mod returns_holding_lock;
mod rollback_mutex;
mod stack_overflow;
mod torn_slice;

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    page_fault_holding_lock::SCENARIO,
    panic_holding_lock::SCENARIO,
    killed_in_empty_loop::SCENARIO,
    box_in_nounwind_frame::SCENARIO,
    refcount_held::SCENARIO,
    torn_slice::SCENARIO,
    rollback_mutex::SCENARIO,
    repair_routine::SCENARIO,
    lock_before_tasking::SCENARIO,
    invalid_opcode_nested_locks::SCENARIO,
    stack_overflow::SCENARIO,
    returns_holding_lock::SCENARIO,
    destructor_takes_lock::SCENARIO,
    allocator_lock_holder_dies::SCENARIO,
];
