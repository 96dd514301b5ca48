//! `i2planctl key change-passphrase`.

use i2plan_ipc::ErrorKind;
use i2plan_supervisor::Programs;
use i2plan_supervisor::maintenance::StoppedNode;
use i2plan_supervisor::users;
use serde_json::json;

use super::key::ChangePassphrase;
use crate::failure::Failure;
use crate::output;
use crate::passphrase::{self, Given};

/// Seals the keys of a stopped node with a new passphrase, or unseals them.
///
/// # Errors
/// If this is not root, the node runs, a passphrase is missing or wrong, or the keys cannot be stored.
pub async fn run(json: bool, args: ChangePassphrase, given: Given) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(ErrorKind::Denied, "only root can act for the user that holds the keys")
            .with_hint("run it with sudo or doas: `sudo i2planctl key change-passphrase`"));
    }
    let user = users::keyd(&args.keyd_user)?;
    let data = args.stopped.data_dir()?;
    let node = StoppedNode::lock(&data, user, Programs::beside_this()?)?;

    let was_sealed = node.is_sealed().await?;
    let old = match given.passphrase {
        None if was_sealed => Some(passphrase::ask().await?),
        given => given.filter(|_| was_sealed),
    };
    let said = if args.remove {
        node.unseal(old.as_ref()).await?
    } else {
        let new = match given.new {
            Some(new) => new,
            None => passphrase::ask_new("--new-passphrase-fd").await?,
        };
        node.seal(old.as_ref(), &new).await?
    };
    if json {
        return output::json::print(&json!({ "sealed": !args.remove }));
    }
    output::print(&said)
}
