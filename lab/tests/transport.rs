//! The example of `i2plan-transport`: WireGuard between two processes, without a daemon.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;
use std::time::{Duration, Instant};

use lab::Failure;
use lab::i2p::kind::Routers;
use lab::i2p::router::SamBridge;
use lab::i2p::{PrivateNetwork, Router};
use lab::netns::Network;
use lab::process::{Child, Spawn};
use lab::sandbox::DIRECTORY;
use lab::testing::{sandboxed, sandboxed_within, skip};
use tokio::time::timeout;

const LAB: &str = env!("CARGO_BIN_EXE_lab");
const EXAMPLE: &str = env!("CARGO_BIN_EXE_lab-transport");

/// Packets that are to be answered.
const PACKETS: usize = 5;

/// How long the next packet may take to be answered: sessions are opened meanwhile. On emissary's routers; on others it
/// has [longer](Routers::patience).
const ANSWER: Duration = Duration::from_secs(120);

/// How long all of it may take on i2pd, which opens a session in up to 40 s.
const ON_I2PD: Duration = Duration::from_secs(1800);

/// Starts the example on a node. Also returns the line for the other.
async fn example(node: &str, args: &[&str]) -> Result<(Child, String), Failure> {
    let example = Spawn::new(Path::new(EXAMPLE), args.iter().map(Into::into));
    let mut example = example.namespace(Some(node)).reads().wait_for_line()?;
    let line = example.first_line().await?;
    Ok((example, line))
}

/// Starts it on both nodes, and tells each of the other. The second is to get so many packets answered.
async fn pair(style: &str, packets: usize) -> Result<[Child; 2], Failure> {
    let (mut one, first) = example("n1", &[style]).await?;
    let (mut two, second) = example("n2", &[style, &packets.to_string()]).await?;
    one.say(&second).await?;
    two.say(&first).await?;
    Ok([one, two])
}

/// Waits until so many packets are answered.
async fn answered(caller: &mut Child, packets: usize, within: Duration) -> Result<(), Failure> {
    for _ in 0..packets {
        let line = timeout(within, caller.first_line()).await;
        let line = line.map_err(|_| Failure::new("a packet is not answered"))??;
        println!("{line}");
        assert!(line.starts_with("packet "), "{line}");
    }
    Ok(())
}

async fn wireguard_runs(routers: Routers) -> Result<(), Failure> {
    let network = Network::create(8).await?;
    let i2p = PrivateNetwork::start(Path::new(DIRECTORY), &network, routers).await?;
    let mut edges: Vec<Router> = Vec::new();
    for (number, name) in [(1, "n1"), (2, "n2")] {
        let address = network.add_node(name, number).await?;
        edges.push(i2p.start_edge(name, address, routers.kind(number), SamBridge::USUAL).await?);
    }
    let within = ANSWER * routers.patience();
    for style in ["raw", "repliable"] {
        println!("{style}, on {}:", routers.name());
        let started = Instant::now();
        let [_one, mut two] = pair(style, PACKETS).await?;
        answered(&mut two, 1, within).await?;
        println!("first answer after {:.1} s", started.elapsed().as_secs_f32());
        answered(&mut two, PACKETS - 1, within).await?;
        assert!(two.wait().await?.success());
    }
    // A destination is the same one after its router was away.
    let [mut one, mut two] = pair("repliable", 2 * PACKETS).await?;
    answered(&mut two, PACKETS, within).await?;
    edges[0].kill().await?;
    let started = Instant::now();
    edges[0].start().await?;
    answered(&mut two, PACKETS, within).await?;
    println!("all answered {:.1} s after the router was killed", started.elapsed().as_secs_f32());
    assert!(two.wait().await?.success());
    one.stop().await?;
    Ok(())
}

#[test]
#[ignore = "it waits for routers for minutes: CONTRIBUTING.md names the command"]
fn wireguard_runs_over_the_transport() {
    sandboxed(LAB, "wireguard_runs_over_the_transport", async || wireguard_runs(Routers::from_env()?).await);
}

#[test]
#[ignore = "it waits for routers for minutes: CONTRIBUTING.md names the command"]
fn wireguard_runs_over_the_transport_on_i2pd() {
    let name = "wireguard_runs_over_the_transport_on_i2pd";
    match Routers::I2pd.check() {
        Ok(()) => sandboxed_within(LAB, name, ON_I2PD, async || wireguard_runs(Routers::I2pd).await),
        Err(missing) => skip(name, &missing),
    }
}
