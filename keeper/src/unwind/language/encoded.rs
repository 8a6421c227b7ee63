//! Reading encoded values from a section that is loaded at some address.

use gimli::{DwEhPe, EndianSlice, LittleEndian, Reader as _, constants};

use super::LsdaError;
use crate::unwind::LoadedSection;

/// A place in a section, from which values are read one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: EndianSlice<'a, LittleEndian>,
    /// The address of the next byte.
    address: u64,
}

impl From<gimli::Error> for LsdaError {
    /// All that can go wrong with a plain value is that it ends too late, or that it is a
    /// variable-length number of more than 64 bits.
    fn from(error: gimli::Error) -> Self {
        match error {
            gimli::Error::BadUnsignedLeb128 | gimli::Error::BadSignedLeb128 => Self::TooLarge,
            _ => Self::Truncated,
        }
    }
}

impl<'a> Cursor<'a> {
    /// At `address`, which has to lie in the section.
    pub(super) fn new(section: LoadedSection<'a>, address: u64) -> Result<Self, LsdaError> {
        let outside = LsdaError::OutsideSection(address);
        let offset = usize::try_from(address.wrapping_sub(section.address)).map_err(|_| outside)?;
        let rest = section.bytes.get(offset..).filter(|rest| !rest.is_empty()).ok_or(outside)?;
        Ok(Self { rest: EndianSlice::new(rest, LittleEndian), address })
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes, and the cursor after them.
    pub(super) fn split(mut self, length: u64) -> Result<(Self, Self), LsdaError> {
        let address = self.address;
        let length = usize::try_from(length).map_err(|_| LsdaError::Truncated)?;
        let bytes = self.take(|rest| rest.split(length))?;
        Ok((Self { rest: bytes, address }, self))
    }

    pub(super) fn u8(&mut self) -> Result<u8, LsdaError> {
        self.take(|rest| rest.read_u8())
    }

    pub(super) fn uleb128(&mut self) -> Result<u64, LsdaError> {
        self.take(|rest| rest.read_uleb128())
    }

    pub(super) fn sleb128(&mut self) -> Result<i64, LsdaError> {
        self.take(|rest| rest.read_sleb128())
    }

    /// A value as `encoding` says, without regard to what it is relative to (Linux Standard Base
    /// 5.0, Core, section 10.5.1).
    pub(super) fn value(&mut self, encoding: DwEhPe) -> Result<u64, LsdaError> {
        Ok(match encoding.format() {
            constants::DW_EH_PE_absptr
            | constants::DW_EH_PE_udata8
            | constants::DW_EH_PE_sdata8 => self.take(|rest| rest.read_u64())?,
            constants::DW_EH_PE_uleb128 => self.uleb128()?,
            constants::DW_EH_PE_sleb128 => self.sleb128()?.cast_unsigned(),
            constants::DW_EH_PE_udata2 => self.take(|rest| rest.read_u16())?.into(),
            constants::DW_EH_PE_udata4 => self.take(|rest| rest.read_u32())?.into(),
            constants::DW_EH_PE_sdata2 => {
                i64::from(self.take(|rest| rest.read_i16())?).cast_unsigned()
            }
            constants::DW_EH_PE_sdata4 => {
                i64::from(self.take(|rest| rest.read_i32())?).cast_unsigned()
            }
            _ => return Err(LsdaError::UnsupportedEncoding(encoding.0)),
        })
    }

    /// How many bytes a [`value`](Self::value) takes, if that is always the same.
    pub(super) fn width(encoding: DwEhPe) -> Result<u64, LsdaError> {
        match encoding.format() {
            constants::DW_EH_PE_absptr
            | constants::DW_EH_PE_udata8
            | constants::DW_EH_PE_sdata8 => Ok(8),
            constants::DW_EH_PE_udata4 | constants::DW_EH_PE_sdata4 => Ok(4),
            constants::DW_EH_PE_udata2 | constants::DW_EH_PE_sdata2 => Ok(2),
            _ => Err(LsdaError::UnsupportedEncoding(encoding.0)),
        }
    }

    /// An address as `encoding` says. If that has [`constants::DW_EH_PE_indirect`], it is the
    /// address of the address.
    pub(super) fn pointer(&mut self, encoding: DwEhPe) -> Result<u64, LsdaError> {
        let base = match encoding.application() {
            constants::DW_EH_PE_absptr => 0,
            constants::DW_EH_PE_pcrel => self.address,
            _ => return Err(LsdaError::UnsupportedEncoding(encoding.0)),
        };
        let value = self.value(encoding)?;
        // Zero is null, and not "here": libgcc reads it so, and compilers write it so.
        Ok(if value == 0 { 0 } else { base.wrapping_add(value) })
    }

    fn take<T>(
        &mut self,
        read: impl FnOnce(&mut EndianSlice<'a, LittleEndian>) -> gimli::Result<T>,
    ) -> Result<T, LsdaError> {
        let before = self.rest.len();
        let value = read(&mut self.rest)?;
        self.address = self.address.wrapping_add((before - self.rest.len()) as u64);
        Ok(value)
    }
}
