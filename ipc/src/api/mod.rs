//! What may be asked of each daemon.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::hello::Role;

pub mod keyd;
pub mod meshd;
pub mod order;
pub mod tund;

/// One daemon's requests and replies.
pub trait Api: Send + Sync + 'static {
    /// What may be asked.
    type Request: Serialize + DeserializeOwned + Send + Sync;
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Send + Sync;
    /// The daemon.
    const DAEMON: Role;
    /// Largest request, bytes.
    const MAX_REQUEST: usize;
    /// Largest reply, bytes.
    const MAX_REPLY: usize;

    /// Whether a process with this role may ask this: the daemon's table of who may do what.
    fn allows(role: Role, request: &Self::Request) -> bool;

    /// How many file descriptors come with a request.
    fn fds(request: &Self::Request) -> usize {
        let _ = request;
        0
    }

    /// Whether the answer may be long in coming because nothing happens. It is not waited for when the client has
    /// gone.
    fn waits(request: &Self::Request) -> bool {
        let _ = request;
        false
    }

    /// How long the daemon may take to answer.
    fn deadline(request: &Self::Request) -> Duration {
        let _ = request;
        Duration::from_secs(10)
    }
}
