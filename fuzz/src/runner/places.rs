//! Where things are kept.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cargo_metadata::MetadataCommand;

/// The directories of seeds, of what fuzzing adds to them, and of what failed.
#[derive(Debug)]
pub(crate) struct Places {
    /// Of the fuzzer's build, and of everything that is not in the repository.
    pub(crate) target_directory: PathBuf,
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

impl Places {
    /// # Errors
    /// If cargo cannot say where it builds.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let workspace = MetadataCommand::new()
            .cargo_path(cargo())
            .current_dir(Self::package())
            .no_deps()
            .exec()
            .context("cannot read the workspace")?;
        Ok(Self { target_directory: workspace.target_directory.join("fuzz").into() })
    }

    /// The directory of this package.
    pub(crate) fn package() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The directory of the workspace.
    pub(crate) fn workspace() -> &'static Path {
        Self::package().parent().expect("the package is a member of a workspace")
    }

    /// Where a fault is planted.
    pub(crate) fn planted(&self) -> PathBuf {
        self.target_directory.join("planted")
    }

    /// And built.
    pub(crate) fn planted_build(&self) -> PathBuf {
        self.target_directory.join("planted-build")
    }

    /// For inputs that are not kept.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.target_directory.join("scratch")
    }

    /// Inputs in the repository, to begin with and to keep.
    pub(crate) fn kept(target: &str) -> [PathBuf; 2] {
        ["seeds", "regressions"].map(|kind| Self::package().join(kind).join(target))
    }

    /// Inputs that reached something new.
    pub(crate) fn corpus(&self, target: &str) -> PathBuf {
        self.target_directory.join("corpus").join(target)
    }

    /// How many runs were made.
    pub(crate) fn tally(&self, target: &str) -> PathBuf {
        self.target_directory.join("tally").join(target)
    }

    /// Inputs that failed.
    pub(crate) fn failures(&self, target: &str) -> PathBuf {
        self.target_directory.join("failures").join(target)
    }
}
