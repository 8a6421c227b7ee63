//! The rules of many images.

use core::fmt;

use super::slot::{Reading, Slot};
use super::{Images, read_at};
use crate::unwind::{CompactRule, EhFrameRules, FrameRules, RuleSource, UnwindTables, WalkError};

/// The rules of all images in an [`Images`].
///
/// It stays in the image of the last frame for as long as frames are in that, so that most steps
/// are those of a walk through one image. Until it is dropped or has gone on to another image, that
/// image cannot be [removed](Images::remove); so keep it for one walk, and not for the next.
///
/// It holds an [`EhFrameRules`].
pub struct ImageRules<'i, 'a> {
    slots: &'i [Slot<'a>],
    /// The image that `rules` are of, which is read until this is dropped.
    reading: Option<Reading<'i, 'a>>,
    rules: EhFrameRules<'a>,
}

impl<'i, 'a> ImageRules<'i, 'a> {
    /// The rules of `images`, and of those that are added later.
    pub fn new<const N: usize>(images: &'i Images<'a, N>) -> Self {
        let rules = EhFrameRules::new(UnwindTables::NONE);
        Self { slots: &images.slots, reading: None, rules }
    }

    /// Makes the rules those for `address`: of its image, or none.
    #[inline]
    fn enter(&mut self, address: u64) {
        if !self.rules.text_contains(address) {
            self.change(address);
        }
    }

    #[cold]
    #[inline(never)]
    fn change(&mut self, address: u64) {
        let reading = read_at(self.slots, address);
        self.rules.set_tables(reading.as_ref().map_or(UnwindTables::NONE, |it| *it.tables()));
        self.reading = reading;
    }
}

impl RuleSource for ImageRules<'_, '_> {
    #[inline]
    fn compact_rule_at(&mut self, address: u64) -> Option<CompactRule<'_>> {
        self.enter(address);
        self.rules.compact_rule_at(address)
    }

    fn rules_at(&mut self, address: u64) -> Result<FrameRules<'_>, WalkError> {
        self.enter(address);
        self.rules.rules_at(address)
    }

    #[inline]
    fn text_contains(&self, address: u64) -> bool {
        self.rules.text_contains(address) || in_another(self.slots, address)
    }

    fn may_follow_call(&self, return_address: u64) -> bool {
        // In the image that the call's last byte is in.
        let call = return_address.wrapping_sub(1);
        if self.rules.text_contains(call) {
            return self.rules.may_follow_call(return_address);
        }
        read_at(self.slots, call)
            .is_none_or(|reading| reading.tables().may_follow_call(return_address))
    }
}

#[cold]
#[inline(never)]
fn in_another(slots: &[Slot<'_>], address: u64) -> bool {
    read_at(slots, address).is_some()
}

impl fmt::Debug for ImageRules<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.reading.as_ref().map(|reading| reading.tables().text());
        f.debug_struct("ImageRules").field("text", &text).finish_non_exhaustive()
    }
}
