//! Rules in sixteen bytes, and how the one for an address is found.
//!
//! ```text
//!  address - text.start = offset
//!  buckets[offset / 128] ──► the last row that begins at or before the bucket
//!                            rows[…], sorted by start: 1.8 of them to a bucket, on average
//! ```
//! The idea is that of Linux's ORC (Poimboeuf, "Reliable and fast DWARF-less unwinding", 2017):
//! most of what DWARF can say, compilers never do. A row that would have to say more says only
//! that `.eh_frame` is to be asked.

use task_model::Gpr;

use super::registers::CALLEE_SAVED;
use super::usual::{self, Slots, USUAL};
use super::{CfaRule, FrameRules, RegisterRule};

/// The rules that hold from one address of an image's text up to the next row's, in compact form.
///
/// For callers of [`UnwindTables::compile_into`](super::UnwindTables::compile_into), who provide
/// the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// As one load finds all of it in one cache line.
#[repr(C, align(16))]
pub struct CompactRow {
    /// Where it begins, as a distance from the start of the text.
    start: u32,
    /// From bit 0 on, how far into its function it begins; from [`USUAL_BIT`] on, which of the
    /// usual frames its frame is; from [`REGISTER_BIT`] on, the CFA's register; from [`KIND_BIT`]
    /// on, its [`Kind`].
    packed: u32,
    frame: FrameShape,
}

/// A frame. Eight bytes, which are copied as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct FrameShape {
    /// See [`Kind`].
    size: u16,
    saved: Slots,
}

impl FrameShape {
    const EMPTY: Self = Self { size: 0, saved: [0; CALLEE_SAVED.len()] };

    /// Where the registers are that it saves.
    #[inline]
    pub(super) const fn slots(self) -> Slots {
        self.saved
    }

    /// How far below the CFA the lowest slot is, in words; the return address has one.
    fn depth(self) -> u8 {
        self.saved.into_iter().fold(1, u8::max)
    }
}

/// From what RBP points to in a function that keeps a frame pointer, to the CFA: the caller's RBP
/// and the return address.
pub(super) const RBP_FRAME: u64 = 16;

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// In this and the next two, the return address is just below the CFA, and the registers are
    /// where the row says. Here the CFA is relative to RSP, all slots are above that, and `size` is
    /// how far above it the return address is, in bytes: to be added and no more.
    RspFrame = 0,
    /// The CFA is RBP plus [`RBP_FRAME`], and `size` is how far below it the lowest slot is.
    RbpFrame = 1,
    /// Neither, and the CFA is the register plus `size`.
    OtherFrame = 2,
    /// There is no caller.
    Entry = 3,
    /// Something that only `.eh_frame` can say.
    AskEhFrame = 4,
    /// No function is here.
    Gap = 5,
}

/// How much of the text one slot of the index stands for.
pub(super) const BUCKET_SIZE: u64 = 128;

/// At which bits of [`CompactRow::packed`] its numbers begin.
const USUAL_BIT: u32 = 20;
const REGISTER_BIT: u32 = 25;
const KIND_BIT: u32 = 29;

const MAX_FUNCTION_DISTANCE: u64 = (1 << USUAL_BIT) - 1;

impl CompactRow {
    /// A row that says nothing, for memory that is yet to be compiled into.
    pub const EMPTY: Self = Self::other(0, Kind::Gap);

    const fn other(start: u32, kind: Kind) -> Self {
        Self { start, packed: (kind as u32) << KIND_BIT, frame: FrameShape::EMPTY }
    }

    /// A row that says that no function is here.
    pub(super) const fn gap(start: u32) -> Self {
        Self::other(start, Kind::Gap)
    }

    /// A row that says to ask `.eh_frame`.
    pub(super) const fn ask(start: u32) -> Self {
        Self::other(start, Kind::AskEhFrame)
    }

    /// The row for `rules`, which hold from `start`, at `into_function` bytes in their function.
    pub(super) fn new(start: u32, into_function: u64, rules: &FrameRules<'_>) -> Self {
        Self::compact(start, into_function, rules).unwrap_or(Self::ask(start))
    }

    fn compact(start: u32, into_function: u64, rules: &FrameRules<'_>) -> Option<Self> {
        if into_function > MAX_FUNCTION_DISTANCE || rules.signal_frame {
            return None;
        }
        let row = |kind: Kind| Self {
            start,
            packed: into_function as u32 | (kind as u32) << KIND_BIT,
            ..Self::EMPTY
        };
        match rules.return_address {
            RegisterRule::Undefined => return Some(row(Kind::Entry)),
            RegisterRule::Offset(-8) => {}
            _ => return None,
        }
        let CfaRule::RegisterAndOffset(register, offset) = rules.cfa else { return None };
        let mut row = row(Kind::OtherFrame);
        row.packed |= (register as u32) << REGISTER_BIT;
        row.frame.size = words(offset)?.try_into().ok()?;
        for gpr in Gpr::ALL {
            let rule = rules.registers[gpr as usize];
            match CALLEE_SAVED.iter().position(|saved| *saved == gpr) {
                Some(n) => {
                    row.frame.saved[n] = match rule {
                        RegisterRule::Unspecified | RegisterRule::SameValue => 0,
                        RegisterRule::Offset(offset) if offset < 0 => {
                            words(offset.checked_neg()?)?.try_into().ok()?
                        }
                        _ => return None,
                    };
                }
                None if matches!(rule, RegisterRule::Unspecified) => {}
                None => return None,
            }
        }
        row.packed |= u32::from(usual::which(row.frame.saved)) << USUAL_BIT;
        let depth = u16::from(row.frame.depth());
        match register {
            Gpr::Rsp if depth <= row.frame.size => {
                // A larger one stays what any other is.
                if let Ok(distance) = u16::try_from(offset - 8) {
                    row.set_kind(Kind::RspFrame);
                    row.frame.size = distance;
                }
            }
            Gpr::Rbp if u64::from(row.frame.size) * 8 == RBP_FRAME => {
                row.set_kind(Kind::RbpFrame);
                row.frame.size = depth;
            }
            _ => {}
        }
        Some(row)
    }

    const fn set_kind(&mut self, kind: Kind) {
        self.packed = self.packed & ((1 << KIND_BIT) - 1) | (kind as u32) << KIND_BIT;
    }

    const fn is(&self, kind: Kind) -> bool {
        self.packed >> KIND_BIT == kind as u32
    }

    /// Whether both rows say the same of any address that they hold for.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let has_rules = self.packed >> KIND_BIT <= Kind::Entry as u32;
        self.packed >> REGISTER_BIT == other.packed >> REGISTER_BIT
            && self.frame == other.frame
            && (!has_rules || self.function() == other.function())
    }

    /// Whether it says to ask `.eh_frame`.
    pub(super) const fn asks(&self) -> bool {
        self.is(Kind::AskEhFrame)
    }

    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    /// Where its function begins, as a distance from the start of the text; it may begin before.
    const fn function(&self) -> i64 {
        self.start as i64 - (self.packed & MAX_FUNCTION_DISTANCE as u32) as i64
    }
}

/// `offset` in words, if it is a whole number of them.
fn words(offset: i64) -> Option<u64> {
    let offset = u64::try_from(offset).ok()?;
    offset.is_multiple_of(8).then_some(offset / 8)
}

/// The rows of one image and the index into them; empty if it has not been compiled. The last row
/// is a gap, at the end of the text or before.
#[derive(Debug, Clone, Copy)]
pub(super) struct CompactRows<'a> {
    pub(super) rows: &'a [CompactRow],
    /// For each [`BUCKET_SIZE`] bytes of text, the last row that begins at or before them.
    pub(super) buckets: &'a [u32],
}

impl<'a> CompactRows<'a> {
    pub(super) const NONE: Self = Self { rows: &[], buckets: &[] };

    /// The row for `offset`, a distance from the start of the text; none behind its last function.
    ///
    /// Looks at no more rows than a bucket has bytes. The processor guesses where that ends and
    /// goes on with the row; if it were searched by halves, it would have to wait.
    #[inline]
    pub(super) fn find(&self, offset: u64) -> Option<&'a CompactRow> {
        let mut n = *self.buckets.get(usize::try_from(offset / BUCKET_SIZE).ok()?)? as usize;
        // What has no next row is the gap behind all others.
        let mut next = self.rows.get(n + 1)?;
        let mut row = &self.rows[n];
        while u64::from(next.start) <= offset {
            n += 1;
            row = next;
            next = self.rows.get(n + 1)?;
        }
        Some(row)
    }
}

/// A row's rules, and its place.
#[derive(Debug, Clone, Copy)]
pub struct CompactRule<'a> {
    row: &'a CompactRow,
    text_start: u64,
}

impl<'a> CompactRule<'a> {
    /// The rule in `row`, or `None` if it has none.
    #[inline]
    pub(super) fn new(row: &'a CompactRow, text_start: u64) -> Option<Self> {
        (row.packed >> KIND_BIT <= Kind::Entry as u32).then_some(Self { row, text_start })
    }

    /// Where the function's entry in the tables begins.
    #[inline]
    pub fn function(&self) -> u64 {
        self.text_start.wrapping_add_signed(self.row.function())
    }

    /// Whether there is no caller.
    pub const fn is_entry(&self) -> bool {
        self.row.is(Kind::Entry)
    }

    /// The register that the CFA is computed from.
    pub const fn cfa_register(&self) -> Gpr {
        Gpr::ALL[(self.row.packed >> REGISTER_BIT & 0xf) as usize]
    }

    /// If the CFA is relative to RSP, and all slots are above that: how far above it the return
    /// address is, in bytes.
    #[inline]
    pub(super) fn distance_above_rsp(&self) -> Option<u64> {
        self.row.is(Kind::RspFrame).then_some(u64::from(self.row.frame.size))
    }

    /// If the CFA is RBP plus [`RBP_FRAME`]: how far below it the lowest slot is, in bytes.
    #[inline]
    pub(super) fn depth_below_rbp_frame(&self) -> Option<u64> {
        self.row.is(Kind::RbpFrame).then_some(u64::from(self.row.frame.size) * 8)
    }

    /// What is to be added to [`cfa_register`](Self::cfa_register), in bytes.
    pub const fn cfa_offset(&self) -> u64 {
        let size = self.row.frame.size as u64;
        if self.row.is(Kind::RbpFrame) {
            RBP_FRAME
        } else if self.row.is(Kind::RspFrame) {
            size + 8
        } else {
            size * 8
        }
    }

    /// Which of the [usual](super::usual) frames it is.
    #[inline]
    pub(super) const fn usual(&self) -> u8 {
        const MASK: u32 = (1 << (REGISTER_BIT - USUAL_BIT)) - 1;
        const { assert!(USUAL.len() <= MASK as usize, "no number is left for the others") };
        (self.row.packed >> USUAL_BIT & MASK) as u8
    }

    #[inline]
    pub(super) const fn frame(&self) -> FrameShape {
        self.row.frame
    }

    /// The six registers that a function must give back, each with its slot's distance below the
    /// CFA in bytes, or `None` if the row does not say that it was saved.
    pub fn saved(&self) -> impl Iterator<Item = (Gpr, Option<u64>)> + use<> {
        CALLEE_SAVED
            .into_iter()
            .zip(self.row.frame.saved)
            .map(|(gpr, words)| (gpr, (words != 0).then_some(u64::from(words) * 8)))
    }
}

impl From<CompactRule<'_>> for FrameRules<'static> {
    /// The same rules, in full.
    fn from(rule: CompactRule<'_>) -> Self {
        let mut rules = Self {
            function: rule.function(),
            signal_frame: false,
            cfa: CfaRule::RegisterAndOffset(rule.cfa_register(), rule.cfa_offset().cast_signed()),
            return_address: RegisterRule::Offset(-8),
            registers: [RegisterRule::Unspecified; 16],
        };
        if rule.is_entry() {
            rules.return_address = RegisterRule::Undefined;
        }
        for (gpr, slot) in rule.saved() {
            if let Some(distance) = slot {
                rules.registers[gpr as usize] = RegisterRule::Offset(-distance.cast_signed());
            }
        }
        rules
    }
}
