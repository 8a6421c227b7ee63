//! What has to be known of the kernel in order to step through it.

use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use keeper::unwind::{LoadedSection, UnwindTables};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use task_model::StackBounds;
use validator::{Image, Images, leaked};

use super::{plant, stack_layout};

/// What a fault goes through.
const LANDMARKS: [(&str, &str); 3] = [
    ("fault", "demo_kernel::keeping::task_faulted"),
    ("settling", "drop_registry::window::WindowTable::pending"),
    ("report", "<keeper::report::Report as core::fmt::Display>::fmt"),
];

/// Addresses in the kernel's image.
#[derive(Debug)]
pub(super) struct Layout {
    /// The first instruction of every task.
    pub(super) task_start: u64,
    /// Where each trap comes by, with all registers but RIP and RSP as they were.
    pub(super) trap_entry: u64,
    /// The first instructions of what a fault goes through.
    pub(super) landmarks: Vec<(&'static str, u64)>,
    /// The trap stubs.
    pub(super) trap_text: Range<u64>,
    /// Where it can be written: a task's saved registers lie there.
    pub(super) data: Range<u64>,
    text: LoadedSection<'static>,
}

impl Layout {
    /// Reads the kernel's file. In the images' tables the entry of the function `planted` is wrong.
    ///
    /// # Errors
    /// If it is not the demo kernel, or has no such function.
    pub(super) fn read(kernel: &Path, planted: Option<&str>) -> anyhow::Result<(Self, Images)> {
        let bytes = std::fs::read(kernel).context("cannot read the kernel")?;
        let file = object::File::parse(&*bytes).context("the kernel is no ELF file")?;
        let section = |name| -> anyhow::Result<LoadedSection<'static>> {
            let section = file.section_by_name(name).with_context(|| format!("no {name}"))?;
            Ok(leaked(section.data()?.to_vec(), section.address()))
        };
        let symbol = |name: &str| {
            let found = file.symbols().find(|symbol| {
                let symbol = symbol.name().unwrap_or_default();
                symbol == name || format!("{:#}", validator::demangle(symbol)) == name
            });
            Ok::<_, anyhow::Error>(found.with_context(|| format!("no symbol {name}"))?.address())
        };
        let text = section(".text")?;
        let mut eh_frame = section(".eh_frame")?;
        if let Some(function) = planted {
            eh_frame = plant::wrong_register(eh_frame, symbol(function)?)?;
        }
        let range = text.address..text.address + text.bytes.len() as u64;
        let tables =
            UnwindTables::new(section(".eh_frame_hdr")?, eh_frame, range.clone())?.with_code(text);
        let mut image = Image::new("kernel".to_owned(), tables, range, 0)?;
        image.name_functions(&file);
        let mut images = Images::default();
        images.push(image);
        let layout = Self {
            task_start: symbol("demo_kernel::tasks::spawn::bottom_frame")?,
            trap_entry: symbol("demo_kernel::traps::stubs::save_and_dispatch")?,
            landmarks: LANDMARKS
                .map(|(name, at)| Ok((name, symbol(at)?)))
                .into_iter()
                .collect::<anyhow::Result<_>>()?,
            trap_text: symbol("__trap_text_start")?..symbol("__trap_text_end")?,
            data: symbol("__data_start")?..symbol("__image_end")?,
            text,
        };
        Ok((layout, images))
    }

    /// The code from `address` on.
    pub(super) fn code(&self, address: u64) -> &[u8] {
        let offset = address.checked_sub(self.text.address).map(|offset| offset as usize);
        offset.and_then(|offset| self.text.bytes.get(offset..)).unwrap_or_default()
    }
}

/// The number of the stack that `address` is in or at the top of, and its bounds.
pub(super) fn stack_of(address: u64) -> Option<(usize, StackBounds)> {
    let number = address.checked_sub(stack_layout::REGION + 1)? / stack_layout::SLOT_SIZE;
    let number = usize::try_from(number).ok().filter(|number| *number < stack_layout::COUNT)?;
    Some((number, stack_layout::bounds(number)))
}

#[cfg(test)]
mod tests {
    use super::stack_layout::{COUNT, REGION, SIZE, bounds};
    use super::*;

    #[test]
    fn the_top_of_a_stack_belongs_to_it() {
        let first = bounds(0);
        assert_eq!(first.size(), SIZE);
        assert_eq!(stack_of(first.top()), Some((0, first)));
        assert_eq!(stack_of(first.top() + 1).unwrap().0, 1);
        assert_eq!(stack_of(REGION), None);
        assert!(stack_of(bounds(COUNT - 1).top()).is_some());
        assert_eq!(stack_of(bounds(COUNT - 1).top() + 1), None);
    }
}
