//! What followers of the node are told of the other daemons, the interface and the tunnels: found by comparing what
//! is reported with what was reported before.

use std::collections::BTreeSet;

use i2plan_ipc::api::meshd::{EventKind, JoinStep};
use i2plan_ipc::api::tund::{Interface, InterfaceFault, Overlap, Stats};
use i2plan_ipc::hello::Role;
use i2plan_proto::identity::NodeId;

use super::tunnel::TundReport;

/// How long after its handshake a WireGuard session ends, seconds (WireGuard, section 6.1: REJECT_AFTER_TIME).
pub(super) const HANDSHAKE_LASTS: u64 = 180;

/// The members with whom there is a WireGuard session.
pub(super) fn sessions(stats: Option<&Stats>) -> impl Iterator<Item = NodeId> {
    let peers = stats.into_iter().flat_map(|stats| &stats.peers);
    peers.filter(|peer| peer.last_handshake.is_some_and(|age| age < HANDSHAKE_LASTS)).map(|peer| peer.node)
}

/// What was told before.
#[derive(Debug, Default)]
pub(super) struct Observer {
    keyd: Option<bool>,
    tund: Option<bool>,
    interface: Option<Interface>,
    overlaps: Vec<Overlap>,
    faults: Vec<InterfaceFault>,
    up: BTreeSet<NodeId>,
    /// How far this node is on its way into a network, from its admission on.
    entering: Option<JoinStep>,
}

impl Observer {
    /// The mesh has said this.
    pub(super) fn handle_mesh_event(&mut self, kind: &EventKind) {
        match kind {
            EventKind::JoinProgress { step: JoinStep::Admitted } => self.entering = Some(JoinStep::Admitted),
            EventKind::NetworkLeft { .. } => self.entering = None,
            _ => {}
        }
    }

    /// `keyd` answers, or does not for this reason.
    pub(super) fn handle_keyd_state(&mut self, state: Result<(), &str>) -> Option<EventKind> {
        changed(&mut self.keyd, Role::Keyd, state)
    }

    /// `tund` has reported. The node should have the interface `wanted`; `name` is what members call themselves.
    pub(super) fn handle_tund_report(
        &mut self,
        report: &TundReport,
        wanted: Option<&Interface>,
        name: impl Fn(&NodeId) -> Option<String>,
    ) -> Vec<EventKind> {
        let state = match (&report.daemon, &report.error) {
            (Some(_), _) => Some(Ok(())),
            (None, Some(error)) => Some(Err(error.as_str())),
            // Not reached yet.
            (None, None) => None,
        };
        let mut events: Vec<EventKind> =
            state.and_then(|state| changed(&mut self.tund, Role::Tund, state)).into_iter().collect();
        if self.interface != report.interface {
            self.interface = report.interface.clone();
            let up = report.configured.as_ref();
            events.extend(up.map(|up| EventKind::InterfaceUp { interface: up.interface.clone() }));
        }
        let addressed = self.interface.is_some() && self.interface.as_ref() == wanted;
        if self.entering == Some(JoinStep::Admitted) && addressed {
            self.entering = Some(JoinStep::Addressed);
            events.push(EventKind::JoinProgress { step: JoinStep::Addressed });
        }
        // Of a tund that is away nothing is known.
        if let Some(stats) = report.stats.as_ref().filter(|stats| stats.overlaps != self.overlaps) {
            self.overlaps.clone_from(&stats.overlaps);
            let overlaps = stats.overlaps.iter().map(ToString::to_string).collect();
            events.push(EventKind::HostOverlap { overlaps });
        }
        if let Some(stats) = report.stats.as_ref().filter(|stats| stats.faults != self.faults) {
            self.faults.clone_from(&stats.faults);
            let faults = stats.faults.iter().map(ToString::to_string).collect();
            events.push(EventKind::InterfaceChanged { faults });
        }
        let up: BTreeSet<NodeId> = sessions(report.stats.as_ref()).collect();
        let before = std::mem::replace(&mut self.up, up);
        for node in self.up.difference(&before) {
            let (node_id, name) = (node.to_string(), name(node).unwrap_or_default());
            events.push(EventKind::TunnelUp { node_id, name });
        }
        for node in before.difference(&self.up) {
            let (node_id, name) = (node.to_string(), name(node).unwrap_or_default());
            events.push(EventKind::TunnelDown { node_id, name });
        }
        if self.entering == Some(JoinStep::Addressed) && !self.up.is_empty() {
            self.entering = None;
            events.push(EventKind::JoinProgress { step: JoinStep::Connected });
        }
        events
    }
}

fn changed(before: &mut Option<bool>, daemon: Role, state: Result<(), &str>) -> Option<EventKind> {
    if before.replace(state.is_ok()) == Some(state.is_ok()) {
        return None;
    }
    let daemon = daemon.to_string();
    Some(match state {
        Ok(()) => EventKind::DaemonUp { daemon },
        Err(error) => EventKind::DaemonDown { daemon, error: error.to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::tund::{Configured, Drops, Handshakes, HostUse, PeerStats};
    use i2plan_ipc::hello::{HelloReply, Landlock, PROTOCOL};
    use i2plan_ipc::version::Version;
    use i2plan_proto::identity::NetworkId;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn interface(host: u8) -> Interface {
        Interface {
            name: "i2plan0".to_owned(),
            network: NetworkId([1; 32]),
            ipv4: [10, 42, 0, host].into(),
            ipv4_prefix: 16,
            ipv6: std::net::Ipv6Addr::LOCALHOST,
            ipv6_prefix: 64,
            mtu: 1280,
        }
    }

    /// `tund` has the interface with this address, and shook hands with these nodes so many seconds ago.
    fn report(host: Option<u8>, handshakes: &[(u8, u64)]) -> TundReport {
        let up = Configured { interface: "tun7".to_owned(), public_key: [1; 32], epoch: 1 };
        let peer = |(number, age): &(u8, u64)| PeerStats {
            node: node(*number),
            last_handshake: Some(*age),
            tx_packets: 0,
            tx_bytes: 0,
            rx_packets: 0,
            rx_bytes: 0,
            queue_drops: 0,
            rx_drops: 0,
            unanswered: 0,
        };
        TundReport {
            daemon: Some(HelloReply {
                protocol: PROTOCOL,
                role: Role::Tund,
                pid: 1,
                version: Version::current(),
                landlock: Landlock::None,
                refused: None,
            }),
            configured: host.map(|_| up),
            interface: host.map(interface),
            stats: Some(Stats {
                version: Version::current(),
                interface: None,
                mtu: None,
                public_key: None,
                session: None,
                heard: None,
                unanswered: None,
                peers: handshakes.iter().map(peer).collect(),
                drops: Drops::default(),
                handshakes: Handshakes::default(),
                overlaps: Vec::new(),
                without_ipv6: false,
                faults: Vec::new(),
                problem: None,
            }),
            error: None,
            hint: None,
        }
    }

    struct Run(Observer);

    impl Run {
        /// What is told of a report, to a node that should have the address 10.42.0.1.
        fn on(&mut self, report: &TundReport) -> Vec<String> {
            let name = |node: &NodeId| Some(format!("n{}", node.0[0]));
            let events = self.0.handle_tund_report(report, Some(&interface(1)), name);
            events.iter().map(describe).collect()
        }
    }

    fn describe(kind: &EventKind) -> String {
        match kind {
            EventKind::TunnelUp { name, .. } => format!("{name} up"),
            EventKind::TunnelDown { name, .. } => format!("{name} down"),
            EventKind::DaemonUp { daemon } => format!("{daemon} up"),
            EventKind::DaemonDown { daemon, error } => format!("{daemon} down: {error}"),
            EventKind::InterfaceUp { interface } => interface.clone(),
            EventKind::HostOverlap { overlaps } => format!("overlaps: {}", overlaps.join("; ")),
            EventKind::InterfaceChanged { faults } => format!("faults: {}", faults.join("; ")),
            EventKind::JoinProgress { step } => format!("{step:?}"),
            _ => panic!("{kind:?}"),
        }
    }

    fn away() -> TundReport {
        TundReport { error: Some("gone".to_owned()), ..TundReport::default() }
    }

    #[test]
    fn each_change_is_told_once() {
        let mut run = Run(Observer::default());
        assert_eq!(run.on(&TundReport::default()), [""; 0]);
        assert_eq!(run.on(&report(None, &[])), ["tund up"]);
        assert_eq!(run.on(&report(Some(1), &[(2, 0), (3, 500)])), ["tun7", "n2 up"]);
        assert_eq!(run.on(&report(Some(1), &[(2, 1), (3, 501)])), [""; 0]);
        assert_eq!(run.on(&report(Some(2), &[(2, 180), (3, 0)])), ["tun7", "n3 up", "n2 down"]);
        assert_eq!(run.on(&away()), ["tund down: gone", "n3 down"]);
        assert_eq!(run.on(&away()), [""; 0]);
        assert_eq!(run.on(&report(Some(2), &[])), ["tund up", "tun7"]);

        let keyd = |run: &mut Run, state| run.0.handle_keyd_state(state).map(|what| describe(&what));
        assert_eq!(keyd(&mut run, Ok(())).as_deref(), Some("keyd up"));
        assert_eq!(keyd(&mut run, Ok(())), None);
        assert_eq!(keyd(&mut run, Err("gone")).as_deref(), Some("keyd down: gone"));
        assert_eq!(keyd(&mut run, Err("still gone")), None);
    }

    #[test]
    fn what_others_do_to_the_interface_is_told_when_it_changes() {
        let mut run = Run(Observer::default());
        let with = |faults| {
            let mut report = report(Some(1), &[]);
            report.stats.as_mut().unwrap().faults = faults;
            report
        };
        run.on(&with(Vec::new()));
        let faults = vec![InterfaceFault::Down, InterfaceFault::Mtu { found: 1500 }];
        assert_eq!(run.on(&with(faults.clone())), ["faults: it is down; its MTU is 1500"]);
        assert_eq!(run.on(&with(faults)), [""; 0]);
        assert_eq!(run.on(&with(Vec::new())), ["faults: "]);
    }

    #[test]
    fn an_overlap_is_told_when_it_comes_and_when_it_ends() {
        let mut run = Run(Observer::default());
        let overlapping = |overlaps| {
            let mut report = report(Some(1), &[]);
            report.stats.as_mut().unwrap().overlaps = overlaps;
            report
        };
        let overlap = Overlap {
            prefix: "10.42.0.0/16".to_owned(),
            kind: HostUse::Route,
            host_prefix: "10.0.0.0/8".to_owned(),
            interface: Some("vpn".to_owned()),
        };
        run.on(&overlapping(Vec::new()));
        let told = ["overlaps: 10.42.0.0/16 overlaps the route to 10.0.0.0/8 through vpn"];
        assert_eq!(run.on(&overlapping(vec![overlap.clone()])), told);
        assert_eq!(run.on(&overlapping(vec![overlap])), [""; 0]);
        assert_eq!(run.on(&away()), ["tund down: gone"]);
        assert_eq!(run.on(&overlapping(Vec::new())), ["tund up", "tun7", "overlaps: "]);
    }

    #[test]
    fn a_node_that_enters_a_network_is_followed_to_its_first_session() {
        let admitted = EventKind::JoinProgress { step: JoinStep::Admitted };
        let mut run = Run(Observer::default());
        // Of the network before.
        run.on(&report(Some(9), &[(2, 0)]));
        run.0.handle_mesh_event(&admitted);
        assert_eq!(run.on(&report(Some(9), &[(2, 1)])), [""; 0]);
        assert_eq!(run.on(&report(None, &[])), ["n2 down"]);
        assert_eq!(run.on(&report(Some(1), &[])), ["tun7", "Addressed"]);
        assert_eq!(run.on(&report(Some(1), &[(3, 0)])), ["n3 up", "Connected"]);
        assert_eq!(run.on(&report(Some(1), &[(3, 0), (4, 0)])), ["n4 up"]);
        // Who leaves in between has not arrived.
        run.0.handle_mesh_event(&admitted);
        run.0.handle_mesh_event(&EventKind::NetworkLeft { network: "x".to_owned(), revoked: false });
        assert_eq!(run.on(&report(Some(1), &[(3, 0), (4, 0)])), [""; 0]);
    }
}
