//! Functions, language tables and names of an executable.

use std::ops::Range;

use anyhow::{Context as _, bail, ensure};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, Pointer, UnwindSection as _};
use keeper::unwind::{CallSite, LoadedSection, Lsda, LsdaError};
use object::{
    Architecture, Object as _, ObjectKind, ObjectSection as _, ObjectSymbol as _, SectionKind,
    SymbolKind,
};

/// A linked executable or shared object for x86-64.
pub(super) struct Executable<'a> {
    code: Vec<LoadedSection<'a>>,
    eh_frame: LoadedSection<'a>,
    language_tables: Option<LoadedSection<'a>>,
    /// Functions' addresses, sizes and names, by address.
    symbols: Vec<(u64, u64, &'a str)>,
}

/// A function as `.eh_frame` has it: a part of one, if the compiler put the rest elsewhere.
pub(super) struct Function<'a> {
    pub(super) address: u64,
    pub(super) code: &'a [u8],
    /// Its call sites by address, or why they cannot be read; none if it has no language table.
    pub(super) call_sites: Result<Vec<CallSite>, LsdaError>,
}

impl<'a> Executable<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> anyhow::Result<Self> {
        ensure!(bytes.starts_with(b"\x7fELF"), "it is not an ELF file");
        let file = object::File::parse(bytes).context("it is damaged")?;
        if file.architecture() != Architecture::X86_64 || !file.is_64() {
            bail!("it is for {:?}; only x86-64 is understood", file.architecture());
        }
        if !matches!(file.kind(), ObjectKind::Executable | ObjectKind::Dynamic) {
            bail!("it is not linked yet: its tables mean nothing before that");
        }
        let loaded = |name| -> anyhow::Result<Option<LoadedSection<'a>>> {
            let Some(section) = file.section_by_name(name) else { return Ok(None) };
            let bytes = section.data().with_context(|| format!("its {name} is damaged"))?;
            Ok(Some(LoadedSection { bytes, address: section.address() }))
        };
        let Some(eh_frame) = loaded(".eh_frame")?.filter(|section| !section.bytes.is_empty())
        else {
            bail!(
                "it has no .eh_frame, so nobody can unwind in it (Rust on bare-metal targets needs \
                 -Cforce-unwind-tables=yes; a kernel's build may strip it)"
            );
        };
        let mut code = vec![];
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let bytes = section.data().context("its code is damaged")?;
            code.push(LoadedSection { bytes, address: section.address() });
        }
        let mut symbols: Vec<_> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
            .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?)))
            .collect();
        symbols.sort_unstable();
        symbols.dedup_by_key(|(address, ..)| *address);
        Ok(Self { code, eh_frame, language_tables: loaded(".gcc_except_table")?, symbols })
    }

    /// All functions that have an entry in `.eh_frame`, by address.
    ///
    /// # Errors
    /// If `.eh_frame` is damaged, or says that a function is where there is no code.
    pub(super) fn functions(&self) -> anyhow::Result<Vec<Function<'a>>> {
        let section = EhFrame::new(self.eh_frame.bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(self.eh_frame.address);
        let mut functions = vec![];
        let mut entries = section.entries(&bases);
        while let Some(entry) = entries.next().context("its .eh_frame is damaged")? {
            let CieOrFde::Fde(entry) = entry else { continue };
            let entry = entry
                .parse(EhFrame::cie_from_offset)
                .context("an entry of its .eh_frame is damaged")?;
            let (address, size) = (entry.initial_address(), entry.len());
            // What the linker dropped, or code that is written at run time.
            if size == 0 || address == 0 {
                continue;
            }
            let code = self.code(address, size).with_context(|| {
                format!("its .eh_frame has a function at {address:#x}, where there is no code")
            })?;
            functions.push(Function {
                address,
                code,
                call_sites: self.call_sites(entry.lsda(), address),
            });
        }
        functions.sort_by_key(|function| function.address);
        Ok(functions)
    }

    fn call_sites(&self, lsda: Option<Pointer>, function: u64) -> Result<Vec<CallSite>, LsdaError> {
        let Some(section) = self.language_tables else { return Ok(vec![]) };
        let address = match lsda {
            Some(Pointer::Direct(address)) => address,
            Some(Pointer::Indirect(address)) => return Err(LsdaError::OutsideSection(address)),
            None => return Ok(vec![]),
        };
        // Null, which gimli has made relative to the place where it is written.
        if address == 0 || contains(self.eh_frame, address) {
            return Ok(vec![]);
        }
        Lsda::parse(section, address, function)?.call_sites().collect()
    }

    fn code(&self, address: u64, size: u64) -> Option<&'a [u8]> {
        let section = self.code.iter().find(|section| contains(**section, address))?;
        let start = (address - section.address) as usize;
        section.bytes.get(start..start.checked_add(size as usize)?)
    }

    /// The demangled name of the function at `address`, if there is a symbol for it.
    pub(super) fn name_of(&self, address: u64) -> Option<String> {
        let after = self.symbols.partition_point(|(symbol, ..)| *symbol <= address);
        let (symbol, size, name) = self.symbols.get(after.checked_sub(1)?)?;
        // Assembly may leave the size at zero.
        let is_it = address - symbol < (*size).max(1);
        is_it.then(|| format!("{:#}", rustc_demangle::demangle(name)))
    }

    /// How many bytes of code are in none of `functions`, which come by address.
    pub(super) fn bytes_outside(&self, functions: impl Iterator<Item = Range<u64>>) -> u64 {
        let code: u64 = self.code.iter().map(|section| section.bytes.len() as u64).sum();
        let mut inside = 0;
        let mut end = 0;
        for function in functions {
            inside += function.end.saturating_sub(function.start.max(end));
            end = end.max(function.end);
        }
        code.saturating_sub(inside)
    }
}

fn contains(section: LoadedSection<'_>, address: u64) -> bool {
    address.wrapping_sub(section.address) < section.bytes.len() as u64
}
