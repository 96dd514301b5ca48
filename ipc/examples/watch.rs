//! Shows a running node and follows it: `cargo run -p i2plan-ipc --example watch -- [SOCKET [EVENTS]]`. It ends after
//! so many events, if a number is given.

use std::path::PathBuf;
use std::time::Duration;

use i2plan_ipc::client::ClientError;
use i2plan_ipc::node::{Node, Notice};

/// Where a node that runs as a service has its control socket.
const SOCKET: &str = "/run/i2plan/meshd.sock";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = PathBuf::from(arguments.next().unwrap_or_else(|| SOCKET.to_owned()));
    let count: Option<usize> = arguments.next().map(|count| count.parse()).transpose()?;

    let mut node = Node::connect(&socket).await?;
    println!("{} runs i2plan {}", socket.display(), node.daemon().version.version);
    let mut events = node.events().with_traffic(Duration::from_secs(10));
    let mut told = 0;
    while count.is_none_or(|count| told < count) {
        match events.next().await {
            // At the beginning, and after something was missed. The connection for questions may be a dead one then.
            Notice::Resync => {
                if node.is_broken() || show(&mut node).await.is_err() {
                    node = Node::connect(&socket).await?;
                    show(&mut node).await?;
                }
            }
            Notice::Event(event) => {
                told += 1;
                println!("event {}: {:?}", event.number, event.kind);
            }
            Notice::Traffic(traffic) => {
                let (sent, received) = traffic
                    .peers
                    .iter()
                    .fold((0, 0), |(tx, rx), peer| (tx + peer.tx_bytes, rx + peer.rx_bytes));
                println!("traffic: {sent} bytes sent, {received} received");
            }
            Notice::Lost(why) => println!("away: {why}"),
        }
    }
    Ok(())
}

/// What there is, asked for anew.
async fn show(node: &mut Node) -> Result<(), ClientError> {
    let status = node.status().await?;
    let network = status.network.map_or_else(|| "no network".to_owned(), |network| network.ipv4.to_string());
    println!("node {}: {network}", status.name);
    for peer in node.peers().await? {
        println!("  peer {} {} {:?}", peer.name, peer.ipv4, peer.liveness);
    }
    Ok(())
}
