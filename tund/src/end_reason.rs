//! Why the daemon ends.

use std::io::Error as IoError;

use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::sandbox::SandboxError;
use thiserror::Error;

use crate::privileges;

/// Why the daemon does not start, or does not go on.
#[derive(Debug, Error)]
pub enum EndReason {
    /// It has more privileges than it may have, or less than it needs.
    #[error(transparent)]
    Privileges(#[from] privileges::PrivilegeError),
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Another interface is wanted than there is, or none, and the privilege to see to that is gone: the next process
    /// has it.
    #[error("the interface is to be another one: starting again")]
    AnotherInterface,
    /// The interface went away.
    #[error("the interface is gone: {0}")]
    Interface(IoError),
    /// Another program has changed the interface, and the privilege to put that right is gone: the next process has it.
    #[error("another program has changed the interface: starting again to put it right")]
    Changed,
    /// There is an interface from before, but it cannot be gone on with, and the privilege to make one is gone: the
    /// next process has it.
    #[error("the interface that the fd store had cannot be used, so this starts again without it: {0}")]
    UnusableInterface(String),
    /// The TUN driver was not there at the start, so it is outside of the sandbox.
    #[error("the TUN driver has come: starting again with it")]
    Driver,
}

impl From<EndReason> for End {
    fn from(reason: EndReason) -> Self {
        match &reason {
            EndReason::Privileges(error) if error.is_wrong_user() => Self::usage(reason),
            EndReason::AnotherInterface | EndReason::Changed | EndReason::Driver => Self::restart(reason),
            _ => Self::failed(reason),
        }
    }
}
