//! Hand-made images and stacks, at any address.

use std::fmt::Debug;

use keeper::unwind::{
    CompiledMemory, EhFrameRules, Frame, LoadedSection, UnwindTables, Walk, WalkEnd,
};
use task_model::{Gpr, ReadError, RegisterFile, StackBounds, StackMemory};

/// A kernel's usual place, in the higher half.
pub(crate) const TEXT: u64 = 0xffff_ffff_8010_0000;
/// Where each function of an [`Image`] begins, and how long it is.
pub(crate) const FUNCTION_SIZE: u64 = 0x100;
/// The base of a [`Stack`].
pub(crate) const STACK: u64 = 0xffff_c900_0001_0000;

pub(crate) const TEXT_SIZE: u64 = 0x1_0000;
pub(crate) const EH_FRAME: u64 = TEXT + 0x10_0000;
pub(crate) const HEADER: u64 = TEXT + 0x20_0000;

/// One function's part of `.eh_frame`.
#[derive(Clone, Copy)]
pub(crate) struct Function<'a> {
    /// `DW_CFA_*` code, which runs after the usual `CFA = rsp + 8, rip at CFA - 8`.
    pub(crate) cfi: &'a [u8],
    pub(crate) signal_frame: bool,
    pub(crate) return_address_register: u8,
    /// In bytes. Only the last one of an image may be longer than [`FUNCTION_SIZE`].
    pub(crate) length: u32,
}

impl<'a> Function<'a> {
    pub(crate) const fn new(cfi: &'a [u8]) -> Self {
        Self { cfi, signal_frame: false, return_address_register: 16, length: FUNCTION_SIZE as u32 }
    }

    pub(crate) const fn signal(cfi: &'a [u8]) -> Self {
        Self { signal_frame: true, ..Self::new(cfi) }
    }
}

/// `.cfi_undefined rip`
pub(crate) const ENTRY: Function<'_> = Function::new(&[0x07, 16]);
/// A function that has pushed nothing.
pub(crate) const LEAF: Function<'_> = Function::new(&[]);

/// An image's sections.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) header: Vec<u8>,
    pub(crate) eh_frame: Vec<u8>,
    text_size: u64,
}

/// The address of function `n` of an image.
pub(crate) const fn function(n: u64) -> u64 {
    TEXT + n * FUNCTION_SIZE
}

impl Image {
    /// An image in which function `n` is at [`function`]`(n)`.
    pub(crate) fn new(functions: &[Function<'_>]) -> Self {
        let mut eh_frame = Vec::new();
        let mut rows = Vec::new();
        let mut text_end = TEXT + TEXT_SIZE;
        for (n, one) in functions.iter().enumerate() {
            let cie = eh_frame.len();
            let mut body = vec![0, 0, 0, 0, 1];
            body.extend_from_slice(if one.signal_frame { b"zRS\0" } else { b"zR\0" });
            // Code alignment 1, data alignment -8; the 'R' encoding is pc-relative sdata4.
            body.extend_from_slice(&[1, 0x78, one.return_address_register, 1, 0x1b]);
            // DW_CFA_def_cfa rsp, 8; DW_CFA_offset rip, -8
            body.extend_from_slice(&[0x0c, 7, 8, 0x90, 1]);
            append_entry(&mut eh_frame, body);

            let fde = eh_frame.len();
            let start = function(n as u64);
            let mut body = Vec::new();
            body.extend_from_slice(&((fde + 4 - cie) as u32).to_le_bytes());
            let field = EH_FRAME + fde as u64 + 8;
            body.extend_from_slice(&(start.wrapping_sub(field) as i32).to_le_bytes());
            body.extend_from_slice(&one.length.to_le_bytes());
            text_end = text_end.max(start + u64::from(one.length));
            body.push(0);
            body.extend_from_slice(one.cfi);
            append_entry(&mut eh_frame, body);
            rows.push((start, EH_FRAME + fde as u64));
        }
        eh_frame.extend_from_slice(&[0; 4]);

        let mut header = vec![1, 0x1b, 0x03, 0x3b];
        header.extend_from_slice(&(EH_FRAME.wrapping_sub(HEADER + 4) as i32).to_le_bytes());
        header.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        for (start, fde) in rows {
            header.extend_from_slice(&(start.wrapping_sub(HEADER) as i32).to_le_bytes());
            header.extend_from_slice(&(fde.wrapping_sub(HEADER) as i32).to_le_bytes());
        }
        Self { header, eh_frame, text_size: text_end - TEXT }
    }

    pub(crate) fn header_section(&self) -> LoadedSection<'_> {
        LoadedSection { bytes: &self.header, address: HEADER }
    }

    pub(crate) fn eh_frame_section(&self) -> LoadedSection<'_> {
        LoadedSection { bytes: &self.eh_frame, address: EH_FRAME }
    }

    pub(crate) fn tables(&self) -> UnwindTables<'_> {
        let text = TEXT..TEXT + self.text_size;
        UnwindTables::new(self.header_section(), self.eh_frame_section(), text).unwrap()
    }

    /// The tables of the same image, loaded so far above where it is linked.
    pub(crate) fn tables_at(&self, bias: u64) -> UnwindTables<'_> {
        let moved = |section: LoadedSection<'_>| section.address + bias;
        let header = LoadedSection { address: moved(self.header_section()), bytes: &self.header };
        let eh_frame =
            LoadedSection { address: moved(self.eh_frame_section()), bytes: &self.eh_frame };
        let text = TEXT + bias..TEXT + bias + self.text_size;
        UnwindTables::new(header, eh_frame, text).unwrap()
    }

    /// Walks a task that stopped at `rip` with its stack pointer at word `sp` of `stack`.
    pub(crate) fn walk(&self, rip: u64, sp: usize, stack: &Stack) -> (Vec<Frame>, WalkEnd) {
        self.walk_registers(&registers(rip, stack.address(sp)), stack)
    }

    pub(crate) fn walk_registers(
        &self,
        registers: &RegisterFile,
        stack: &Stack,
    ) -> (Vec<Frame>, WalkEnd) {
        self.both(|tables| {
            let mut rules = EhFrameRules::new(tables);
            let mut walk = Walk::new(registers, stack, &mut rules);
            let frames = (&mut walk).collect();
            (frames, walk.end().unwrap())
        })
    }

    /// What `f` makes of the tables, as they are and compiled: the same.
    pub(crate) fn both<T: PartialEq + Debug>(&self, f: impl Fn(UnwindTables<'_>) -> T) -> T {
        let straight = f(self.tables());
        let mut memory = CompiledMemory::new(&self.tables().compiled_size().unwrap());
        let compiled = f(self.tables().compile(&mut memory).unwrap());
        assert_eq!(compiled, straight);
        straight
    }
}

/// Pads the body of an entry with `DW_CFA_nop` and puts its length before it.
fn append_entry(eh_frame: &mut Vec<u8>, mut body: Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
    eh_frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    eh_frame.extend_from_slice(&body);
}

/// Registers whose values tell which they are: 0x1000 + the encoding number.
pub(crate) fn registers(rip: u64, rsp: u64) -> RegisterFile {
    let mut registers = RegisterFile::new();
    for gpr in Gpr::ALL {
        registers[gpr] = 0x1000 + gpr as u64;
    }
    registers[Gpr::Rsp] = rsp;
    registers.rip = rip;
    registers
}

/// A stack at [`STACK`] with a guard page, made of these words; the first is at its base.
#[derive(Clone)]
pub(crate) struct Stack {
    pub(crate) base: u64,
    pub(crate) words: Vec<u64>,
}

impl Stack {
    pub(crate) fn new(words: &[u64]) -> Self {
        Self { base: STACK, words: words.to_vec() }
    }

    pub(crate) fn address(&self, word: usize) -> u64 {
        self.base + 8 * word as u64
    }
}

impl StackMemory for Stack {
    fn bounds(&self) -> StackBounds {
        StackBounds::new(self.base, self.address(self.words.len()), 0x1000).unwrap()
    }

    fn read_u64(&self, address: u64) -> Result<u64, ReadError> {
        if !self.bounds().contains(address, 8) {
            return Err(ReadError::OutOfStack(address));
        }
        if !address.is_multiple_of(8) {
            return Err(ReadError::Misaligned(address));
        }
        Ok(self.words[(address - self.base) as usize / 8])
    }
}
