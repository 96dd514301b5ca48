//! i2plan's laboratory: private I2P networks of real routers, network namespaces, nodes of real daemons; and
//! what is made of them: a demo, a benchmark and the end-to-end tests.
//!
//! * [`sandbox`]: namespaces around everything, so that the kernel takes it down whatever happens.
//! * [`netns`]: the network between the nodes.
//! * [`i2p`]: the routers.
//! * [`build`], [`node`]: the daemons, built and run.
//! * [`population`]: a network of many for one node.
//! * [`probe`]: what runs inside a node's namespace to measure it.
//! * [`browser`]: a web browser that sees nothing but the pages of nodes.
//! * [`traffic`]: what nodes send each other over their tunnels.
//! * [`wireguard`]: other WireGuard programs; [`wireguard_go`]: one of them over I2P.
//! * [`intruder`]: somebody in a daemon's place, who tries its sandbox.
//! * [`machines`]: a network on which a person runs nodes by hand.
//! * [`mod@path`]: an emulated path in the place of routers; [`load`]: what is sent over it.
//! * [`null_bridge`]: a bridge that only copies; [`copy_tunnel`]: a tunnel that only does.
//! * [`demo`], [`mod@bench`], [`bench_path`], [`bench_null`], [`bench_ctl`]: what else users run.
//! * [`sim`]: meshes of a thousand in virtual time.
//! * [`soak`]: a network for hours, while everything fails in turn.
//! * [`systemd`]: the packages on real systems under systemd.
//! * [`attack`]: what an intruder runs, and the attacks of a member.
//! * [`wait`]: for what comes about by itself.
//! * [`testing`]: how a test gets into the sandbox.
//!
//! All of it is for Linux; elsewhere there is nothing here.

#![cfg(target_os = "linux")]

use std::path::Path;

pub mod attack;
pub mod bench;
pub mod bench_ctl;
pub mod bench_null;
pub mod bench_path;
pub mod browser;
pub mod build;
pub mod copy_tunnel;
pub mod demo;
pub mod firewall;
pub mod i2p;
pub mod intruder;
pub mod load;
pub mod machines;
pub mod netns;
pub mod node;
pub mod null_bridge;
pub mod path;
pub mod population;
pub mod probe;
pub mod process;
pub mod progress;
pub mod sandbox;
pub mod sim;
pub mod sizes;
pub mod soak;
pub mod stats;
pub mod systemd;
pub mod testing;
pub mod traffic;
pub mod udp_tunnels;
pub mod wait;
pub mod wireguard;
pub mod wireguard_go;

/// Why something did not work, for a person to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// A failure with this explanation.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Says during what it happened.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<nix::Error> for Failure {
    fn from(error: nix::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rtnetlink::Error> for Failure {
    fn from(error: rtnetlink::Error) -> Self {
        Self(format!("netlink: {error}"))
    }
}

/// Lines of a log that are shown with a failure.
const LOG_LINES: usize = 200;

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(LOG_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
