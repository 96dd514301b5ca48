//! Which files and TCP ports a process may use: Landlock (landlock(7)).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, make_bitflags,
};

use super::SandboxError;
use crate::hello::Landlock;

/// The newest version of Landlock that the daemons were tried with (Linux 6.12). Of a later kernel nothing
/// more is asked, of an earlier one what it has.
const VERSION: ABI = ABI::V6;

/// What may be done with a file, or with the files below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Reading files and listing directories.
    Read,
    /// Reading, making, replacing and removing files; no directories, devices, sockets or links.
    Keep,
    /// Opening a device and controlling it.
    Device,
}

impl Allowed {
    fn access(self) -> BitFlags<AccessFs> {
        match self {
            Self::Read => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
            Self::Keep => {
                make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile})
            }
            Self::Device => make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev}),
        }
    }
}

/// All that a process may use by name: nothing but what is said here. What it has open already stays open.
/// Signals to processes outside, and connections to abstract unix sockets outside, are never allowed.
#[derive(Debug, Default)]
pub struct Files {
    below: Vec<(PathBuf, Allowed)>,
    tcp_ports: Vec<(u16, AccessNet)>,
    connects_anywhere: bool,
}

impl Files {
    /// Nothing at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Also this file, or everything below this directory. It must exist.
    #[must_use]
    pub fn and(mut self, path: &Path, allowed: Allowed) -> Self {
        self.below.push((path.to_owned(), allowed));
        self
    }

    /// Also TCP connections to this port.
    #[must_use]
    pub fn and_connect(mut self, port: u16) -> Self {
        self.tcp_ports.push((port, AccessNet::ConnectTcp));
        self
    }

    /// Also TCP connections to any port: for who speaks with the Internet.
    #[must_use]
    pub fn and_connect_anywhere(mut self) -> Self {
        self.connects_anywhere = true;
        self
    }

    /// Also listening on this TCP port; 0 is for one that the system chooses.
    #[must_use]
    pub fn and_listen(mut self, port: u16) -> Self {
        self.tcp_ports.push((port, AccessNet::BindTcp));
        self
    }

    pub(super) fn restrict(&self) -> Result<Landlock, SandboxError> {
        let refused = |error: &dyn std::fmt::Display| SandboxError::Landlock(error.to_string());
        let mut network = AccessNet::from_all(VERSION);
        if self.connects_anywhere {
            network.remove(AccessNet::ConnectTcp);
        }
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(VERSION))
            .and_then(|rules| rules.handle_access(network))
            .and_then(|rules| rules.scope(Scope::from_all(VERSION)))
            .and_then(Ruleset::create)
            .map_err(|error| refused(&error))?;
        for (path, allowed) in &self.below {
            let fd = PathFd::new(path).map_err(|error| {
                let source = match error {
                    PathFdError::OpenCall { source, .. } => source,
                    other => std::io::Error::other(other.to_string()),
                };
                SandboxError::Path { path: path.clone(), source }
            })?;
            rules =
                rules.add_rule(PathBeneath::new(fd, allowed.access())).map_err(|error| refused(&error))?;
        }
        for (port, access) in &self.tcp_ports {
            rules = rules.add_rule(NetPort::new(*port, *access)).map_err(|error| refused(&error))?;
        }
        let status = rules.restrict_self().map_err(|error| refused(&error))?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Landlock::Full,
            RulesetStatus::PartiallyEnforced => Landlock::Partial,
            RulesetStatus::NotEnforced => Landlock::None,
        })
    }
}
