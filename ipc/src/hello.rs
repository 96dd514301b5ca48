//! The first frame in each direction, and the envelope of those that follow.

use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::version::Version;

/// Version of the protocol between i2plan's own processes. They are installed together, so a difference means
/// that one of them was not restarted after an upgrade; both sides say so and go no further.
pub const PROTOCOL: u32 = 10;

/// Largest frame of a handshake, bytes.
pub(crate) const MAX_HELLO: usize = 4096;

/// What a process is to the daemon that it connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `i2plan-keyd`.
    Keyd,
    /// `i2plan-meshd`.
    Meshd,
    /// `i2plan-tund`.
    Tund,
    /// `i2plan-connector`.
    Connector,
    /// A user's program, such as `i2planctl`.
    Client,
    /// `i2plan-webd`.
    Webd,
    /// `i2plan-named`, which may only look.
    Named,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Keyd => "keyd",
            Self::Meshd => "meshd",
            Self::Tund => "tund",
            Self::Connector => "connector",
            Self::Client => "client",
            Self::Webd => "webd",
            Self::Named => "named",
        })
    }
}

/// Opens a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the connecting side.
    pub protocol: u32,
    /// What it wants to be taken for; checked against its credentials.
    pub role: Role,
    /// Its build.
    pub version: Version,
}

/// How far a daemon has restricted itself with Landlock, which the kernel tells nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Landlock {
    /// Not at all: the system does not have it.
    #[default]
    None,
    /// In part: the kernel has an older version.
    Partial,
    /// Fully.
    Full,
}

static OF_THIS_PROCESS: AtomicU8 = AtomicU8::new(Landlock::None as u8);

impl Landlock {
    /// Notes how far this process is restricted from now on.
    #[cfg(all(feature = "daemon", target_os = "linux"))]
    pub(crate) fn note(self) {
        OF_THIS_PROCESS.store(self as u8, Ordering::Relaxed);
    }

    /// What was noted.
    #[must_use]
    pub fn of_this_process() -> Self {
        let noted = OF_THIS_PROCESS.load(Ordering::Relaxed);
        [Self::Partial, Self::Full].into_iter().find(|known| *known as u8 == noted).unwrap_or_default()
    }
}

/// Answers a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// [`PROTOCOL`] of the listening side.
    pub protocol: u32,
    /// The daemon.
    pub role: Role,
    /// Its process id.
    pub pid: u32,
    /// Its build.
    pub version: Version,
    /// The part of its sandbox that /proc does not show.
    pub landlock: Landlock,
    /// Why the connection is refused, if it is.
    pub refused: Option<ApiError>,
}

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request<T> {
    /// Returned in the reply.
    pub id: u64,
    /// What is asked.
    pub body: T,
}

/// A reply to the request of the same number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply<T> {
    /// The request's number.
    pub id: u64,
    /// The answer.
    pub result: Result<T, ApiError>,
}
