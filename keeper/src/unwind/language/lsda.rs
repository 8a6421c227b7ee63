//! One function's language-specific data area.

use core::fmt;
use core::iter::FusedIterator;

use gimli::{DwEhPe, constants};

use super::encoded::Cursor;
use crate::unwind::LoadedSection;

/// Why a language table cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LsdaError {
    /// This address, which should be in the section, is not.
    OutsideSection(u64),
    /// The table ends within a value, or says that it is longer than the section is.
    Truncated,
    /// A variable-length number has more than 64 bits.
    TooLarge,
    /// A value has this pointer encoding, which has no meaning here.
    UnsupportedEncoding(u8),
    /// An action refers to a type or a list of types, and the table has none.
    NoTypes,
    /// A chain of actions has more than [`Actions::LIMIT`] links: most likely it is a ring.
    EndlessActions,
}

impl fmt::Display for LsdaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideSection(address) => write!(f, "{address:#x} is in no language table"),
            Self::Truncated => f.write_str("the language table ends too early"),
            Self::TooLarge => f.write_str("a number in the language table is too large"),
            Self::UnsupportedEncoding(encoding) => {
                write!(f, "the language table uses pointer encoding {encoding:#04x}")
            }
            Self::NoTypes => f.write_str("the language table lists no types"),
            Self::EndlessActions => f.write_str("a chain of actions does not end"),
        }
    }
}

impl core::error::Error for LsdaError {}

/// The language-specific data area of one function.
///
/// ```text
///  encoding of LPStart │ LPStart │ encoding of types │ distance to the types' end
///  encoding of sites   │ their length in bytes
///  call sites:  start, length, landing pad, action ◄─ 1 + offset of the first action, or 0
///  actions:     filter, distance to the next       ◄─ > 0 catches type n, < 0 only lets types pass
///  types:       … type 2, type 1 │ lists of types for filters
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Lsda<'a> {
    section: LoadedSection<'a>,
    /// What call sites are relative to.
    function: u64,
    /// What landing pads are relative to.
    landing_pads: u64,
    call_site_encoding: DwEhPe,
    call_sites: Cursor<'a>,
    /// Where the actions begin.
    actions: u64,
    /// How types are written, and where they end and the filters' lists begin.
    types: Option<(DwEhPe, u64)>,
}

/// A range of a function's instructions, and what an unwinder does for a call in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSite {
    /// The first instruction's address.
    pub start: u64,
    /// One past the last instruction's last byte.
    pub end: u64,
    /// Where to go on, or `None` if there is nothing to be done.
    pub landing_pad: Option<u64>,
    /// 1 + the offset of the first action; 0 if the landing pad only cleans up.
    action: u64,
}

/// What a landing pad is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It runs destructors, and goes on unwinding.
    Cleanup,
    /// It catches what has this type (`catch` in C++, `catch_unwind` in Rust).
    Catch(TypeInfo),
    /// It is for what has none of a list of types. An empty list means that nothing may pass:
    /// `noexcept` in old C++.
    Filter {
        /// Whether the list is empty.
        empty: bool,
    },
}

/// What a catching landing pad catches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeInfo {
    /// Everything. It is the only type that Rust has.
    Any,
    /// What the description at this address says.
    Direct(u64),
    /// What the description says whose address is in the eight bytes at this address.
    Indirect(u64),
}

impl<'a> Lsda<'a> {
    /// The table at `address` in `section` (`.gcc_except_table`), of the function whose entry in
    /// `.eh_frame` begins at `function`.
    ///
    /// # Errors
    /// If the head of the table is outside the section, too short, or encoded in a way that has no
    /// meaning.
    pub fn parse(
        section: LoadedSection<'a>,
        address: u64,
        function: u64,
    ) -> Result<Self, LsdaError> {
        let mut head = Cursor::new(section, address)?;
        let landing_pads = match DwEhPe(head.u8()?) {
            constants::DW_EH_PE_omit => function,
            encoding if encoding.is_indirect() => {
                return Err(LsdaError::UnsupportedEncoding(encoding.0));
            }
            encoding => head.pointer(encoding)?,
        };
        let types = match DwEhPe(head.u8()?) {
            constants::DW_EH_PE_omit => None,
            encoding => {
                let distance = head.uleb128()?;
                Some((encoding, head.address().wrapping_add(distance)))
            }
        };
        let call_site_encoding = DwEhPe(head.u8()?);
        let length = head.uleb128()?;
        let (call_sites, rest) = head.split(length)?;
        Ok(Self {
            section,
            function,
            landing_pads,
            call_site_encoding,
            call_sites,
            actions: rest.address(),
            types,
        })
    }

    /// The call sites in the table's order, which is that of their addresses.
    pub fn call_sites(&self) -> CallSites<'a> {
        CallSites {
            rest: Some(self.call_sites),
            encoding: self.call_site_encoding,
            function: self.function,
            landing_pads: self.landing_pads,
        }
    }

    /// The call site that `address`, a [lookup address](crate::unwind::FrameAddress), belongs to.
    ///
    /// As the personality routines search: to the first site that begins after `address`.
    ///
    /// # Errors
    /// If the table is bad before that.
    pub fn find(&self, address: u64) -> Result<Option<CallSite>, LsdaError> {
        for site in self.call_sites() {
            let site = site?;
            if address < site.start {
                return Ok(None);
            }
            if address < site.end {
                return Ok(Some(site));
            }
        }
        Ok(None)
    }

    /// What the landing pad of `site` is for: as a rule one action, several for one `try` with
    /// several `catch`.
    pub fn actions(&self, site: &CallSite) -> Actions<'a> {
        let next = match (site.landing_pad, site.action.checked_sub(1)) {
            (None, _) => Next::End,
            (Some(_), None) => Next::Cleanup,
            (Some(_), Some(offset)) => Next::At(self.actions.wrapping_add(offset)),
        };
        Actions { lsda: *self, next, left: Actions::LIMIT }
    }

    /// Type `index`, counted from 1 and backwards.
    fn type_info(&self, index: u64) -> Result<TypeInfo, LsdaError> {
        let (encoding, end) = self.types.ok_or(LsdaError::NoTypes)?;
        let offset = index.checked_mul(Cursor::width(encoding)?).ok_or(LsdaError::TooLarge)?;
        let pointer = Cursor::new(self.section, end.wrapping_sub(offset))?.pointer(encoding)?;
        Ok(match pointer {
            0 => TypeInfo::Any,
            address if encoding.is_indirect() => TypeInfo::Indirect(address),
            address => TypeInfo::Direct(address),
        })
    }

    /// Whether the list of types at `offset` has none: it begins with the zero that ends it.
    fn filter_is_empty(&self, offset: u64) -> Result<bool, LsdaError> {
        let (_, end) = self.types.ok_or(LsdaError::NoTypes)?;
        Ok(Cursor::new(self.section, end.wrapping_add(offset))?.uleb128()? == 0)
    }
}

/// The call sites of one function. After an error there are no more.
#[derive(Debug, Clone)]
pub struct CallSites<'a> {
    rest: Option<Cursor<'a>>,
    encoding: DwEhPe,
    function: u64,
    landing_pads: u64,
}

impl CallSites<'_> {
    fn read(&self, rest: &mut Cursor<'_>) -> Result<CallSite, LsdaError> {
        // Offsets all of them, so it does not matter what the encoding is relative to.
        let start = self.function.wrapping_add(rest.value(self.encoding)?);
        let end = start.wrapping_add(rest.value(self.encoding)?);
        let landing_pad = match rest.value(self.encoding)? {
            0 => None,
            offset => Some(self.landing_pads.wrapping_add(offset)),
        };
        Ok(CallSite { start, end, landing_pad, action: rest.uleb128()? })
    }
}

impl Iterator for CallSites<'_> {
    type Item = Result<CallSite, LsdaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.take().filter(|rest| !rest.is_empty())?;
        let site = self.read(&mut rest);
        // Each site takes at least four bytes, which bounds this by the table's length.
        self.rest = site.is_ok().then_some(rest);
        Some(site)
    }
}

impl FusedIterator for CallSites<'_> {}

/// The actions of one call site, in the order in which an unwinder tries them. After an error
/// there are no more.
#[derive(Debug, Clone)]
pub struct Actions<'a> {
    lsda: Lsda<'a>,
    next: Next,
    left: usize,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    End,
    /// No record: the landing pad cleans up.
    Cleanup,
    /// The record at this address.
    At(u64),
}

impl Actions<'_> {
    /// The most links that a chain of actions may have: more than the `catch` of any `try`.
    pub const LIMIT: usize = 256;

    /// The action at `address`, and the address of the next.
    fn read(&self, address: u64) -> Result<(Action, Next), LsdaError> {
        let mut record = Cursor::new(self.lsda.section, address)?;
        let filter = record.sleb128()?;
        let link = record.address();
        let next = match record.sleb128()? {
            0 => Next::End,
            distance => Next::At(link.wrapping_add_signed(distance)),
        };
        let action = match filter {
            0 => Action::Cleanup,
            1.. => Action::Catch(self.lsda.type_info(filter.unsigned_abs())?),
            _ => Action::Filter { empty: self.lsda.filter_is_empty(filter.unsigned_abs() - 1)? },
        };
        Ok((action, next))
    }
}

impl Iterator for Actions<'_> {
    type Item = Result<Action, LsdaError>;

    fn next(&mut self) -> Option<Self::Item> {
        match core::mem::replace(&mut self.next, Next::End) {
            Next::End => None,
            Next::Cleanup => Some(Ok(Action::Cleanup)),
            Next::At(_) if self.left == 0 => Some(Err(LsdaError::EndlessActions)),
            Next::At(address) => {
                self.left -= 1;
                Some(self.read(address).map(|(action, next)| {
                    self.next = next;
                    action
                }))
            }
        }
    }
}

impl FusedIterator for Actions<'_> {}
