//! What a healthy node says of itself, for the tests of those who show it or pass it on.

use std::net::Ipv6Addr;

use crate::api::meshd::{
    Ban, BanReason, Daemon, Liveness, Network, Peer, Sam, Session, SessionHealth, SessionState, Status,
    Tunnel,
};

/// A session that is up.
#[must_use]
pub fn session() -> Session {
    Session {
        state: SessionState::Up,
        destination: None,
        error: None,
        health: SessionHealth::Fine,
        silent: None,
        over_tcp: false,
    }
}

/// A daemon of which nothing is known.
#[must_use]
pub fn daemon(name: &str) -> Daemon {
    Daemon { name: name.to_owned(), pid: None, version: None, landlock: None, error: None, hint: None }
}

/// The network of a founder with two other members.
#[must_use]
pub fn network() -> Network {
    Network {
        id: "net".to_owned(),
        name: "office".to_owned(),
        founder: true,
        inviters: Vec::new(),
        subnet: "10.42.0.0/16".to_owned(),
        ipv4: [10, 42, 7, 9].into(),
        ipv6: Ipv6Addr::new(0xfd12, 0, 0, 0, 0, 0, 0, 1),
        ranges: vec!["10.42.0.0/16".to_owned()],
        addresses: 65_536,
        addresses_left: 65_518,
        displaced_by: None,
        conflicts: Vec::new(),
        members: 3,
    }
}

/// A node without a network, with its sessions.
#[must_use]
pub fn status() -> Status {
    Status {
        name: "alpha".to_owned(),
        node_id: None,
        uptime: 7,
        config: "/etc/i2plan/config.toml".to_owned(),
        network: None,
        former: None,
        sam: Sam {
            address: "127.0.0.1:7656".to_owned(),
            version: None,
            control: session(),
            fallback: None,
            data: session(),
        },
        tunnel: Tunnel {
            interface: None,
            mtu: 1280,
            public_key: None,
            drops: None,
            overlaps: Vec::new(),
            without_ipv6: false,
            faults: Vec::new(),
            making: false,
        },
        daemons: Vec::new(),
        keys: Vec::new(),
        static_interface: None,
    }
}

/// A member that the founder has invited, and with which there was no tunnel.
#[must_use]
pub fn peer(node_id: &str, name: &str) -> Peer {
    Peer {
        node_id: node_id.to_owned(),
        name: name.to_owned(),
        ipv4: [10, 42, 0, 2].into(),
        ipv6: Ipv6Addr::new(0xfd12, 0, 0, 0, 0, 0, 0, 2),
        public_key: "key".to_owned(),
        endpoint: "x.b32.i2p".to_owned(),
        ranges: Vec::new(),
        depth: 1,
        inviters: vec!["founder".to_owned()],
        member_since: 1_799_000_000,
        signed_at: 1_800_000_000,
        liveness: Liveness::Present,
        banned: false,
        last_heard: None,
        rtt: None,
        last_handshake: None,
        tx_packets: 0,
        tx_bytes: 0,
        rx_packets: 0,
        rx_bytes: 0,
        queue_drops: 0,
        rx_drops: 0,
    }
}

/// A ban by hand, without end.
#[must_use]
pub fn ban(node_id: &str, name: &str) -> Ban {
    Ban {
        node_id: node_id.to_owned(),
        name: Some(name.to_owned()),
        reason: BanReason::Manual,
        description: String::new(),
        created_at: 0,
        expires_at: None,
        strikes: 0,
    }
}
