//! The images that tasks may run in: added and removed while others walk.
//!
//! A walk reads tables that somebody may want to remove, and it must neither lock nor wait: see the
//! module `slot` for how that goes together.

use core::fmt;

use self::slot::{Reading, Slot};
use super::{FrameAddress, Landing, UnwindTables};

mod rules;
mod slot;

pub use rules::ImageRules;

/// How many images an [`Images`] has room for unless its type says otherwise.
pub const MAX_IMAGES: usize = 32;

/// The unwind tables of up to `N` images: of a kernel and its modules.
///
/// Any number of walks may read while images are added and removed. A look-up takes no lock, never
/// waits, allocates nothing, and looks at each slot once.
///
/// `'a` lasts as long as this does. A loader of modules whose memory goes away makes slices of that
/// lifetime from it, and thereby promises what it keeps by freeing nothing before
/// [`remove`](Self::remove) has said `Ok`.
///
/// ```
/// use keeper::unwind::{Images, RemoveError, UnwindTables};
///
/// fn load_and_unload(images: &Images<'static>, module: UnwindTables<'static>) {
///     let id = images.add(module).expect("room, and addresses of its own");
///     // … tasks run in the module, and are walked …
///     while images.remove(id) == Err(RemoveError::Busy) {
///         yield_now();
///     }
///     // Now its memory can go.
/// }
/// # fn yield_now() {}
/// ```
pub struct Images<'a, const N: usize = MAX_IMAGES> {
    slots: [Slot<'a>; N],
}

/// An image in an [`Images`]: in that one, and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageId {
    slot: u32,
    /// Comes again after 2²⁹ images in this slot.
    generation: u32,
}

/// Why an image was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddError {
    /// There are as many images as there can be; those that are leaving count.
    Full,
    /// Its text overlaps that of an image that is there, or leaving, or being added just now. (Of
    /// two that overlap and are added at the same time, both may be refused, but never none.)
    Overlaps(ImageId),
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no room for another image"),
            Self::Overlaps(other) => write!(f, "its text overlaps that of image {}", other.slot),
        }
    }
}

impl core::error::Error for AddError {}

/// Why an image is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoveError {
    /// Some walk still reads its tables, which have to stay. No look-up finds the image any more:
    /// try again later. It stays so if a walker was killed inside a walk.
    Busy,
    /// There is no such image (any more).
    NoSuchImage,
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "a walk still reads the image's tables",
            Self::NoSuchImage => "no such image",
        })
    }
}

impl core::error::Error for RemoveError {}

impl<'a, const N: usize> Images<'a, N> {
    /// No images.
    pub const fn new() -> Self {
        Self { slots: [const { Slot::new() }; N] }
    }

    /// Adds the image with these tables. It takes no lock, but is not for the fault path: it tries
    /// again if others change the same slot.
    ///
    /// # Errors
    /// If there is no room, or its text overlaps that of another image.
    pub fn add(&self, tables: UnwindTables<'a>) -> Result<ImageId, AddError> {
        let (n, claimed) = (0..)
            .zip(&self.slots)
            .find_map(|(n, slot)| Some((n, slot.claim()?)))
            .ok_or(AddError::Full)?;
        let text = tables.text();
        let announced = claimed.announce(&text);
        // Each of two adders first announces its own and then looks for the other's, in one order
        // that both agree on: so at least one of them finds the other.
        for (other_n, other) in (0..).zip(&self.slots) {
            if other_n != n
                && let Some((other, generation)) = other.announced()
                && text.start < other.end
                && other.start < text.end
            {
                announced.withdraw();
                return Err(AddError::Overlaps(ImageId { slot: other_n, generation }));
            }
        }
        Ok(ImageId { slot: n, generation: announced.publish(tables) })
    }

    /// Removes an image: from now on, no look-up finds it. On `Ok`, nobody reads its tables any
    /// more.
    ///
    /// # Errors
    /// [`RemoveError::Busy`] if a walk is still in them: call it again later.
    pub fn remove(&self, id: ImageId) -> Result<(), RemoveError> {
        let slot = self.slots.get(id.slot as usize).ok_or(RemoveError::NoSuchImage)?;
        slot.remove(id.generation)
    }

    /// Whether `address` lies in the text of some image.
    pub fn text_contains(&self, address: u64) -> bool {
        read_at(&self.slots, address).is_some()
    }

    /// As [`UnwindTables::landing`], by the tables of the image that the frame is in.
    pub fn landing(&self, address: FrameAddress) -> Landing {
        let reading = read_at(&self.slots, address.lookup_address());
        reading.map_or(Landing::Unknown, |reading| reading.tables().landing(address))
    }
}

impl<const N: usize> Default for Images<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Images<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.slots.iter().filter_map(Slot::announced).map(|(text, _)| text);
        f.debug_list().entries(texts).finish()
    }
}

/// The image whose text contains `address`, to be read.
fn read_at<'i, 'a>(slots: &'i [Slot<'a>], address: u64) -> Option<Reading<'i, 'a>> {
    slots
        .iter()
        .filter(|slot| slot.may_contain(address))
        .find_map(|slot| slot.read().filter(|reading| reading.tables().text_contains(address)))
}
