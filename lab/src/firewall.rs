//! Firewalls in nodes' namespaces, by `nft`.

use std::path::{Path, PathBuf};

use crate::process::Spawn;
use crate::{Failure, sandbox};

/// `nft`.
///
/// # Errors
/// If it is not installed.
pub fn program() -> Result<PathBuf, Failure> {
    let system = Path::new("/usr/sbin/nft");
    let found = sandbox::find("nft").or_else(|| system.is_file().then(|| system.to_owned()));
    found.ok_or_else(|| Failure::new("nft is not installed (Debian: apt-get install nftables)"))
}

/// Drops what comes on a node's loopback interface and matches, until [`open`].
///
/// # Errors
/// If `nft` is not there, or refuses.
pub async fn block(namespace: &str, matching: &str) -> Result<(), Failure> {
    let commands = format!(
        "add table inet lab; add chain inet lab in {{ type filter hook input priority 0 ; }}; \
         add rule inet lab in iif lo {matching} drop"
    );
    nft(namespace, &commands).await
}

/// Drops nothing any more.
///
/// # Errors
/// If `nft` is not there, or nothing was dropped.
pub async fn open(namespace: &str) -> Result<(), Failure> {
    nft(namespace, "delete table inet lab").await
}

async fn nft(namespace: &str, commands: &str) -> Result<(), Failure> {
    let output = Spawn::new(&program()?, [commands.into()]).namespace(Some(namespace)).output("").await?;
    if output.status.success() { Ok(()) } else { Err(Failure::new(format!("nft: {}", output.stderr.trim()))) }
}
