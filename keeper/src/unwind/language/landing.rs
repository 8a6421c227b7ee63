//! What the compiler can do about a frame.

use core::fmt;

use gimli::{
    BaseAddresses, EhFrame, EhFrameOffset, EndianSlice, LittleEndian, Pointer, UnwindSection as _,
};

use super::{Action, Lsda, LsdaError};
use crate::unwind::{FrameAddress, UnwindTables};

/// What the language tables say of one frame.
///
/// It is what an unwinder would do there. If the frame was stopped and did not call, an unwinder
/// would do nothing at all, and a landing pad is even then only the one of a call that the
/// instruction prepares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Landing {
    /// The image's language tables are not known, or no function contains the address.
    Unknown,
    /// The function has no language table: it owns nothing across any call, as the compiler sees
    /// it, or was compiled without unwinding.
    NoTable,
    /// The function has a table, and the address is in none of its call sites: the compiler
    /// takes it that nothing here can unwind.
    NoCallSite,
    /// The address is in a call site without a landing pad: nothing is to be cleaned up here.
    NoPad,
    /// There is a landing pad.
    Pad {
        /// Its address.
        address: u64,
        /// What it is for.
        kind: PadKind,
    },
    /// The function has a table that cannot be read.
    Unreadable(LsdaError),
}

/// What a landing pad is for: its first [`Action`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PadKind {
    /// To run destructors.
    Cleanup,
    /// To end the unwinding.
    Catch,
    /// To let some types pass only.
    Filter,
    /// To let nothing pass: it ends the program.
    Terminate,
}

impl From<Action> for PadKind {
    fn from(action: Action) -> Self {
        match action {
            Action::Cleanup => Self::Cleanup,
            Action::Catch(_) => Self::Catch,
            Action::Filter { empty: false } => Self::Filter,
            Action::Filter { empty: true } => Self::Terminate,
        }
    }
}

impl<'a> UnwindTables<'a> {
    /// What the language tables say of a frame that stands at `address`.
    pub fn landing(&self, address: FrameAddress) -> Landing {
        let address = address.lookup_address();
        match self.lsda(address) {
            None => Landing::Unknown,
            Some(Ok(None)) => Landing::NoTable,
            Some(Ok(Some(lsda))) => landing(&lsda, address).unwrap_or_else(Landing::Unreadable),
            Some(Err(error)) => Landing::Unreadable(error),
        }
    }

    /// The language table of the function that contains `address`, or `Ok(None)` if that has none;
    /// `None` if there is no such function, or the image's language tables are not known.
    ///
    /// # Errors
    /// As [`Lsda::parse`]; and if the table's address is itself to be looked up, which compilers
    /// do not write.
    pub fn lsda(&self, address: u64) -> Option<Result<Option<Lsda<'a>>, LsdaError>> {
        let section = self.language_tables()?;
        let entries = self.eh_frame();
        let eh_frame = EhFrame::from(EndianSlice::new(entries.bytes, LittleEndian));
        let bases = BaseAddresses::default().set_eh_frame(entries.address);
        let offset = EhFrameOffset(self.find(address)?);
        let fde = eh_frame
            .fde_from_offset(&bases, offset, EhFrame::cie_from_offset)
            .ok()
            .filter(|fde| fde.contains(address))?;
        // Null, where pointers are relative to their own address: gimli has added that.
        let itself = |address: u64| {
            let entry = entries.address.wrapping_add(fde.offset() as u64);
            address.wrapping_sub(entry) <= fde.entry_len() as u64
        };
        Some(match fde.lsda() {
            None | Some(Pointer::Direct(0)) => Ok(None),
            Some(Pointer::Direct(address)) if itself(address) => Ok(None),
            Some(Pointer::Direct(address)) => {
                Lsda::parse(section, address, fde.initial_address()).map(Some)
            }
            Some(Pointer::Indirect(address)) => Err(LsdaError::OutsideSection(address)),
        })
    }
}

fn landing(lsda: &Lsda<'_>, address: u64) -> Result<Landing, LsdaError> {
    let Some(site) = lsda.find(address)? else { return Ok(Landing::NoCallSite) };
    let Some(address) = site.landing_pad else { return Ok(Landing::NoPad) };
    let first = lsda.actions(&site).next().transpose()?;
    Ok(Landing::Pad { address, kind: first.unwrap_or(Action::Cleanup).into() })
}

impl fmt::Display for PadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cleanup => "cleanup",
            Self::Catch => "catch",
            Self::Filter => "filter",
            Self::Terminate => "terminate",
        })
    }
}

impl fmt::Display for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("landing pads unknown"),
            Self::NoTable => f.write_str("no landing pads: the function has no language table"),
            Self::NoCallSite => f.write_str("no landing pad: nothing unwinds from here"),
            Self::NoPad => f.write_str("no landing pad here"),
            Self::Pad { address, kind } => write!(f, "{kind} pad {address:#x}"),
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}
