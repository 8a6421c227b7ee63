//! `.eh_frame`, decoded once into compact rows.

#[cfg(feature = "alloc")]
use alloc::{boxed::Box, vec};
use core::fmt;

use super::compact::{BUCKET_SIZE, CompactRows};
use super::eh_frame::Decoder;
use super::{CompactRow, TablesError, UnwindTables};

/// How large an image's tables are in compact form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompiledSize {
    /// Functions in the search table.
    pub functions: usize,
    /// Rows, for all of the text.
    pub rows: usize,
    /// Those of the rows that leave it to `.eh_frame`.
    pub rows_asking: usize,
    /// Slots of the index into the rows.
    pub buckets: usize,
}

impl CompiledSize {
    /// The memory that they take, in bytes.
    pub const fn bytes(&self) -> usize {
        self.rows * size_of::<CompactRow>() + self.buckets * size_of::<u32>()
    }
}

impl fmt::Display for CompiledSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { functions, rows, rows_asking, buckets } = self;
        let each = self.bytes().checked_div(*functions).unwrap_or(0);
        write!(
            f,
            "{functions} functions in {rows} rows and {buckets} buckets: {} bytes, {each} for each \
             function; {rows_asking} rows ask .eh_frame",
            self.bytes()
        )
    }
}

/// Memory for one image's compiled tables, from the allocator.
#[cfg(feature = "alloc")]
#[derive(Debug)]
pub struct CompiledMemory {
    rows: Box<[CompactRow]>,
    buckets: Box<[u32]>,
}

#[cfg(feature = "alloc")]
impl CompiledMemory {
    /// As much as `size` says.
    pub fn new(size: &CompiledSize) -> Self {
        Self {
            rows: vec![CompactRow::EMPTY; size.rows].into(),
            buckets: vec![0; size.buckets].into(),
        }
    }
}

impl<'a> UnwindTables<'a> {
    /// [`compile_into`](Self::compile_into) for memory from the allocator.
    ///
    /// ```no_run
    /// use keeper::unwind::{CompiledMemory, TablesError, UnwindTables};
    ///
    /// fn compiled(tables: UnwindTables<'static>) -> Result<UnwindTables<'static>, TablesError> {
    ///     let size = tables.compiled_size()?;
    ///     log(&size);
    ///     tables.compile(Box::leak(Box::new(CompiledMemory::new(&size))))
    /// }
    /// # fn log(_: &impl std::fmt::Display) {}
    /// ```
    ///
    /// # Errors
    /// As [`compile_into`](Self::compile_into).
    #[cfg(feature = "alloc")]
    pub fn compile<'m>(
        self,
        memory: &'m mut CompiledMemory,
    ) -> Result<UnwindTables<'m>, TablesError>
    where
        'a: 'm,
    {
        self.compile_into(&mut memory.rows, &mut memory.buckets)
    }

    /// How much memory [`compile_into`](Self::compile_into) needs. Decodes all of `.eh_frame`.
    ///
    /// # Errors
    /// [`TablesError::TextTooLarge`] if the text has 4 GiB or more.
    pub fn compiled_size(&self) -> Result<CompiledSize, TablesError> {
        let text_size = self.compilable_text_size()?;
        let (mut rows, mut rows_asking) = (0, 0);
        for_each_row(self, text_size, |row| {
            rows += 1;
            rows_asking += usize::from(row.asks());
        });
        let buckets = bucket_count(text_size);
        Ok(CompiledSize { functions: self.function_count(), rows, rows_asking, buckets })
    }

    /// These tables with a compact form beside them, in which nearly every rule is found without
    /// decoding anything. Decodes all of `.eh_frame`, and allocates nothing.
    ///
    /// What an entry that does not parse would say is still found out only when it is needed.
    ///
    /// # Errors
    /// [`TablesError::NoRoom`] if the memory is smaller than
    /// [`compiled_size`](Self::compiled_size) says; [`TablesError::TextTooLarge`] as that does.
    pub fn compile_into<'m>(
        self,
        rows: &'m mut [CompactRow],
        buckets: &'m mut [u32],
    ) -> Result<UnwindTables<'m>, TablesError>
    where
        'a: 'm,
    {
        let text_size = self.compilable_text_size()?;
        let mut row_count = 0;
        for_each_row(&self, text_size, |row| {
            if let Some(slot) = rows.get_mut(row_count) {
                *slot = row;
            }
            row_count += 1;
        });
        let bucket_count = bucket_count(text_size);
        let no_room = TablesError::NoRoom { rows: row_count, buckets: bucket_count };
        let rows: &'m [CompactRow] = rows.get(..row_count).ok_or(no_room)?;
        let buckets = buckets.get_mut(..bucket_count).ok_or(no_room)?;
        let mut last = 0;
        for (slot, start) in buckets.iter_mut().zip((0..).step_by(BUCKET_SIZE as usize)) {
            let later = &rows[last as usize + 1..];
            last += later.iter().take_while(|row| u64::from(row.start()) <= start).count() as u32;
            *slot = last;
        }
        Ok(self.with_compact(CompactRows { rows, buckets }))
    }

    fn compilable_text_size(&self) -> Result<u32, TablesError> {
        let text = self.text();
        let size = text.end - text.start;
        u32::try_from(size).map_err(|_| TablesError::TextTooLarge(size))
    }
}

/// One for each bucket that is begun.
fn bucket_count(text_size: u32) -> usize {
    u64::from(text_size).div_ceil(BUCKET_SIZE) as usize
}

/// Gives out the rows that cover the text from its start to its end, in their order.
fn for_each_row(tables: &UnwindTables<'_>, text_size: u32, mut each: impl FnMut(CompactRow)) {
    let mut last: Option<CompactRow> = None;
    let mut emit = |row: CompactRow| {
        if last.is_none_or(|last| !last.says_the_same(&row)) {
            each(row);
            last = Some(row);
        }
    };
    let text_start = tables.text().start;
    // Distances are sorted as the search table is: in any part of the address space.
    let offset = |address: u64| {
        let distance = address.wrapping_sub(text_start).cast_signed();
        u32::try_from(distance.max(0)).unwrap_or(u32::MAX).min(text_size)
    };
    let mut decoder = Decoder::new();
    let mut covered = 0;
    for n in 0.. {
        let Some((start, fde)) = tables.function(n) else { break };
        let begin = offset(start);
        let end = tables.function(n + 1).map_or(text_size, |(next, _)| offset(next));
        if begin >= end {
            continue;
        }
        if begin > covered {
            emit(CompactRow::gap(covered));
        }
        // As far as rows have been given out, from here on for this function.
        covered = begin;
        let decoded = decoder.for_each_row(tables, start, fde, |row, rules| {
            let (from, to) = (offset(row.start), offset(row.end).min(end));
            if from == covered && from < to {
                let into_function = u64::from(from).wrapping_add(text_start).wrapping_sub(start);
                emit(match rules {
                    Some(rules) => CompactRow::new(from, into_function, &rules),
                    None => CompactRow::ask(from),
                });
                covered = to;
            }
        });
        // What could not be decoded now cannot be later, but it is for `.eh_frame` to say so.
        let function_end = decoded.map_or(end, |function_end| offset(function_end).min(end));
        if covered < function_end {
            emit(CompactRow::ask(covered));
            covered = function_end;
        }
    }
    // An end for all searches. If it is that of the text, it holds for no address.
    emit(CompactRow::gap(covered));
}
