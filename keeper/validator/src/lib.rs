//! Checks the walker at every instruction of real code.
//!
//! Code is run by the single step. At every call the validator notes what is pushed and what the
//! registers hold; that is the *shadow stack*, and it is the truth about every frame, found
//! without unwind tables. Before every instruction the walker walks, from the tables, the
//! registers and the stack; and for each frame its answer is held against the truth: the canonical
//! frame address, the return address, each register that it claims to know, and those that
//! functions preserve it has to know.
//!
//! ```text
//!  single step ──► Flow ──► Shadow ──► Caller, Caller, … ─┐
//!       │                                                 ├──► judge ──► Answer ──► Tally
//!       └─ registers, stack, Images ──► keeper's Walk ────┘
//! ```
//!
//! | | |
//! | --- | --- |
//! | [`Shadow`], [`Caller`] | the truth, from the calls that were seen |
//! | [`flow()`] | what an instruction will do, by a decoder |
//! | [`Images`], [`StackCopy`] | what the walker walks with |
//! | [`judge()`], [`Answer`], [`Tally`] | the comparison, and what came of it |
//! | `traced` | processes of this host, stepped through ptrace |
//! | `bodies` | the code that the hosted run steps through |

#[cfg(feature = "hosted")]
pub mod bodies;
mod flow;
mod images;
mod judge;
mod shadow;
mod stack;
mod tally;
#[cfg(feature = "hosted")]
pub mod traced;

pub use flow::{Flow, LONGEST_INSTRUCTION, flow};
pub use images::{Form, Image, Images, ImagesIn, leaked};
pub use judge::{Answer, Wrong, judge};
pub use rustc_demangle::demangle;
pub use shadow::{Caller, Shadow};
pub use stack::StackCopy;
pub use tally::Tally;
