//! `cargo demo coverage`: how much of an executable is out of an unwinder's reach.
//!
//! A function that holds something and faults is cleaned up by an unwinder only if the faulting
//! instruction has a landing pad, and compilers give landing pads to calls. This counts, in the
//! demo kernel or any other x86-64 executable, the instructions that have one.
//!
//! | file | what it does |
//! | --- | --- |
//! | `elf` | finds functions, language tables and names in the file |
//! | `count` | counts one function's instructions |
//! | `show` | the totals, for people and as JSON |

mod count;
mod elf;
mod show;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use keeper::unwind::LsdaError;
use serde::Serialize;

use count::{Counted, Counts};
use elf::Executable;
pub(crate) use show::text;

/// What one executable's landing pads cover.
#[derive(Debug, Serialize)]
pub(crate) struct Coverage {
    /// All functions, and those with at least one landing pad.
    functions: Counted,
    /// The functions' instructions, taken together.
    #[serde(flatten)]
    total: Counts,
    /// How many functions have a language table that cannot be read; they count as without.
    unreadable: u64,
    /// How many bytes of executable sections have no entry in `.eh_frame`: handwritten assembly,
    /// padding, and functions that were compiled without one.
    bytes_without_entry: u64,
    /// The functions one by one, by address.
    #[serde(rename = "by_function")]
    pub(crate) details: Vec<FunctionCoverage>,
}

/// What one function's landing pads cover.
#[derive(Debug, Serialize)]
pub(crate) struct FunctionCoverage {
    /// Its name, demangled; `None` if there is no symbol for it.
    name: Option<String>,
    /// Where its entry in `.eh_frame` begins.
    address: u64,
    /// Its size in bytes.
    size: u64,
    /// How many landing pads it has.
    landing_pads: u64,
    #[serde(flatten)]
    counts: Counts,
    /// Why its language table cannot be read, if it cannot.
    unreadable: Option<String>,
}

impl Coverage {
    /// Counts in the executable at `path`.
    ///
    /// # Errors
    /// If it cannot be read, is not a linked executable for x86-64, or has no unwind tables.
    pub(crate) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::of(&bytes).with_context(|| format!("cannot count in {}", path.display()))
    }

    fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let executable = Executable::parse(bytes)?;
        let mut coverage = Self {
            functions: Counted::default(),
            total: Counts::default(),
            unreadable: 0,
            bytes_without_entry: 0,
            details: vec![],
        };
        for function in executable.functions()? {
            let (sites, error) = match function.call_sites {
                Ok(sites) => (sites, None),
                Err(error) => (vec![], Some(LsdaError::to_string(&error))),
            };
            let counts = count::count(function.code, function.address, &sites);
            let mut pads: Vec<_> = sites.iter().filter_map(|site| site.landing_pad).collect();
            pads.sort_unstable();
            pads.dedup();
            coverage.functions.add(!pads.is_empty());
            coverage.unreadable += u64::from(error.is_some());
            coverage.total += counts;
            coverage.details.push(FunctionCoverage {
                name: executable.name_of(function.address),
                address: function.address,
                size: function.code.len() as u64,
                landing_pads: pads.len() as u64,
                counts,
                unreadable: error,
            });
        }
        coverage.bytes_without_entry = executable
            .bytes_outside(coverage.details.iter().map(|f| f.address..f.address + f.size));
        Ok(coverage)
    }

    /// Leaves only the functions whose names contain `text`, and sums those up.
    pub(crate) fn only(mut self, text: &str) -> Self {
        self.details.retain(|f| f.name.as_ref().is_some_and(|name| name.contains(text)));
        self.functions = Counted::default();
        self.total = Counts::default();
        self.unreadable = 0;
        for function in &self.details {
            self.functions.add(function.landing_pads > 0);
            self.total += function.counts;
            self.unreadable += u64::from(function.unreadable.is_some());
        }
        self
    }
}
