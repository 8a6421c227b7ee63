//! Finding QEMU, and installing it when it is missing.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use console::style;

use crate::qemu;

/// QEMU on the search path, installed first if need be and possible.
///
/// It is installed only by root, or by whoever `sudo` asks for no password, and every command is
/// shown before it runs.
///
/// # Errors
/// If QEMU is missing and may not or cannot be installed; the message has the command to type.
pub(crate) fn find_or_install() -> anyhow::Result<PathBuf> {
    if let Ok(path) = which::which(qemu::PROGRAM) {
        return Ok(path);
    }
    let Some(manager) = Manager::ALL.into_iter().find(|m| which::which(m.program()).is_ok()) else {
        bail!("{} is not on the PATH; install it and try again", qemu::PROGRAM);
    };
    let privilege = Privilege::detect();
    let by_hand = by_hand(manager, privilege);
    let Some(commands) = plan(manager, privilege) else {
        bail!("{} is not on the PATH; install it with:\n    {by_hand}", qemu::PROGRAM);
    };
    eprintln!("{} is not on the PATH, installing it:", style(qemu::PROGRAM).for_stderr().bold());
    for command in commands {
        eprintln!("    {command}");
        if let Err(error) = command.run() {
            bail!("{error:#}; install QEMU by hand:\n    {by_hand}");
        }
    }
    which::which(qemu::PROGRAM)
        .with_context(|| format!("{} is installed, but not on the PATH", qemu::PROGRAM))
}

/// A system's package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
    Zypper,
    Apk,
}

impl Manager {
    const ALL: [Self; 5] = [Self::Apt, Self::Dnf, Self::Pacman, Self::Zypper, Self::Apk];

    const fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
            Self::Zypper => "zypper",
            Self::Apk => "apk",
        }
    }

    /// The commands that install QEMU for x86-64 without asking, to be run in this order.
    const fn commands(self) -> &'static [&'static str] {
        match self {
            // A fresh image has no package lists.
            Self::Apt => {
                &["apt-get update", "apt-get install --yes --no-install-recommends qemu-system-x86"]
            }
            Self::Dnf => &["dnf install --assumeyes qemu-system-x86-core"],
            // Never `-Sy`: new lists without an upgrade break what is installed.
            Self::Pacman => &["pacman -S --needed --noconfirm qemu-system-x86"],
            Self::Zypper => &["zypper --non-interactive install qemu-x86"],
            Self::Apk => &["apk add qemu-system-x86_64"],
        }
    }
}

/// What this process may do without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privilege {
    /// It is root.
    Root,
    /// `sudo` works without a password.
    Sudo,
    /// Neither.
    None,
}

impl Privilege {
    fn detect() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::Root;
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if sudo.is_ok_and(|status| status.success()) { Self::Sudo } else { Self::None }
    }
}

/// The commands to run, or `None` if this process may not run them.
fn plan(manager: Manager, privilege: Privilege) -> Option<Vec<Step>> {
    let prefix = match privilege {
        Privilege::Root => "",
        Privilege::Sudo => "sudo -n ",
        Privilege::None => return None,
    };
    let commands = manager.commands().iter();
    Some(commands.map(|command| Step(format!("{prefix}{command}"))).collect())
}

/// What a person types to the same end.
fn by_hand(manager: Manager, privilege: Privilege) -> String {
    let prefix = if privilege == Privilege::Root { "" } else { "sudo " };
    let commands: Vec<String> =
        manager.commands().iter().map(|command| format!("{prefix}{command}")).collect();
    commands.join(" && ")
}

/// A program and its arguments, none of which holds a blank.
#[derive(Debug, PartialEq, Eq)]
struct Step(String);

impl Step {
    fn run(&self) -> anyhow::Result<()> {
        let mut words = self.0.split(' ');
        let program = words.next().unwrap_or_default();
        let status = Command::new(program)
            .args(words)
            // The runner's own output stays free of the package manager's.
            .stdout(std::io::stderr())
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("cannot start {program}"))?;
        ensure!(status.success(), "`{self}` failed: {status}");
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(manager: Manager, privilege: Privilege) -> Vec<String> {
        plan(manager, privilege).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn root_runs_the_package_manager_itself() {
        assert_eq!(
            planned(Manager::Apt, Privilege::Root),
            ["apt-get update", "apt-get install --yes --no-install-recommends qemu-system-x86"]
        );
    }

    #[test]
    fn others_run_every_command_through_a_sudo_that_never_asks() {
        for manager in Manager::ALL {
            for command in planned(manager, Privilege::Sudo) {
                let program = format!("sudo -n {} ", manager.program());
                assert!(command.starts_with(&program), "{command}");
            }
        }
    }

    #[test]
    fn without_privilege_nothing_is_run_and_the_command_is_told() {
        for manager in Manager::ALL {
            assert_eq!(plan(manager, Privilege::None), None);
        }
        assert_eq!(
            by_hand(Manager::Apt, Privilege::None),
            "sudo apt-get update && \
             sudo apt-get install --yes --no-install-recommends qemu-system-x86"
        );
        assert_eq!(
            by_hand(Manager::Dnf, Privilege::None),
            "sudo dnf install --assumeyes qemu-system-x86-core"
        );
    }

    #[test]
    fn a_failed_command_names_itself() {
        let error = Step("sh -c false".to_owned()).run().unwrap_err();
        assert!(error.to_string().starts_with("`sh -c false` failed"), "{error}");
        let error = Step("no-such-program x".to_owned()).run().unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
