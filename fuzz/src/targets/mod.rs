//! The targets, one file for each, and what several of them need.

mod checked_walk;
mod eh_frame;
mod eh_frame_hdr;
mod held;
mod image;
mod ledger;
mod lsda;
mod stack;
mod walk;

pub use eh_frame::EH_FRAME;
pub use eh_frame_hdr::EH_FRAME_HDR;
pub use ledger::LEDGER;
pub use lsda::LSDA;
pub use walk::WALK;
