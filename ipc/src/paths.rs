//! Where the files of a node are by default, and what its sockets are called.

use std::path::{Path, PathBuf};

/// The runtime directory of a node that services run: its sockets.
pub const RUN_DIR: &str = "/run/i2plan";

/// The state directory of a node that services run.
pub const STATE_DIR: &str = "/var/lib/i2plan";

/// The runtime directories of static interfaces: one of each name.
pub const STATIC_RUN_DIR: &str = "/run/i2plan-static";

/// The state directories of static interfaces: one of each name.
pub const STATIC_STATE_DIR: &str = "/var/lib/i2plan-static";

/// The configuration file of the system.
pub const CONFIG_FILE: &str = "/etc/i2plan/config.toml";

/// Where `wg` looks for the sockets of interfaces that are not the kernel's.
pub const WIREGUARD_DIR: &str = "/var/run/wireguard";

/// `keyd`'s sockets: one for each daemon that asks it, and one for the orders of administrators.
pub const KEYD_MESHD_SOCKET: &str = "keyd-meshd.sock";
/// For `tund`.
pub const KEYD_TUND_SOCKET: &str = "keyd-tund.sock";
/// For the connector.
pub const KEYD_CONNECTOR_SOCKET: &str = "keyd-connector.sock";
/// For administrators.
pub const KEYD_CONTROL_SOCKET: &str = "keyd-control.sock";
/// `meshd`'s socket, which controls the node.
pub const MESHD_SOCKET: &str = "meshd.sock";
/// `tund`'s socket.
pub const TUND_SOCKET: &str = "tund.sock";
/// `rpcd`'s socket.
pub const RPC_SOCKET: &str = "rpc.sock";
/// `webd`'s socket.
pub const WEB_SOCKET: &str = "web.sock";

/// Where the socket is that controls the static interface of this name.
#[must_use]
pub fn static_socket(interface: &str) -> PathBuf {
    Path::new(STATIC_RUN_DIR).join(interface).join(MESHD_SOCKET)
}

/// Where a socket of this name is if services run the node.
#[must_use]
pub fn system_socket(name: &str) -> PathBuf {
    Path::new(RUN_DIR).join(name)
}

/// Where another socket is of the node whose `meshd` listens at `meshd`: beside it, or in its own directory of this
/// name where each daemon makes its sockets itself.
#[must_use]
pub fn beside(meshd: &Path, socket: &str, directory: &str) -> PathBuf {
    let beside = meshd.with_file_name(socket);
    let apart = meshd.parent().and_then(Path::parent).map(|run| run.join(directory).join(socket));
    match apart {
        Some(apart) if beside.symlink_metadata().is_err() && apart.symlink_metadata().is_ok() => apart,
        _ => beside,
    }
}
