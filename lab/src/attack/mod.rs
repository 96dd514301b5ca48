//! What an intruder tries: in the place of a daemon, as a user of the host, from the network, and as a member.
//!
//! The programs here run as hidden commands of `lab`, under the user or at the router of the intruder, and print
//! what they met with as JSON. The tests `attack_ipc` and `attack_network` start them against running nodes. [`mesh`] is
//! the command `lab attack`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use i2plan_ipc::Role;
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::message::{Addressee, HEADER_LEN};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use crate::Failure;

pub mod ipc;
pub mod mesh;
pub mod network;
pub mod siege;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What.
    pub what: String,
    /// A part of the refusal that is due.
    pub because: String,
    /// The refusal that came; none if what was asked for was granted.
    pub refusal: Option<String>,
}

impl Attempt {
    /// Whether it failed, and for the reason that is due.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.contains(&self.because))
    }
}

/// Has a control datagram be for another destination, if it is long enough to be for any.
pub fn readdress(datagram: &mut [u8], to: DestinationHash) {
    if let Some(header) = datagram.get_mut(1..HEADER_LEN) {
        header.copy_from_slice(&Addressee::from(to).0);
    }
}

/// Where a daemon listens for a role.
#[must_use]
pub fn socket(run: &Path, daemon: Role, role: Role) -> PathBuf {
    match daemon {
        Role::Keyd if role == Role::Client => run.join("keyd-control.sock"),
        Role::Keyd => run.join(format!("keyd-{role}.sock")),
        _ => run.join(format!("{daemon}.sock")),
    }
}

/// Becomes a user of the host, for good.
///
/// # Errors
/// If the system refuses.
pub fn become_user(uid: u32, gid: u32) -> Result<(), Failure> {
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

fn print(report: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(report).map_err(|error| Failure::new(error.to_string()))?;
    println!("{text}");
    Ok(std::io::stdout().flush()?)
}
