//! What OpenBSD's tun(4), ifconfig(8) and route(8) are told. Does nothing, so that it is tested on every system.

use std::net::{Ipv4Addr, Ipv6Addr};

use i2plan_ipc::api::tund::Interface;

/// Bytes before each packet, in both directions: its address family, most significant byte first (tun(4)).
pub(super) const HEADER_LEN: usize = 4;

/// Address families, from OpenBSD's `sys/socket.h`.
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 24;

const IFCONFIG: &str = "/sbin/ifconfig";
const ROUTE: &str = "/sbin/route";

/// Interfaces that are tried when no particular one is asked for.
const MAX_UNIT: u16 = 255;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolCommand {
    pub(super) program: &'static str,
    pub(super) arguments: Vec<String>,
}

impl ToolCommand {
    fn new(program: &'static str, arguments: &[&str]) -> Self {
        Self { program, arguments: arguments.iter().map(|&argument| argument.to_owned()).collect() }
    }
}

/// What goes before a packet; none if it is no IP packet.
pub(super) fn header(packet: &[u8]) -> Option<[u8; HEADER_LEN]> {
    match packet.first()? >> 4 {
        4 => Some([0, 0, 0, AF_INET]),
        6 => Some([0, 0, 0, AF_INET6]),
        _ => None,
    }
}

/// The names of interfaces to try: an interface cannot be renamed here, so a name of another form than the
/// driver's stands for any that is free.
pub(super) fn candidates(requested: &str) -> Vec<String> {
    let unit = requested.strip_prefix("tun").and_then(|unit| unit.parse::<u16>().ok());
    match unit {
        // As the driver writes it: no sign, no leading zeros.
        Some(unit) if requested == format!("tun{unit}") => vec![requested.to_owned()],
        _ => (0..=MAX_UNIT).map(|unit| format!("tun{unit}")).collect(),
    }
}

/// Succeeds if there is such an interface.
pub(super) fn look_for(name: &str) -> ToolCommand {
    ToolCommand::new(IFCONFIG, &[name])
}

/// Sets up an interface whose name is `name`, and brings it up.
pub(super) fn set_up(name: &str, interface: &Interface) -> Vec<ToolCommand> {
    let Interface { ipv4, ipv4_prefix, ipv6, ipv6_prefix, mtu, .. } = interface;
    let own = ipv4.to_string();
    let network = Ipv4Addr::from_bits(ipv4.to_bits() & prefix_mask(*ipv4_prefix));
    vec![
        ToolCommand::new(IFCONFIG, &[name, "mtu", &mtu.to_string(), "description", &interface.name]),
        ToolCommand::new(IFCONFIG, &[name, "inet", &format!("{own}/{ipv4_prefix}"), "alias"]),
        // The driver's interfaces are point-to-point: for IPv4 they come without a route to their network.
        ToolCommand::new(
            ROUTE,
            &["-q", "-n", "add", "-inet", &format!("{network}/{ipv4_prefix}"), "-iface", &own],
        ),
        ToolCommand::new(IFCONFIG, &[name, "inet6", &with_prefix(*ipv6, *ipv6_prefix)]),
        ToolCommand::new(IFCONFIG, &[name, "up"]),
    ]
}

fn with_prefix(address: Ipv6Addr, prefix: u8) -> String {
    format!("{address}/{prefix}")
}

fn prefix_mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use i2plan_proto::identity::NetworkId;

    use super::*;

    #[test]
    fn the_header_is_the_address_family() {
        assert_eq!(header(&[0x45, 0, 0, 28]), Some([0, 0, 0, 2]));
        assert_eq!(header(&[0x60, 0, 0, 0]), Some([0, 0, 0, 24]));
        assert_eq!(header(&[0x50]), None);
        assert_eq!(header(&[]), None);
    }

    #[test]
    fn a_name_of_the_drivers_form_is_taken_at_its_word() {
        assert_eq!(candidates("tun7"), ["tun7"]);
        for other in ["i2plan0", "tun", "tun07", "tun+1", "tun-1", "tunnel", "tun99999"] {
            let names = candidates(other);
            assert_eq!((names[0].as_str(), names.len()), ("tun0", 256), "{other}");
        }
    }

    #[test]
    fn addresses_and_the_route_are_set_before_it_is_up() {
        let interface = Interface {
            name: "i2plan0".to_owned(),
            network: NetworkId([1; 32]),
            ipv4: [10, 42, 3, 4].into(),
            ipv4_prefix: 20,
            ipv6: "fd12:3456:789a::1".parse().unwrap(),
            ipv6_prefix: 64,
            mtu: 1280,
        };
        let lines: Vec<_> = set_up("tun3", &interface)
            .into_iter()
            .map(|command| format!("{} {}", command.program, command.arguments.join(" ")))
            .collect();
        assert_eq!(
            lines,
            [
                "/sbin/ifconfig tun3 mtu 1280 description i2plan0",
                "/sbin/ifconfig tun3 inet 10.42.3.4/20 alias",
                "/sbin/route -q -n add -inet 10.42.0.0/20 -iface 10.42.3.4",
                "/sbin/ifconfig tun3 inet6 fd12:3456:789a::1/64",
                "/sbin/ifconfig tun3 up",
            ]
        );
    }

    #[test]
    fn an_interface_is_looked_for_by_its_name_alone() {
        let command = look_for("tun3");
        assert_eq!((command.program, command.arguments), ("/sbin/ifconfig", vec!["tun3".to_owned()]));
    }

    #[test]
    fn every_prefix_has_its_mask() {
        assert_eq!([0, 8, 16, 32].map(prefix_mask), [0, 0xff00_0000, 0xffff_0000, u32::MAX]);
    }
}
