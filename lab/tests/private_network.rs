//! The private I2P network by itself: real routers, each node's in a namespace of its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;
use std::time::Duration;

use lab::Failure;
use lab::i2p::PrivateNetwork;
use lab::i2p::kind::Routers;
use lab::netns::Network;
use lab::probe::{Received, Sent};
use lab::process::{Child, Spawn};
use lab::sandbox::DIRECTORY;
use lab::testing::sandboxed;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

fn probe(namespace: &str, args: &[&str]) -> Result<Child, Failure> {
    Spawn::this_program(args.iter().map(Into::into)).namespace(Some(namespace)).wait_for_line()
}

/// How often datagrams are sent before a path counts as dead. A router that lost another needs a while to notice
/// and to build new tunnels.
const TRIES: usize = 30;

/// Sends a few datagrams from one node's router to the other's until most of them arrive.
async fn datagrams_arrive(from: &str, to: &str) -> Result<(), Failure> {
    let mut sink = probe(to, &["__raw-sink"])?;
    let destination: String = sink.next_json().await?;
    for _ in 0..TRIES {
        let mut source = probe(from, &["__raw-source", &destination, "1300", "1", "--rate", "50"])?;
        let sent: Sent = source.next_json().await?;
        // The source ends after the sink has reported; a sink that got nothing reports nothing.
        let report = tokio::time::timeout(Duration::from_secs(1), sink.next_json::<Received>()).await;
        if let Ok(received) = report
            && received?.datagrams * 2 > sent.datagrams
        {
            return Ok(());
        }
    }
    Err(Failure::new(format!("of datagrams from {from} to {to} fewer than half arrive")))
}

#[test]
fn datagrams_cross_it_and_a_killed_router_comes_back() {
    sandboxed(LAB, "datagrams_cross_it_and_a_killed_router_comes_back", async || {
        let network = Network::create(8).await?;
        let kinds = Routers::from_env()?;
        let i2p = PrivateNetwork::start(Path::new(DIRECTORY), &network, kinds).await?;
        let mut routers = Vec::new();
        for (number, name) in [(1, "n1"), (2, "n2")] {
            let address = network.add_node(name, number).await?;
            routers.push(i2p.start_edge(name, address, kinds.kind(number)).await?);
        }
        datagrams_arrive("n1", "n2").await?;
        routers[1].kill().await?;
        routers[1].start().await?;
        datagrams_arrive("n1", "n2").await?;
        datagrams_arrive("n2", "n1").await
    });
}
