//! Language tables: where the compiler can clean a frame up.
//!
//! A function that owns something across a call has a *language-specific data area*, LSDA, which
//! its entry in `.eh_frame` points to. It lists the function's call sites, and for each the landing
//! pad that an unwinder would jump to. This is how much the compiler knows of a dead task's frame:
//! [`UnwindTables::landing`] says it for one instruction.
//!
//! The format is nowhere a standard. The description is in the "Exception Handling Tables" draft
//! of HP and Red Hat for the Itanium C++ ABI; what GCC and LLVM write, and what the personality
//! routines of C++ and Rust read, is the same.

mod encoded;
mod landing;
mod lsda;

pub use landing::{Landing, PadKind};
pub use lsda::{Action, Actions, CallSite, CallSites, Lsda, LsdaError, TypeInfo};
