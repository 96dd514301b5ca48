//! The kinds of routers, and what differs between them beyond how they are started.

use serde::Serialize;

use super::{i2pd, java};
use crate::Failure;

/// Names the routers of the network that a test or a command starts: a value of [`Routers`].
pub const ROUTER_VARIABLE: &str = "I2PLAN_LAB_ROUTER";

/// The program that a router is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouterKind {
    /// emissary, in a process of this program.
    Emissary,
    /// The i2pd that is installed.
    I2pd,
    /// The Java I2P that the environment names.
    Java,
}

impl RouterKind {
    /// The least tunnel length with which it opens a session.
    #[must_use]
    pub fn least_tunnel_length(self) -> u8 {
        match self {
            Self::Emissary => 1,
            Self::I2pd | Self::Java => 0,
        }
    }
}

/// The routers of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Routers {
    /// All are emissary's.
    #[default]
    Emissary,
    /// All are i2pd, which must be installed
    I2pd,
    /// They alternate, the nodes' and those that carry tunnels
    Mixed,
    /// All are Java I2P, from the directory that I2PLAN_LAB_JAVA_I2P names
    Java,
}

impl Routers {
    /// Reads [`ROUTER_VARIABLE`]; without it, the routers are emissary's.
    ///
    /// # Errors
    /// If it names no kind, or one that is not installed.
    pub fn from_env() -> Result<Self, Failure> {
        let routers = match std::env::var(ROUTER_VARIABLE) {
            Err(_) => Self::default(),
            Ok(name) => clap::ValueEnum::from_str(&name, false).map_err(|_| {
                Failure::new(format!("{ROUTER_VARIABLE}={name:?}: must be emissary, i2pd, mixed or java"))
            })?,
        };
        routers.check()?;
        Ok(routers)
    }

    /// Its name on the command line and in the environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Emissary => "emissary",
            Self::I2pd => "i2pd",
            Self::Mixed => "mixed",
            Self::Java => "java",
        }
    }

    /// Checks that the programs of these routers are installed.
    ///
    /// # Errors
    /// If one is not; with what to install.
    pub fn check(self) -> Result<(), Failure> {
        match self {
            Self::Emissary => Ok(()),
            Self::I2pd | Self::Mixed => i2pd::program().map(drop),
            Self::Java => java::jars().map(drop),
        }
    }

    /// The kind of the router with this number: of a node, or among those that carry tunnels.
    #[must_use]
    pub fn kind(self, number: u8) -> RouterKind {
        match self {
            Self::Emissary => RouterKind::Emissary,
            Self::I2pd => RouterKind::I2pd,
            Self::Java => RouterKind::Java,
            Self::Mixed if number.is_multiple_of(2) => RouterKind::I2pd,
            Self::Mixed => RouterKind::Emissary,
        }
    }

    /// How many routers carry tunnels for the others.
    pub(super) fn transit(self) -> u8 {
        match self {
            Self::Emissary | Self::Java => 4,
            // i2pd does not use a router for a while that has refused a tunnel or lost one.
            Self::I2pd | Self::Mixed => 6,
        }
    }

    /// By how much deadlines are multiplied that were made for emissary. i2pd 2.45.1 looks every 20 s whether it has
    /// the tunnels of a new session, so that an open session takes up to 40 s instead of less than one, after each
    /// start of a router or a daemon. Java I2P takes as long to start.
    #[must_use]
    pub fn patience(self) -> u32 {
        match self {
            Self::Emissary => 1,
            Self::I2pd | Self::Mixed | Self::Java => 3,
        }
    }

    /// How many of a few dozen pings may be lost though nothing has happened: i2pd drops some of the first datagrams to a
    /// destination.
    #[must_use]
    pub fn losses(self) -> u32 {
        match self {
            Self::Emissary => 0,
            Self::I2pd | Self::Mixed | Self::Java => 2,
        }
    }
}
