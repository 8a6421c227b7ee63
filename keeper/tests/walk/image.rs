//! The unwind tables of this very test binary.

pub(crate) use keeper::hosted::unwind_tables as tables;
