//! The test of the targets: each must find a fault that is planted into a copy of the sources.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::places::Places;

/// A fault: what stands once in a file, and what to put there.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The target that must find it.
    pub(crate) target: &'static str,
    /// What goes wrong.
    pub(crate) about: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
}

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        target: "eh_frame",
        about: "a compact row's distance to a slot is cut off",
        file: "keeper/src/unwind/compact.rs",
        right: "words(offset.checked_neg()?)?.try_into().ok()?",
        wrong: "words(offset.checked_neg()?)? as u8",
    },
    Fault {
        target: "eh_frame_hdr",
        about: "an unsorted search table is accepted",
        file: "keeper/src/unwind/tables.rs",
        right: "if function_distance(row) < previous {",
        wrong: "if false && function_distance(row) < previous {",
    },
    Fault {
        target: "ledger",
        about: "an entry is believed wherever its resource lies",
        file: "drop-registry/src/domain.rs",
        right: "(touches_nothing || lies_in(self.data, &extent)).then_some(operations)",
        wrong: "(touches_nothing || lies_in(self.data, &extent) || true).then_some(operations)",
    },
    Fault {
        target: "ledger",
        about: "the entry of a window is believed wherever it lies",
        file: "drop-registry/src/settle.rs",
        right: "    ledger.entry(ledger.index_of(pointer(address))?)",
        wrong: "    unsafe { pointer::<Entry>(address).as_ref() }",
    },
    Fault {
        target: "lsda",
        about: "call sites are read on after an error",
        file: "keeper/src/unwind/language/lsda.rs",
        right: "self.rest = site.is_ok().then_some(rest);",
        wrong: "self.rest = Some(rest);",
    },
    Fault {
        target: "walk",
        about: "the usual way is taken though a slot lies below the stack pointer",
        file: "keeper/src/unwind/step.rs",
        right: "if cfa.checked_sub(depth)? < rsp {",
        wrong: "if false && cfa.checked_sub(depth)? < rsp {",
    },
];

impl Fault {
    /// Copies the repository's sources, with the fault in them, to `copy`. What was there is gone.
    ///
    /// # Errors
    /// If `copy` cannot be cleared, git does not list the sources, one cannot be copied, or the right
    /// code is not there once.
    pub(crate) fn plant(&self, copy: &Path) -> anyhow::Result<()> {
        // A file that has been moved since would be there twice.
        match fs::remove_dir_all(copy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot clear {}", copy.display()));
            }
            _ => {}
        }
        let sources = Places::workspace();
        let listed = Command::new("git").current_dir(sources).args(["ls-files", "-z"]).output();
        let listed = listed.context("cannot start git, which knows what belongs to the sources")?;
        ensure!(listed.status.success(), "{} is no git repository", sources.display());
        let files = String::from_utf8(listed.stdout).context("a file name that is not UTF-8")?;
        for file in files.split_terminator('\0') {
            let (from, to) = (sources.join(file), copy.join(file));
            let directory = to.parent().context("a file has a directory")?;
            fs::create_dir_all(directory)
                .and_then(|()| fs::copy(&from, &to))
                .with_context(|| format!("cannot copy {}", from.display()))?;
        }
        let path = copy.join(self.file);
        let text = fs::read_to_string(&path)?;
        ensure!(
            text.matches(self.right).count() == 1,
            "{} does not say `{}` once: the fault has to be planted elsewhere",
            self.file,
            self.right
        );
        fs::write(&path, text.replace(self.right, self.wrong))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_fault_and_all_can_be_planted() {
        for target in fuzz_targets::TARGETS {
            let mut faults = FAULTS.iter().filter(|fault| fault.target == target.name);
            let fault = faults.next().expect(target.name);
            let text = fs::read_to_string(Places::workspace().join(fault.file)).unwrap();
            assert_eq!(text.matches(fault.right).count(), 1, "{}: {}", fault.file, fault.right);
        }
    }
}
