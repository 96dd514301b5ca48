//! The machines of a run, and the network under them.

use std::path::Path;

use super::machine::Machine;
use crate::Failure;
use crate::i2p::kind::{RouterKind, Routers};
use crate::i2p::router::SamBridge;
use crate::i2p::{PrivateNetwork, Router};
use crate::netns::Network;
use crate::sandbox::DIRECTORY;

/// Addresses for the routers that carry tunnels.
const INTERNET_ADDRESSES: u8 = 8;

/// The daemons.
pub(super) const DAEMONS: [&str; 4] = ["keyd", "connector", "meshd", "tund"];

/// The machines and the network under them.
#[derive(Debug)]
pub struct Systems {
    pub(super) network: Network,
    pub(super) i2p: PrivateNetwork,
    pub(super) routers: [Router; 2],
    /// The machine that things happen to.
    pub(super) one: Machine,
    /// The other.
    pub(super) two: Machine,
}

impl Systems {
    pub(super) async fn boot(suite: &str) -> Result<Self, Failure> {
        let network = Network::create(INTERNET_ADDRESSES).await?;
        let i2p = PrivateNetwork::start(Path::new(DIRECTORY), &network, Routers::Emissary).await?;
        let addresses = [network.add_node("one", 1).await?, network.add_node("two", 2).await?];
        let router =
            async |name, address| i2p.start_edge(name, address, RouterKind::Emissary, SamBridge::USUAL).await;
        let routers = [router("one", addresses[0]).await?, router("two", addresses[1]).await?];
        let (one, two) = tokio::try_join!(
            Machine::boot("one", addresses[0], suite),
            Machine::boot("two", addresses[1], suite)
        )?;
        Ok(Self { network, i2p, routers, one, two })
    }
}
