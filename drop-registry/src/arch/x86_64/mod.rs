//! x86-64.

mod record;
mod recovery;
mod turn;
mod window;

pub(crate) use recovery::*;
pub(crate) use turn::*;
pub(crate) use window::*;
