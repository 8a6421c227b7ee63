//! Taking an input apart.

/// The bytes of an input that have not been taken yet. What is not there reads as zero, so that
/// short inputs have a meaning too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        // A plain load. The copy below has a length that the compiler does not know, so under the
        // address sanitizer it is a call, and costs more than what is done with most words.
        if let Some((taken, rest)) = self.0.split_first_chunk() {
            self.0 = rest;
            return *taken;
        }
        let (taken, rest) = self.0.split_at(self.0.len().min(N));
        self.0 = rest;
        let mut array = [0; N];
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}
