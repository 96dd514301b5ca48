//! Traffic over the tunnels between nodes.

use std::net::IpAddr;

use crate::Failure;
use crate::node::Node;
use crate::probe::{Pings, Transfer};

/// TCP port of the transfers.
const PORT: u16 = 5001;

/// Waits for the first echo over the tunnel.
///
/// # Errors
/// If there is none within a minute, or the other is in no network.
pub async fn reach(from: &Node, to: &Node) -> Result<(), Failure> {
    ping(from, to.address().await?, 1000, true).await.map(drop)
}

/// Pings over the tunnel.
///
/// # Errors
/// If the probe fails; with `first`, also if nothing answers within a minute.
pub async fn ping(node: &Node, target: IpAddr, count: u32, first: bool) -> Result<Pings, Failure> {
    let mut args = vec!["__ping".to_owned(), target.to_string(), "--count".to_owned(), count.to_string()];
    if first {
        args.push("--first".to_owned());
    }
    node.probe(&args).await
}

/// Moves bytes over TCP from one node to another and checks their hash.
///
/// # Errors
/// If the transfer fails or the hash is not right.
pub async fn transfer(from: &Node, to: &Node, address: IpAddr, bytes: u64) -> Result<Transfer, Failure> {
    let target = std::net::SocketAddr::new(address, PORT).to_string();
    let mut server = to.start_probe(&["__serve-tcp".to_owned(), target.clone()])?;
    server.first_line().await?;
    let transfer: Transfer = from.probe(&["__send-tcp".to_owned(), target, bytes.to_string()]).await?;
    server.kill().await?;
    if !transfer.intact {
        return Err(from.failure("the receiver's hash is not the sender's"));
    }
    Ok(transfer)
}
