//! The guest's memory, as a walk may see it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use anyhow::Context as _;
use task_model::{ReadError, StackBounds, StackMemory};
use validator::StackCopy;

use super::layout::stack_of;
use crate::gdb::Gdb;

/// How much of the data is read at once: about the general-purpose registers of a save area.
const BLOCK: u64 = 256;

/// The stacks that a walk comes through: one, or in a trap the trap's and those interrupted. In a
/// trap the save areas too, which are in the kernel's data.
pub(super) struct TrapMemory<'g> {
    stacks: Vec<StackCopy>,
    gdb: RefCell<&'g mut Gdb>,
    /// What has been read of the data, by block.
    blocks: RefCell<HashMap<u64, [u8; BLOCK as usize]>>,
    data: Range<u64>,
}

impl<'g> TrapMemory<'g> {
    /// No stack yet.
    pub(super) fn new(gdb: &'g mut Gdb, data: Range<u64>) -> Self {
        Self { stacks: vec![], gdb: RefCell::new(gdb), blocks: RefCell::default(), data }
    }

    /// Adds the stack with this stack pointer.
    pub(super) fn add(&mut self, sp: u64) -> anyhow::Result<()> {
        let (_, bounds) = stack_of(sp).context("no stack")?;
        let gdb = self.gdb.get_mut();
        self.stacks.push(StackCopy::take(bounds, sp, |bytes, at| gdb.read(bytes, at))?);
        Ok(())
    }
}

impl TrapMemory<'_> {
    fn read_data(&self, address: u64) -> anyhow::Result<u64> {
        let start = address & !(BLOCK - 1);
        let mut blocks = self.blocks.borrow_mut();
        let block = match blocks.entry(start) {
            Entry::Occupied(block) => block.into_mut(),
            Entry::Vacant(place) => {
                let mut block = [0; BLOCK as usize];
                self.gdb.borrow_mut().read(&mut block, start)?;
                place.insert(block)
            }
        };
        let (words, _) = block.as_chunks::<8>();
        Ok(u64::from_le_bytes(words[(address - start) as usize / 8]))
    }
}

impl StackMemory for TrapMemory<'_> {
    /// From the lowest stack's base to the highest one's top.
    fn bounds(&self) -> StackBounds {
        let all = || self.stacks.iter().map(StackMemory::bounds);
        let base = all().map(|bounds| bounds.base()).min().unwrap_or_default();
        let top = all().map(|bounds| bounds.top()).max().unwrap_or_default();
        StackBounds::new(base, top, 0).expect("there is a stack")
    }

    fn read_u64(&self, address: u64) -> Result<u64, ReadError> {
        let found = self.stacks.iter().find(|stack| stack.bounds().contains(address, 8));
        if let Some(stack) = found {
            return stack.read_u64(address);
        }
        if self.stacks.len() > 1 && self.data.contains(&address) && address.is_multiple_of(8) {
            return self.read_data(address).map_err(|_| ReadError::OutOfStack(address));
        }
        Err(ReadError::OutOfStack(address))
    }
}
