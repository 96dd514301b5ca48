//! WireGuard over the UDP tunnels that i2pd itself offers: what its users build without i2plan.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use i2plan_proto::sam::session::Tunnels;

use crate::i2p::kind::RouterKind;
use crate::i2p::{UdpTunnel, UdpTunnelEnd};
use crate::node::Lab;
use crate::traffic::packet_passes;
use crate::wireguard::{self, End, Implementation, Interface, PORT};
use crate::{Failure, wait};

/// Addresses of the interfaces, the client's first.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 96, 0, 2)];

/// As nodes of the laboratory have them by default.
const TUNNELS: Tunnels = Tunnels { length: 1, length_variance: 0, quantity: 3, backup_quantity: 0 };

/// Where the client's router takes what its program sends.
const LISTEN: u16 = 51821;

/// How long it may take until packets pass. A router that has no tunnels yet when it is asked, or does not
/// find the server's lease set, asks again after a minute or more.
const DEADLINE: Duration = Duration::from_secs(600);

/// The length of the packet that shows it, bytes.
const LEN: usize = 100;

/// wireguard-go at the first two nodes. Ends when dropped.
#[derive(Debug)]
pub struct UdpTunnels {
    _ends: [Interface; 2],
}

impl UdpTunnels {
    /// Why the first two nodes cannot have any.
    #[must_use]
    pub fn missing(lab: &Lab) -> Option<String> {
        let without = lab.nodes.iter().take(2).any(|node| node.router_kind() != Some(RouterKind::I2pd));
        if without {
            return Some("both routers must be i2pd".to_owned());
        }
        Implementation::Go.missing().map(|install| format!("something is missing: `{install}`"))
    }

    /// Starts the routers of the first two nodes again with a tunnel from the first to the second, whose I2P tunnels are
    /// like those of the nodes' sessions, and wireguard-go at both ends of it. Waits until packets pass and the nodes'
    /// sessions are open again.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(lab: &mut Lab, mtu: u16) -> Result<Self, Failure> {
        let (port, tunnels) = (PORT, TUNNELS);
        lab.router(1)?.set_udp_tunnel(&UdpTunnel { end: UdpTunnelEnd::Server, port, tunnels })?;
        lab.restart_router(1).await?;
        let server = lab.router(1)?;
        let named = async || Ok(server.udp_tunnel_name().is_some());
        wait::until("the router has made the keys of its UDP tunnel", DEADLINE, named).await?;
        let destination =
            server.udp_tunnel_name().ok_or_else(|| Failure::new("the router's keys are gone"))?;
        let end = UdpTunnelEnd::Client { destination, listen: LISTEN };
        lab.router(0)?.set_udp_tunnel(&UdpTunnel { end, port, tunnels })?;
        lab.restart_router(0).await?;
        lab.ready().await?;
        let end = |number: usize, interface, endpoint| End {
            namespace: &lab.nodes[number].name,
            interface,
            address: ADDRESSES[number],
            endpoint,
        };
        let ends =
            [end(0, "wg-client", None), end(1, "wg-server", Some((Ipv4Addr::LOCALHOST, LISTEN).into()))];
        let ends = wireguard::pair(Implementation::Go, ends, mtu).await?;
        let places = [0, 1].map(|end: usize| (ends[end].namespace(), IpAddr::from(ADDRESSES[end])));
        let passes = async || packet_passes(places[0], places[1], LEN).await.map(|()| true);
        wait::until("a packet comes over the routers' UDP tunnel", DEADLINE, passes).await?;
        Ok(Self { _ends: ends })
    }

    /// The address that leads from the first node to the second.
    #[must_use]
    pub fn target(&self) -> IpAddr {
        ADDRESSES[1].into()
    }
}
