//! `i2planctl endpoint`.

use std::path::Path;

use i2plan_ipc::ErrorKind;
use serde_json::json;

use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
The endpoint stays the same as long as the interface's state directory does. Peers that run i2plan take either form; \
another implementation may know no names and need the destination as a whole.

Example:
  i2planctl --static wg0 endpoint";

/// `i2planctl endpoint`
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct EndpointArgs {
    /// Print the destination in I2P's base64 in place of its name, NAME.b32.i2p
    #[arg(long)]
    pub base64: bool,
}

/// Prints where an interface takes packets.
///
/// # Errors
/// If it does not answer, is none with static peers, or has no keys yet.
pub async fn run(socket: Option<&Path>, json: bool, args: &EndpointArgs) -> Result<(), Failure> {
    let status = daemon::connect(socket).await?.status().await?;
    let Some(interface) = status.static_interface else {
        return Err(Failure::new(
            ErrorKind::Conflict,
            "this is a member of a mesh, and has no endpoint of its own",
        )
        .with_hint("name an interface with static peers: `i2planctl --static NAME endpoint`"));
    };
    let (Some(b32), Some(base64)) = (status.sam.data.destination, interface.destination) else {
        return Err(Failure::new(ErrorKind::Unavailable, "keyd has not told the endpoint yet")
            .with_hint("try again; if it stays so, see `i2planctl --static NAME status`"));
    };
    if json {
        return output::json::print(&json!({ "b32": b32, "base64": base64 }));
    }
    output::print(&format!("{}\n", if args.base64 { base64 } else { b32 }))
}
