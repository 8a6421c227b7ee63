//! Whose an instruction is.
//!
//! The kernel's line tables say, for each instruction, in which file the code stands that it was
//! made of, through all that was inlined. The innermost file of this workspace decides: so what the
//! kernel's platform does in the middle of `Seat::serve` is the kernel's, and a state of the task
//! model's that the scheduler changes is the library's. `core`, and whatever else is not of this
//! workspace, belongs to whoever inlines it, or calls it; so do `memcpy` and its like, which the
//! compiler calls.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::Context;
use anyhow::Context as _;
use gimli::{Dwarf, EndianSlice, LittleEndian};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// Whose code there is on the way of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    /// `task-model`, `drop-registry`, `keeper`.
    Library,
    /// Saving and restoring the registers.
    Stubs,
    /// The dispatcher, the scheduler, and what the kernel provides as the keepers' platform.
    Kernel,
    /// What rules.
    Policy,
}

/// By folder or file of the workspace; the first that fits decides. `None` for what belongs to its
/// caller.
const FOLDERS: [(&str, Option<Owner>); 7] = [
    ("task-model/", Some(Owner::Library)),
    ("drop-registry/", Some(Owner::Library)),
    ("keeper/", Some(Owner::Library)),
    ("demo-kernel/src/memory_functions.rs", None),
    ("demo-kernel/src/traps/stubs.rs", Some(Owner::Stubs)),
    ("demo-kernel/src/scenarios/", Some(Owner::Policy)),
    ("demo-kernel/", Some(Owner::Kernel)),
];

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Library => "library",
            Self::Stubs => "stubs",
            Self::Kernel => "kernel",
            Self::Policy => "policy",
        })
    }
}

/// An instruction's owner, if the line tables name one, and the function that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) owner: Option<Owner>,
    pub(super) function: String,
}

/// The kernel's line tables.
pub(super) struct Owners {
    lines: Context<EndianSlice<'static, LittleEndian>>,
    workspace: PathBuf,
    /// The stubs are assembly, of which the line tables know nothing.
    stubs: Range<u64>,
    /// The first of them, each of so many bytes.
    first_stub: u64,
}

/// The bytes of each vector's stub.
const STUB_SIZE: u64 = 16;

impl Owners {
    /// Reads the kernel's file.
    ///
    /// # Errors
    /// If it is not the demo kernel, or has no line tables.
    pub(super) fn read(kernel: &Path) -> anyhow::Result<Self> {
        // The tables lend from the file, and are needed to the end.
        let bytes = std::fs::read(kernel).context("cannot read the kernel")?.leak();
        let file = object::File::parse(&*bytes).context("the kernel is no ELF file")?;
        let symbol = |name: &str| {
            let is_it = |it: &str| format!("{:#}", rustc_demangle::demangle(it)) == name;
            let mut symbols = file.symbols();
            let found = symbols.find(|symbol| symbol.name().is_ok_and(is_it));
            Ok::<_, anyhow::Error>(found.with_context(|| format!("no symbol {name}"))?.address())
        };
        let dwarf = Dwarf::load(|id| {
            let section = file.section_by_name(id.name()).map(|it| it.data()).transpose();
            Ok::<_, object::Error>(EndianSlice::new(section?.unwrap_or_default(), LittleEndian))
        })?;
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Ok(Self {
            lines: Context::from_dwarf(dwarf).context("the kernel's line tables are damaged")?,
            workspace: workspace.canonicalize().context("no workspace")?,
            stubs: symbol("__trap_text_start")?..symbol("__trap_text_end")?,
            first_stub: symbol("demo_kernel::traps::stubs::vector_stubs")?,
        })
    }

    /// Where the CPU goes on when the exception `vector` is raised.
    pub(super) fn stub_of(&self, vector: u8) -> u64 {
        self.first_stub + u64::from(vector) * STUB_SIZE
    }

    /// Whose the instruction at `address` is.
    ///
    /// # Errors
    /// If the line tables are damaged.
    pub(super) fn place(&self, address: u64) -> anyhow::Result<Place> {
        if self.stubs.contains(&address) {
            return Ok(Place { owner: Some(Owner::Stubs), function: "trap stub".to_owned() });
        }
        let mut frames = self.lines.find_frames(address).skip_all_loads()?;
        while let Some(frame) = frames.next()? {
            let file =
                frame.location.and_then(|it| it.file).and_then(|file| self.in_workspace(file));
            let Some(file) = file else { continue };
            let name = frame.function.map(|it| it.demangle().map(Cow::into_owned)).transpose()?;
            // Without its type parameters: the line tables have no crate's name in it, but these.
            let name = name.as_deref().and_then(|name| name.split('<').next());
            let function = format!("{file} {}", name.unwrap_or_default());
            return Ok(Place { owner: owner_of(file), function });
        }
        Ok(Place { owner: None, function: "assembly, or core".to_owned() })
    }

    fn in_workspace<'f>(&self, file: &'f str) -> Option<&'f str> {
        Path::new(file).strip_prefix(&self.workspace).ok()?.to_str()
    }
}

/// Whose a file of the workspace is; `None` if that depends on who calls.
fn owner_of(file: &str) -> Option<Owner> {
    FOLDERS.iter().find(|(folder, _)| file.starts_with(folder))?.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_fits_says_whose_a_file_is() {
        let owners = [
            ("task-model/src/state.rs", Some(Owner::Library)),
            ("demo-kernel/src/keeping.rs", Some(Owner::Kernel)),
            ("demo-kernel/src/traps/dispatch.rs", Some(Owner::Kernel)),
            ("demo-kernel/src/traps/stubs.rs", Some(Owner::Stubs)),
            ("demo-kernel/src/scenarios/costs.rs", Some(Owner::Policy)),
            ("demo-kernel/src/memory_functions.rs", None),
        ];
        for (file, owner) in owners {
            assert_eq!(owner_of(file), owner, "{file}");
        }
    }
}
