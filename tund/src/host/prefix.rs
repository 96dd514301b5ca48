//! Which of the host's networks a mesh overlaps.

use i2plan_ipc::api::tund::{HostUse, Overlap};
pub use i2plan_proto::prefix::Prefix;

/// Overlaps that are told.
const MAX_OVERLAPS: usize = 8;

/// Whether a prefix is wider than all private space of its family (10.0.0.0/8, fc00::/7): a default route, or a part of
/// one, such as 0.0.0.0/1.
fn is_default(prefix: &Prefix) -> bool {
    prefix.length() < if prefix.address().is_ipv4() { 8 } else { 7 }
}

/// A network that the host uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    /// For what.
    pub kind: HostUse,
    /// Its addresses.
    pub prefix: Prefix,
    /// Through which interface.
    pub interface: Option<String>,
}

impl HostNetwork {
    /// A network.
    #[must_use]
    pub fn new(kind: HostUse, prefix: Prefix, interface: Option<String>) -> Self {
        Self { kind, prefix, interface }
    }

    /// Whether packets of the host, or for it, would go another way if the mesh had these addresses.
    fn is_disturbed_by(&self, mesh: &Prefix) -> bool {
        let counts = match self.kind {
            HostUse::Route => !is_default(&self.prefix),
            // One around the mesh's addresses carries nothing that could be diverted. One among them keeps packets from
            // members, and stands for a network in use: some programs set one behind the routes of their own.
            HostUse::NullRoute => self.prefix.length() >= mesh.length(),
            HostUse::Address | HostUse::Gateway | HostUse::Resolver | HostUse::SamBridge => true,
        };
        counts && self.prefix.overlaps(mesh)
    }
}

/// What of the host overlaps the prefixes of a mesh whose own interface is `interface`: one of each network of each
/// interface, the most telling kind first, and not more than can be shown.
#[must_use]
pub fn overlaps(mesh: &[Prefix], interface: Option<&str>, host: &[HostNetwork]) -> Vec<Overlap> {
    let is_local = |network: &HostNetwork| interface.is_some() && network.interface.as_deref() == interface;
    let mut found: Vec<(&Prefix, &HostNetwork)> = Vec::new();
    for prefix in mesh {
        found.extend(
            host.iter().filter(|it| !is_local(it) && it.is_disturbed_by(prefix)).map(|it| (prefix, it)),
        );
    }
    found.sort_by_key(|(_, network)| network.kind);
    let mut told: Vec<(&Prefix, &HostNetwork)> = Vec::new();
    for (prefix, network) in found {
        // The route to an interface's own network says nothing more than its address.
        let known = |(_, other): &(&Prefix, &HostNetwork)| {
            other.interface == network.interface && other.prefix.network() == network.prefix.network()
        };
        if told.len() < MAX_OVERLAPS && !told.iter().any(known) {
            told.push((prefix, network));
        }
    }
    told.into_iter()
        .map(|(prefix, network)| Overlap {
            prefix: prefix.to_string(),
            kind: network.kind,
            host_prefix: network.prefix.to_string(),
            interface: network.interface.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap())
    }

    fn network(kind: HostUse, text: &str, interface: &str) -> HostNetwork {
        HostNetwork::new(kind, prefix(text), (!interface.is_empty()).then(|| interface.to_owned()))
    }

    fn found(mesh: &[&str], host: &[HostNetwork]) -> Vec<String> {
        let mesh: Vec<_> = mesh.iter().map(|text| prefix(text)).collect();
        overlaps(&mesh, Some("i2plan0"), host).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_use_of_the_host_is_named() {
        let host = [
            network(HostUse::Route, "10.0.0.0/8", "tun3"),
            network(HostUse::Route, "192.168.1.0/24", "eth0"),
            network(HostUse::Resolver, "192.168.1.1/32", ""),
            network(HostUse::Gateway, "192.168.1.1/32", "eth0"),
            network(HostUse::SamBridge, "192.168.1.7/32", ""),
            network(HostUse::Address, "192.168.1.17/24", "eth0"),
        ];
        assert_eq!(
            found(&["192.168.1.0/29"], &host),
            [
                "192.168.1.0/29 overlaps the address 192.168.1.17/24 of eth0",
                "192.168.1.0/29 overlaps the gateway 192.168.1.1 on eth0",
                "192.168.1.0/29 overlaps the name server 192.168.1.1",
                "192.168.1.0/29 overlaps the SAM bridge 192.168.1.7",
            ]
        );
        assert_eq!(
            found(&["10.42.0.0/16"], &host),
            ["10.42.0.0/16 overlaps the route to 10.0.0.0/8 through tun3"]
        );
        assert_eq!(found(&["172.20.0.0/16", "fd12::/64"], &host), [""; 0]);
    }

    #[test]
    fn default_routes_and_those_of_the_own_interface_do_not_count() {
        let host = [
            network(HostUse::Route, "0.0.0.0/0", "eth0"),
            network(HostUse::Route, "0.0.0.0/1", "wg0"),
            network(HostUse::Route, "0.0.0.0/7", "wg0"),
            network(HostUse::Route, "::/0", "eth0"),
            network(HostUse::Route, "8000::/1", "wg0"),
            network(HostUse::Address, "10.42.0.1/16", "i2plan0"),
            network(HostUse::Route, "10.42.0.0/16", "i2plan0"),
        ];
        assert_eq!(found(&["10.42.0.0/16", "fd12::/64"], &host), [""; 0]);
        let ours = network(HostUse::Address, "10.42.0.1/16", "");
        assert!(!overlaps(&[prefix("10.42.0.0/16")], None, &[ours]).is_empty(), "none has no name");
        for (mesh, of) in [("10.42.0.0/16", "10.0.0.0/8"), ("fd12::/64", "fc00::/7")] {
            assert_eq!(found(&[mesh], &[network(HostUse::Route, of, "vpn")]).len(), 1, "{of}");
        }
    }

    #[test]
    fn a_route_that_drops_packets_counts_within_the_mesh_alone() {
        let at = |text| found(&["10.42.0.0/16"], &[network(HostUse::NullRoute, text, "")]).len();
        assert_eq!(["10.0.0.0/8", "10.42.0.0/16", "10.42.3.64/26", "10.43.0.0/16"].map(at), [0, 1, 1, 0]);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let host: Vec<_> =
            (0..200).map(|number| network(HostUse::Route, &format!("10.42.{number}.0/24"), "vpn")).collect();
        assert_eq!(found(&["10.42.0.0/16"], &host).len(), MAX_OVERLAPS);
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        // Few bits differ, so that prefixes meet.
        let ipv4 =
            (0u32..8, 0u32..8).prop_map(|(low, high)| Ipv4Addr::from_bits(low << 2 | high << 29).into());
        let ipv6 = (0u128..8).prop_map(|bits| Ipv6Addr::from_bits(bits << 120).into());
        (prop_oneof![ipv4, ipv6], any::<u8>()).prop_map(|(address, length)| Prefix::new(address, length))
    }

    proptest! {
        #[test]
        fn an_overlap_is_found_if_and_only_if_there_is_one(
            mesh in any_prefix(),
            host in prop::collection::vec((any_prefix(), any::<bool>()), 0..12),
        ) {
            let networks: Vec<_> = host
                .iter()
                .map(|(prefix, own)| {
                    let interface = if *own { "i2plan0" } else { "eth0" };
                    HostNetwork::new(HostUse::Address, *prefix, Some(interface.to_owned()))
                })
                .collect();
            let expected = host.iter().any(|(prefix, own)| !own && prefix.overlaps(&mesh));
            prop_assert_eq!(!overlaps(&[mesh], Some("i2plan0"), &networks).is_empty(), expected);
        }
    }
}
