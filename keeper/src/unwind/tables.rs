//! The unwind sections of one image, and the search in them.
//!
//! `.eh_frame_hdr` is a header of 12 bytes and a table sorted by function, by which the entry for
//! an address is found without reading `.eh_frame` from its start (Linux Standard Base 5.0, Core,
//! section 10.6.2).

use core::ops::Range;

use super::call::ends_with_call;
use super::compact::CompactRows;
use super::{CompactRule, TablesError};

/// A section's bytes and the address that they are linked (or loaded) to run at.
///
/// The two may differ in a test. In a kernel the address is that of the bytes.
#[derive(Debug, Clone, Copy)]
pub struct LoadedSection<'a> {
    /// The contents.
    pub bytes: &'a [u8],
    /// The address of the first byte, which everything relative in the section is relative to.
    pub address: u64,
}

/// `.eh_frame_hdr`, `.eh_frame` and the text of one image, found to fit together.
#[derive(Debug, Clone, Copy)]
pub struct UnwindTables<'a> {
    /// The search table: a function's start and its entry's address, both as signed 32-bit
    /// distances from the header.
    rows: &'a [[u8; ROW_SIZE]],
    header_address: u64,
    eh_frame: LoadedSection<'a>,
    text_start: u64,
    text_size: u64,
    compact: CompactRows<'a>,
    language_tables: Option<LoadedSection<'a>>,
    code: Option<LoadedSection<'a>>,
}

const HEADER_SIZE: usize = 12;
const ROW_SIZE: usize = 8;

// Pointer encodings (Linux Standard Base 5.0, Core, section 10.5). GNU ld, gold, lld and mold all
// write these three and no others, and libgcc searches no other table than this one.
const PCREL_SDATA4: u8 = 0x1b;
const UDATA4: u8 = 0x03;
const DATAREL_SDATA4: u8 = 0x3b;
const OMIT: u8 = 0xff;

impl<'a> UnwindTables<'a> {
    /// Tables of no image: no address is in its text.
    pub(super) const NONE: Self = Self {
        rows: &[],
        header_address: 0,
        eh_frame: LoadedSection { bytes: &[], address: 0 },
        text_start: 0,
        text_size: 0,
        compact: CompactRows::NONE,
        language_tables: None,
        code: None,
    };

    /// Checks an image's tables.
    ///
    /// `text` is the range of addresses that hold the image's code: a return address outside of it
    /// ends a walk. `eh_frame` may have bytes after the section's end. Looks at every row of the
    /// search table once, so call it at start-up.
    ///
    /// # Errors
    /// As [`TablesError`] says. What the entries in `.eh_frame` say is not looked at yet.
    pub fn new(
        header: LoadedSection<'a>,
        eh_frame: LoadedSection<'a>,
        text: Range<u64>,
    ) -> Result<Self, TablesError> {
        let eh_frame_address = Self::eh_frame_address(header)?;
        if eh_frame_address != eh_frame.address {
            return Err(TablesError::WrongEhFrame(eh_frame_address));
        }
        let rows = search_table(header.bytes)?;
        if text.is_empty() {
            return Err(TablesError::EmptyText);
        }
        let tables = Self {
            rows,
            header_address: header.address,
            eh_frame,
            text_start: text.start,
            text_size: text.end - text.start,
            compact: CompactRows::NONE,
            language_tables: None,
            code: None,
        };
        let mut previous = i32::MIN;
        for (n, row) in rows.iter().enumerate() {
            if function_distance(row) < previous {
                return Err(TablesError::Unsorted(n));
            }
            previous = function_distance(row);
            if tables.fde_offset(row) >= eh_frame.bytes.len() as u64 {
                return Err(TablesError::FdeOutOfRange(n));
            }
        }
        Ok(tables)
    }

    /// Adds the image's language tables, `.gcc_except_table`, for [`landing`](Self::landing). It
    /// may have bytes before and after the section. A walk does not need it.
    #[must_use]
    pub const fn with_language_tables(self, section: LoadedSection<'a>) -> Self {
        Self { language_tables: Some(section), ..self }
    }

    /// Adds the image's code, all of its text, so that a walk can see whether a call comes before
    /// what it takes for the return address of an interrupted function.
    ///
    /// The code must not change for as long as these tables live: a kernel that patches its own
    /// does without this.
    #[must_use]
    pub const fn with_code(self, code: LoadedSection<'a>) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Whether a call may come right before `return_address`: always, if the code is not known, and
    /// never at an address outside of it.
    pub(super) fn may_follow_call(&self, return_address: u64) -> bool {
        let Some(code) = self.code else { return true };
        let end = usize::try_from(return_address.wrapping_sub(code.address)).ok();
        end.and_then(|end| code.bytes.get(..end)).is_some_and(ends_with_call)
    }

    /// Where the `.eh_frame` is that this `.eh_frame_hdr` was made for.
    ///
    /// For those who have only a `PT_GNU_EH_FRAME` program header to start from.
    ///
    /// # Errors
    /// If the header is missing, of another version, or encodes the address in an unknown way.
    pub fn eh_frame_address(header: LoadedSection<'_>) -> Result<u64, TablesError> {
        let &[version, eh_frame_encoding, _, _, d0, d1, d2, d3, ..] = header.bytes else {
            return Err(TablesError::MissingHeader);
        };
        if version != 1 {
            return Err(TablesError::UnknownVersion(version));
        }
        if eh_frame_encoding != PCREL_SDATA4 {
            return Err(TablesError::UnsupportedEncoding(eh_frame_encoding));
        }
        let distance = i32::from_le_bytes([d0, d1, d2, d3]);
        // Relative to the field itself, which follows four bytes of version and encodings.
        Ok(header.address.wrapping_add(4).wrapping_add_signed(distance.into()))
    }

    /// The number of functions in the search table.
    pub const fn function_count(&self) -> usize {
        self.rows.len()
    }

    /// `.eh_frame`.
    pub(super) const fn eh_frame(&self) -> LoadedSection<'a> {
        self.eh_frame
    }

    /// The same tables, with `compact` made from them.
    pub(super) const fn with_compact<'m>(self, compact: CompactRows<'m>) -> UnwindTables<'m>
    where
        'a: 'm,
    {
        UnwindTables { compact, ..self }
    }

    /// The text.
    pub(super) const fn text(&self) -> Range<u64> {
        self.text_start..self.text_start + self.text_size
    }

    /// `.gcc_except_table`, if it is known.
    pub(super) const fn language_tables(&self) -> Option<LoadedSection<'a>> {
        self.language_tables
    }

    /// Whether `address` lies in the text.
    #[inline]
    pub const fn text_contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.text_start) < self.text_size
    }

    /// The rule at `address`, if it is in the text and these tables have a compact one.
    #[inline]
    pub(super) fn compact_rule_at(&self, address: u64) -> Option<CompactRule<'a>> {
        // An address outside of the text is in no bucket, or in a gap.
        let row = self.compact.find(address.wrapping_sub(self.text_start))?;
        CompactRule::new(row, self.text_start)
    }

    /// Where function `n` of the search table begins, and its entry's offset in `.eh_frame`.
    pub(super) fn function(&self, n: usize) -> Option<(u64, usize)> {
        let row = self.rows.get(n)?;
        let start = self.header_address.wrapping_add_signed(function_distance(row).into());
        Some((start, usize::try_from(self.fde_offset(row)).ok()?))
    }

    /// The offset in `.eh_frame` of the last entry that begins at or before `address`.
    ///
    /// Whether its function reaches as far as `address`, the entry itself must say.
    pub(super) fn find(&self, address: u64) -> Option<usize> {
        // By distance from the header, as the rows are sorted: that order holds in every part of
        // the address space, and an address too far away comes before or after all rows.
        let distance = address.wrapping_sub(self.header_address).cast_signed();
        let after = self.rows.partition_point(|row| i64::from(function_distance(row)) <= distance);
        let row = self.rows.get(after.checked_sub(1)?)?;
        usize::try_from(self.fde_offset(row)).ok()
    }

    /// The offset in `.eh_frame` that `row` points to; huge if it points before the section.
    fn fde_offset(&self, row: &[u8; ROW_SIZE]) -> u64 {
        let &[_, _, _, _, d0, d1, d2, d3] = row;
        let distance = i32::from_le_bytes([d0, d1, d2, d3]);
        self.header_address.wrapping_add_signed(distance.into()).wrapping_sub(self.eh_frame.address)
    }
}

/// The distance from the header to the start of the row's function.
fn function_distance(row: &[u8; ROW_SIZE]) -> i32 {
    let &[d0, d1, d2, d3, ..] = row;
    i32::from_le_bytes([d0, d1, d2, d3])
}

/// The rows of the search table in `.eh_frame_hdr`, whose version has been checked.
fn search_table(header: &[u8]) -> Result<&[[u8; ROW_SIZE]], TablesError> {
    let &[_, _, count_encoding, table_encoding, ..] = header else {
        return Err(TablesError::MissingHeader);
    };
    if count_encoding == OMIT || table_encoding == OMIT {
        return Err(TablesError::NoSearchTable);
    }
    if count_encoding != UDATA4 {
        return Err(TablesError::UnsupportedEncoding(count_encoding));
    }
    if table_encoding != DATAREL_SDATA4 {
        return Err(TablesError::UnsupportedEncoding(table_encoding));
    }
    let Some((fixed, table)) = header.split_first_chunk::<HEADER_SIZE>() else {
        return Err(TablesError::MissingHeader);
    };
    let &[.., c0, c1, c2, c3] = fixed;
    let count = u32::from_le_bytes([c0, c1, c2, c3]);
    if count == 0 {
        return Err(TablesError::NoSearchTable);
    }
    let (rows, _padding) = table.as_chunks::<ROW_SIZE>();
    rows.get(..count as usize).ok_or(TablesError::Truncated(count))
}
