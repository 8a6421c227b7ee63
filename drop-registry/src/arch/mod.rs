//! The windows of each architecture.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("drop-registry has windows for x86-64 only");

/// What a window's record says about the task that stops in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WindowKind {
    /// A resource was acquired. Registers: resource, operations, the entry's place, frame.
    Record = 0,
    /// A resource was released. Registers: entry.
    Erase = 1,
    /// A count went down. Registers: entry, and the operations it takes on if that was the last.
    EraseOrConvert = 2,
    /// An entry changes its state: its resource was released, and something else is owed for it; or
    /// what it lists has been counted. Registers: entry, and the operations it takes on.
    Convert = 3,
}

impl WindowKind {
    pub(crate) const fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            0 => Some(Self::Record),
            1 => Some(Self::Erase),
            2 => Some(Self::EraseOrConvert),
            3 => Some(Self::Convert),
            _ => None,
        }
    }
}
