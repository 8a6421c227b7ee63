//! Walking a frozen task's frames from outside.
//!
//! The walker runs on the keeper's stack and looks at another task: at its saved registers, at its
//! stack through [`StackMemory`], and at the image's unwind tables. It changes nothing, allocates
//! nothing, takes no lock, never panics, and every loop in it is bounded.
//!
//! ```text
//!  .eh_frame_hdr ─► UnwindTables ─► EhFrameRules ─┐ (a RuleSource)
//!                                                 ▼
//!  RegisterFile ──► FrameState ───────────────► step ──► the caller's FrameState, or WalkError
//!                        ▲                        │
//!                        └──────── Walk ──────────┘ ──► Frame, Frame, … then WalkEnd
//! ```
//!
//! | type | what it is |
//! | --- | --- |
//! | [`UnwindTables`] | the two sections of one image, validated, and the binary search in them; if they are [compiled](UnwindTables::compile_into) at start-up, rules of sixteen bytes beside them |
//! | [`Images`], [`ImageRules`] | the tables of a kernel and its modules, which come and go while others walk; and the rules of all of them |
//! | [`RuleSource`], [`FrameRules`] | what the tables say about one instruction; the seam behind which tables may change their form |
//! | [`EhFrameRules`] | that source over one image's tables: a compact rule where there is one, else what gimli decodes from `.eh_frame` in fixed storage |
//! | [`CompactRow`], [`CompiledSize`] | compiled tables: their memory, which may be the caller's, and how much it has to be |
//! | [`step()`] | from one frame to its caller: pure, and the place of all checks |
//! | [`Walk`], [`Frame`], [`WalkEnd`] | the steps in a row; how it ended is a part of the answer |
//! | [`Lsda`], [`Landing`] | the language tables: where the compiler itself can clean a frame up |
//!
//! A walk *fails closed*. It is [`WalkEnd::Complete`] only if it reached a function whose return
//! address the tables call undefined, which is what the task's entry must say
//! (`.cfi_undefined rip`). Otherwise it is [`WalkEnd::Partial`] and says why. It never falls back
//! to frame pointers, and it does not scan.
//!
//! Every frame satisfies `sp < cfa <= sp of the caller <= top of the stack`. So a walk ends on any
//! input, and no two frames overlap.
//!
//! # What the tables must be
//! *Asynchronous*: right at every instruction, not only at calls (`-Cforce-unwind-tables` gives
//! these). LLVM's are, but for one thing: they do not say that an epilogue has popped a register.
//! A rule then names a slot below the stack pointer, and the live register is the truth; see
//! [`step()`]. Code by GCC that saves a register in the red zone instead says the same and means
//! another thing, and is not told apart: kernels are compiled without a red zone.
//!
//! Nor do they know of inline assembly that pushes, such as `pushfq; pop rax`, by which kernels
//! read the flags: between the two instructions the stack pointer is a word lower than the tables
//! say. A walk that begins there takes another word for the return address, and has to see that it
//! is none: it is not in the text, or, if the tables [have the code](UnwindTables::with_code), no
//! call comes before it. So such a walk is refused. Assembly that is to be walked writes
//! `.cfi_adjust_cfa_offset`.
//!
//! [`StackMemory`]: task_model::StackMemory

mod call;
mod compact;
mod compile;
mod eh_frame;
mod error;
mod expression;
mod images;
mod language;
mod registers;
mod rules;
mod step;
mod tables;
mod usual;
mod walk;

pub use compact::{CompactRow, CompactRule};
#[cfg(feature = "alloc")]
pub use compile::CompiledMemory;
pub use compile::CompiledSize;
pub use eh_frame::EhFrameRules;
pub use error::{TablesError, WalkError};
pub use expression::Expression;
pub use images::{AddError, ImageId, ImageRules, Images, MAX_IMAGES, RemoveError};
pub use language::{
    Action, Actions, CallSite, CallSites, Landing, Lsda, LsdaError, PadKind, TypeInfo,
};
pub use registers::{FrameAddress, FrameState, UnwindRegisters};
pub use rules::{CfaRule, FrameRules, RegisterRule, RuleSource};
pub use step::{Step, step};
pub use tables::{LoadedSection, UnwindTables};
pub use walk::{Frame, FrameOrigin, MAX_FRAMES, Walk, WalkEnd};
