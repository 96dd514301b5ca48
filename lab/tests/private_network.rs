//! The private I2P network by itself: real routers, each node's in a namespace of its own.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;

use lab::Failure;
use lab::i2p::PrivateNetwork;
use lab::netns::Network;
use lab::probe::{Received, Sent};
use lab::process::{Child, Spawn};
use lab::sandbox::DIRECTORY;
use lab::testing::sandboxed;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

fn probe(namespace: &str, args: &[&str]) -> Result<Child, Failure> {
    Spawn::this_program(args.iter().map(Into::into)).namespace(Some(namespace)).wait_for_line()
}

/// Sends a few datagrams from one node's router to the other's; true if most arrive.
async fn datagrams_arrive(from: &str, to: &str) -> Result<bool, Failure> {
    let mut sink = probe(to, &["__raw-sink"])?;
    let destination: String = sink.next_json().await?;
    let mut source = probe(from, &["__raw-source", &destination, "1300", "2", "--rate", "50"])?;
    let sent: Sent = source.next_json().await?;
    let received: Received = sink.next_json().await?;
    Ok(received.datagrams * 2 > sent.datagrams)
}

#[test]
fn datagrams_cross_it_and_a_killed_router_comes_back() {
    sandboxed(LAB, "datagrams_cross_it_and_a_killed_router_comes_back", async || {
        let network = Network::create(8).await?;
        let i2p = PrivateNetwork::start(Path::new(DIRECTORY), &network).await?;
        let mut addresses = Vec::new();
        let mut routers = Vec::new();
        for (number, name) in [(1, "n1"), (2, "n2")] {
            let address = network.add_node(name, number).await?;
            routers.push(i2p.start_edge(name, address).await?);
            addresses.push(address);
        }
        assert!(datagrams_arrive("n1", "n2").await?);
        routers[1].kill().await?;
        routers[1] = i2p.start_edge("n2", addresses[1]).await?;
        assert!(datagrams_arrive("n1", "n2").await?);
        assert!(datagrams_arrive("n2", "n1").await?);
        Ok(())
    });
}
