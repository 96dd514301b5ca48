//! Why a node does not start.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::layout::LayoutError;
use crate::programs::ProgramError;

/// Why a node cannot be started. Nothing of it runs then.
#[derive(Debug, Error)]
pub enum StartError {
    /// This process is not root.
    #[error("only root can make the tunnel and start each daemon as a user of its own")]
    NotRoot,
    /// The caller is not on a tokio runtime of one thread.
    #[error("daemons end with the thread that started them: start them on a runtime of one thread")]
    Runtime,
    /// Directories or sockets cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A daemon is not installed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The path of the configuration has no absolute form.
    #[error("{} is no path: {source}", path.display())]
    Config {
        /// It.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An interface with static peers cannot be told to `tund`.
    #[error("the static interface cannot be told to tund: {0}")]
    Static(String),
    /// The system has no descriptors to give.
    #[error("cannot share a socket: {0}")]
    Share(io::Error),
}
