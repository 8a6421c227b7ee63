//! The unwind tables of this very test binary.

use std::sync::OnceLock;

pub(crate) use keeper::hosted::unwind_tables as tables;
use keeper::unwind::{CompiledMemory, UnwindTables};

/// The same tables, compiled.
pub(crate) fn compiled() -> UnwindTables<'static> {
    static COMPILED: OnceLock<UnwindTables<'static>> = OnceLock::new();
    *COMPILED.get_or_init(|| {
        let memory = CompiledMemory::new(&tables().compiled_size().unwrap());
        tables().compile(Box::leak(Box::new(memory))).unwrap()
    })
}

/// The tables as they are linked, and compiled: whoever walks has to find the same by both.
pub(crate) fn both() -> [UnwindTables<'static>; 2] {
    [tables(), compiled()]
}
