//! The frozen task.
#![expect(unsafe_code, reason = "reads and writes the stack of another task")]

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::{ReadError, RegisterFile, StackBounds, StackMemory, TaskId};

/// A task that cannot run while this value exists.
///
/// It is the key that KeyKOS hands to a keeper: through it, and through nothing else, the
/// stopped task's registers and stack are read and changed. Whoever froze the task makes it; the
/// lifetime is that of the task's record, not of the freeze, so a platform hands it out by value
/// and takes it back by value when the task is to resume or retire.
#[derive(Debug)]
pub struct FrozenTask<'a> {
    id: TaskId,
    registers: NonNull<RegisterFile>,
    stack: StackBounds,
    record: PhantomData<&'a mut RegisterFile>,
}

impl<'a> FrozenTask<'a> {
    /// Takes hold of a task that has been stopped.
    ///
    /// # Safety
    /// From now until the value is gone:
    /// - no CPU executes the task, and every register it held when it stopped is in `registers`
    ///   (so the freeze has been acknowledged, if it ran elsewhere);
    /// - `registers` is valid for reads and writes, and nobody else uses it;
    /// - `stack.base()..stack.top()` is mapped, readable and writable, and nobody else writes it.
    #[inline]
    pub const unsafe fn new(
        id: TaskId,
        registers: NonNull<RegisterFile>,
        stack: StackBounds,
    ) -> Self {
        Self { id, registers, stack, record: PhantomData }
    }

    /// Which task this is.
    #[inline]
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// The same task, for as long as this key is lent.
    #[inline]
    pub const fn reborrow(&mut self) -> FrozenTask<'_> {
        // What `new` asks for holds for the new key, since this one is not used as long as that
        // lives.
        FrozenTask { record: PhantomData, ..*self }
    }

    /// The registers as they were when the task stopped.
    #[inline]
    pub const fn registers(&self) -> &RegisterFile {
        // SAFETY: `new`'s contract: valid and ours alone for the life of `self`.
        unsafe { self.registers.as_ref() }
    }

    /// The registers, to be changed: what they hold is what the task resumes with.
    #[inline]
    pub const fn registers_mut(&mut self) -> &mut RegisterFile {
        // SAFETY: `new`'s contract, and `&mut self` makes this the only reference.
        unsafe { self.registers.as_mut() }
    }

    /// The word at `address`, if it is one of the stack's.
    #[inline]
    fn word(&self, address: u64) -> Result<*mut u64, ReadError> {
        if !self.stack.has_word(address) {
            return Err(refusal(&self.stack, address));
        }
        Ok(core::ptr::with_exposed_provenance_mut(address as usize))
    }

    /// The word that begins so many words below `address`, if it is one of the stack's.
    #[inline]
    fn word_below(&self, address: u64, words: u8) -> Result<*mut u64, ReadError> {
        let Some(word) = self.stack.word_below(address, words) else {
            return Err(refusal(&self.stack, address.wrapping_sub(8 * u64::from(words))));
        };
        Ok(core::ptr::with_exposed_provenance_mut(word as usize))
    }

    /// Writes eight bytes of the task's stack.
    ///
    /// # Errors
    /// As [`StackMemory::read_u64`].
    pub fn write_u64(&mut self, address: u64, value: u64) -> Result<(), ReadError> {
        let word = self.word(address)?;
        // SAFETY: `word` found it inside the mapped stack and aligned, and `new`'s
        // contract makes that memory writable and ours. Volatile: the task's own code reads it
        // later, behind the compiler's back.
        unsafe { word.write_volatile(value) };
        Ok(())
    }
}

impl FrozenTask<'_> {
    /// Writes a value into the task's stack, for the task's own code to read.
    ///
    /// # Errors
    /// As [`StackMemory::read_u64`].
    pub fn write<T: Copy>(&mut self, address: u64, value: T) -> Result<(), ReadError> {
        const { assert!(size_of::<T>() >= 8 && align_of::<T>() <= 8) };
        self.word(address)?;
        if !self.stack.contains(address, size_of::<T>() as u64) {
            return Err(ReadError::OutOfStack(address));
        }
        // SAFETY: as in `write_u64`: all of it is inside the stack, and the address is aligned.
        unsafe {
            core::ptr::with_exposed_provenance_mut::<T>(address as usize).write_volatile(value);
        }
        Ok(())
    }
}

impl StackMemory for FrozenTask<'_> {
    #[inline]
    fn bounds(&self) -> StackBounds {
        self.stack
    }

    #[inline]
    fn read_u64(&self, address: u64) -> Result<u64, ReadError> {
        let word = self.word(address)?;
        // SAFETY: as in `write_u64`; volatile because the task's own code wrote it.
        Ok(unsafe { word.read_volatile() })
    }

    #[inline]
    fn read_u64_below(&self, address: u64, words: u8) -> Result<u64, ReadError> {
        let word = self.word_below(address, words)?;
        // SAFETY: as in `read_u64`: `word_below` found it inside the mapped stack and aligned.
        Ok(unsafe { word.read_volatile() })
    }
}

/// Why there is no word of this stack at `address`.
#[cold]
fn refusal(stack: &StackBounds, address: u64) -> ReadError {
    if stack.contains(address, 8) {
        ReadError::Misaligned(address)
    } else {
        ReadError::OutOfStack(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_stay_in_the_stack() {
        let mut memory = [7u64; 8];
        let mut registers = RegisterFile::new();
        let base = memory.as_mut_ptr().expose_provenance() as u64;
        let stack = StackBounds::new(base, base + 64, 4096).unwrap();
        // SAFETY: the "task" is this array and these registers, used through `frozen` alone.
        let mut frozen =
            unsafe { FrozenTask::new(TaskId::first(1), NonNull::from(&mut registers), stack) };

        assert_eq!(frozen.read_u64(base + 56), Ok(7));
        assert_eq!(frozen.read_u64(base + 64), Err(ReadError::OutOfStack(base + 64)));
        assert_eq!(frozen.read_u64(base - 8), Err(ReadError::OutOfStack(base - 8)));
        assert_eq!(frozen.read_u64(base + 4), Err(ReadError::Misaligned(base + 4)));
        assert_eq!(frozen.read_u64(base + 60), Err(ReadError::OutOfStack(base + 60)));
        assert_eq!(frozen.read_u64_below(base + 64, 1), Ok(7));
        assert_eq!(frozen.read_u64_below(base + 64, 8), Ok(7));
        assert_eq!(frozen.read_u64_below(base + 64, 0), Err(ReadError::OutOfStack(base + 64)));
        assert_eq!(frozen.read_u64_below(base + 64, 9), Err(ReadError::OutOfStack(base - 8)));
        assert_eq!(frozen.read_u64_below(base + 60, 1), Err(ReadError::Misaligned(base + 52)));
        assert_eq!(frozen.read_u64_below(base, 255), Err(ReadError::OutOfStack(base - 2040)));
        assert_eq!(frozen.write_u64(base + 8, 9), Ok(()));
        assert_eq!(frozen.read_u64(base + 8), Ok(9));
        assert_eq!(frozen.write(base + 40, [1u64, 2, 3]), Ok(()));
        assert_eq!(frozen.read_u64(base + 56), Ok(3));
        assert_eq!(frozen.write(base + 48, [4u64; 3]), Err(ReadError::OutOfStack(base + 48)));
        assert_eq!(frozen.write(base + 12, [4u64; 3]), Err(ReadError::Misaligned(base + 12)));
        assert_eq!(frozen.read_u64(base + 56), Ok(3));
        frozen.registers_mut().rip = 42;
        assert_eq!(frozen.registers().rip, 42);
    }
}
