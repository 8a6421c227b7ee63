//! Building the kernel.

use std::env;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, bail};
use cargo_metadata::{Message, MetadataCommand};
use indicatif::ProgressBar;

/// The package, and the binary in it, that is the kernel.
const KERNEL: &str = "demo-kernel";

/// Builds the kernel and returns the path of its executable.
///
/// The kernel has a target directory of its own inside the workspace's: the cargo that runs this
/// program may hold the lock of the other. Only the final binary is built with `-Cpanic=abort`,
/// so that the libraries in it keep their landing pads.
///
/// # Errors
/// If it does not build; the message is what cargo said.
pub(crate) fn build(progress: &ProgressBar) -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = MetadataCommand::new()
        .cargo_path(&cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .no_deps()
        .exec()
        .context("cannot read the workspace")?;
    let color = if console::colors_enabled_stderr() { "always" } else { "never" };
    let mut build = Command::new(&cargo)
        .current_dir(&workspace.workspace_root)
        .args(["rustc", "--release", "--package", KERNEL, "--bin", KERNEL])
        .args(["--message-format=json-render-diagnostics", "--color", color, "--target-dir"])
        .arg(workspace.target_directory.join("kernel"))
        .args(["--", "-Cpanic=abort"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", cargo.display()))?;
    let stdout = build.stdout.take().context("cargo's messages are not piped")?;
    let mut stderr = build.stderr.take().context("cargo's errors are not piped")?;
    // On a thread of its own, so that neither stream fills up while the other is read.
    let errors = thread::spawn(move || {
        let mut errors = vec![];
        stderr.read_to_end(&mut errors).map(|_| errors)
    });
    let mut executable = None;
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) =
            message.context("cannot read cargo's messages")?
        {
            progress.set_message(artifact.target.name.clone());
            if artifact.target.name == KERNEL && artifact.executable.is_some() {
                executable = artifact.executable;
            }
        }
    }
    let status = build.wait().context("cannot wait for cargo")?;
    let errors = errors.join().expect("reading does not panic").context("cannot hear cargo")?;
    let errors = String::from_utf8_lossy(&errors);
    if !status.success() {
        bail!("the kernel does not build ({status}):\n{errors}");
    }
    let executable =
        executable.with_context(|| format!("cargo built no executable `{KERNEL}`:\n{errors}"))?;
    Ok(executable.into_std_path_buf())
}
