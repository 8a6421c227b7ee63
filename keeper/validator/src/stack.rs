//! A copy of the live part of a stack.

use task_model::{ReadError, StackBounds, StackMemory};

/// The bytes of a stack from somewhere below its stack pointer up to its top.
#[derive(Debug)]
pub struct StackCopy {
    bounds: StackBounds,
    start: u64,
    bytes: Vec<u8>,
}

/// How far below the stack pointer the copy begins: the red zone (System V psABI for x86-64,
/// section 3.2.2).
const RED_ZONE: u64 = 128;

impl StackCopy {
    /// Copies the stack within `bounds` whose stack pointer is `sp`; `read` fills a buffer from an
    /// address.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn take<E>(
        bounds: StackBounds,
        sp: u64,
        read: impl FnOnce(&mut [u8], u64) -> Result<(), E>,
    ) -> Result<Self, E> {
        let start = (sp.saturating_sub(RED_ZONE) & !7).clamp(bounds.base(), bounds.top());
        let mut bytes = vec![0; (bounds.top() - start) as usize];
        read(&mut bytes, start)?;
        Ok(Self { bounds, start, bytes })
    }
}

impl StackMemory for StackCopy {
    fn bounds(&self) -> StackBounds {
        self.bounds
    }

    fn read_u64(&self, address: u64) -> Result<u64, ReadError> {
        if !address.is_multiple_of(8) {
            return Err(ReadError::Misaligned(address));
        }
        let offset = address.checked_sub(self.start).ok_or(ReadError::OutOfStack(address))?;
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let word = rest.first_chunk().ok_or(ReadError::OutOfStack(address))?;
        Ok(u64::from_le_bytes(*word))
    }
}
