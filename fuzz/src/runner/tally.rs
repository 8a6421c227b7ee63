//! How many runs one fuzzer has made of a target, in all invocations.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What tells one build of the fuzzer from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of the fuzzer at this path.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn of(fuzzer: &Path) -> anyhow::Result<Self> {
        let program =
            fs::read(fuzzer).with_context(|| format!("cannot read {}", fuzzer.display()))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&program);
        Ok(Self(hasher.finish()))
    }
}

/// A count of runs in a file, which starts anew when the fuzzer changes.
#[derive(Debug)]
pub(crate) struct Tally {
    file: PathBuf,
    fingerprint: Fingerprint,
    before: u64,
    total: u64,
}

impl Tally {
    /// The count in `file`; none if it is not there, or is another fuzzer's.
    pub(crate) fn open(file: PathBuf, fingerprint: Fingerprint) -> Self {
        let read = || {
            let text = fs::read_to_string(&file).ok()?;
            let (program, runs) = text.trim_end().split_once(' ')?;
            let program = u64::from_str_radix(program, 16).ok()?;
            (program == fingerprint.0).then(|| runs.parse().ok())?
        };
        let before = read().unwrap_or(0);
        Self { file, fingerprint, before, total: before }
    }

    /// All runs.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// Writes down that this invocation has made so many runs until now.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn set(&mut self, runs: u64) -> anyhow::Result<()> {
        if self.before + runs == self.total {
            return Ok(());
        }
        self.total = self.before + runs;
        self.write().with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Replaces the file as a whole, so that whoever dies here leaves the old count.
    fn write(&self) -> std::io::Result<()> {
        if let Some(directory) = self.file.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = self.file.with_extension("new");
        writeln!(File::create(&new)?, "{:016x} {}", self.fingerprint.0, self.total)?;
        fs::rename(new, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocations_add_up_until_the_fuzzer_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = || directory.path().join("tally").join("walk");
        let mut first = Tally::open(file(), Fingerprint(1));
        assert_eq!(first.total(), 0);
        first.set(10).unwrap();
        first.set(30).unwrap();
        let mut second = Tally::open(file(), Fingerprint(1));
        second.set(5).unwrap();
        assert_eq!(Tally::open(file(), Fingerprint(1)).total(), 35);
        assert_eq!(Tally::open(file(), Fingerprint(2)).total(), 0);
        Tally::open(file(), Fingerprint(2)).set(1).unwrap();
        assert_eq!(Tally::open(file(), Fingerprint(1)).total(), 0);
    }

    #[test]
    fn a_file_that_is_no_tally_counts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "zz 1", "0000000000000001", "0000000000000001 x"] {
            fs::write(directory.path().join("t"), text).unwrap();
            assert_eq!(Tally::open(directory.path().join("t"), Fingerprint(1)).total(), 0);
        }
    }
}
