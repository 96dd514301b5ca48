//! A node's addresses in the mesh, derived so that every member computes the same ones.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{NetworkId, NodeId, tagged_hash};

/// Prefix length of the IPv6 network that all members of one mesh share.
pub const IPV6_PREFIX: u8 = 64;

/// The IPv4 subnet of a mesh, 10.42.0.0/16 unless its founder chose another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

/// Text or numbers that are not a usable subnet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubnetError {
    /// Not of the form address/prefix.
    #[error("a subnet is written like 10.42.0.0/16")]
    Syntax,
    /// Too small or too large for a mesh.
    #[error("the prefix length must be from {} to {}", Ipv4Subnet::MIN_PREFIX, Ipv4Subnet::MAX_PREFIX)]
    Prefix,
    /// Bits are set behind the prefix.
    #[error("the address has bits set behind the prefix; the subnet is {0}")]
    HostBits(Ipv4Subnet),
    /// Not a range that a private network may use.
    #[error("use a private range: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or 198.18.0.0/15")]
    NotPrivate,
}

impl Ipv4Subnet {
    /// 10.42.0.0/16.
    pub const DEFAULT: Self = Self { network: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 };
    /// Shortest prefix.
    pub const MIN_PREFIX: u8 = 8;
    /// Longest prefix: a /29 still holds six members.
    pub const MAX_PREFIX: u8 = 29;

    const PRIVATE: [(Ipv4Addr, u8); 5] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
    ];

    /// A subnet of private address space.
    ///
    /// # Errors
    /// [`SubnetError`] if the prefix is out of bounds, host bits are set or the range is public.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if !(Self::MIN_PREFIX..=Self::MAX_PREFIX).contains(&prefix) {
            return Err(SubnetError::Prefix);
        }
        let masked = Ipv4Addr::from_bits(network.to_bits() & mask(prefix));
        if masked != network {
            return Err(SubnetError::HostBits(Self { network: masked, prefix }));
        }
        let private = Self::PRIVATE
            .iter()
            .any(|(base, bits)| prefix >= *bits && network.to_bits() & mask(*bits) == base.to_bits());
        if !private {
            return Err(SubnetError::NotPrivate);
        }
        Ok(Self { network, prefix })
    }

    /// The prefix length.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether a member may have `address`: inside, and neither the network's nor the broadcast address.
    #[must_use]
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !mask(self.prefix);
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
            && host != 0
            && host != !mask(self.prefix)
    }

    /// The prefix length of the blocks that resources are shared by: 256 blocks in a subnet as far as that is
    /// possible with blocks of 1 to 16 addresses. A /16 or larger has blocks of a /28, a /24 or smaller of one address.
    #[must_use]
    pub fn share_prefix(&self) -> u8 {
        (self.prefix + 8).clamp(28, 32)
    }

    /// The block of `address`, as the bits of its first address. Members of one block have one share between them.
    #[must_use]
    pub fn share_of(&self, address: Ipv4Addr) -> u32 {
        address.to_bits() & mask(self.share_prefix())
    }

    /// The address of `node` in this subnet at the given attempt.
    ///
    /// Attempt 0 is where a node starts; one that has to give way to another counts up.
    #[must_use]
    pub fn address_of(&self, node: &NodeId, attempt: u32) -> Ipv4Addr {
        let hash = tagged_hash("i2plan ipv4 v1", &[&node.0, &attempt.to_be_bytes()]);
        let draw = u64::from_be_bytes(*hash.first_chunk().expect("a hash is longer than eight bytes"));
        let hosts = u64::from(!mask(self.prefix)) - 1;
        let host = u32::try_from(draw % hosts + 1).expect("less than the number of hosts in an IPv4 subnet");
        Ipv4Addr::from_bits(self.network.to_bits() | host)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Debug for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv4Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (network, prefix) = text.split_once('/').ok_or(SubnetError::Syntax)?;
        Self::new(
            network.parse().map_err(|_| SubnetError::Syntax)?,
            prefix.parse().map_err(|_| SubnetError::Syntax)?,
        )
    }
}

impl Codec for Ipv4Subnet {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.octets());
        out.push(self.prefix);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "subnet";
        let network = Ipv4Addr::from(reader.array::<4>(what)?);
        Self::new(network, reader.u8(what)?)
            .map_err(|_| DecodeError::Invalid { what, why: "not a subnet of private address space" })
    }
}

serde_as_bytes!(Ipv4Subnet);

/// The IPv6 address of `node` in `network`: a unique local address (RFC 4193) whose /64 is derived from the
/// network and whose interface identifier is derived from both, 64 bits wide, so collisions do not happen.
#[must_use]
pub fn ipv6_of(network: &NetworkId, node: &NodeId) -> Ipv6Addr {
    let prefix = tagged_hash("i2plan ipv6 network v1", &[&network.0]);
    let host = tagged_hash("i2plan ipv6 host v1", &[&network.0, &node.0]);
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&prefix[..7]);
    octets[8..].copy_from_slice(&host[..8]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    #[test]
    fn subnets_are_read_as_written() {
        assert_eq!("10.42.0.0/16".parse(), Ok(Ipv4Subnet::DEFAULT));
        assert_eq!(Ipv4Subnet::DEFAULT.to_string(), "10.42.0.0/16");
        assert_eq!("10.42.0.0".parse::<Ipv4Subnet>(), Err(SubnetError::Syntax));
        assert_eq!("10.42.0.0/30".parse::<Ipv4Subnet>(), Err(SubnetError::Prefix));
        assert_eq!("10.42.0.1/16".parse::<Ipv4Subnet>(), Err(SubnetError::HostBits(Ipv4Subnet::DEFAULT)));
        assert_eq!("8.8.0.0/16".parse::<Ipv4Subnet>(), Err(SubnetError::NotPrivate));
        // A prefix shorter than the private range would reach beyond it.
        assert_eq!("172.0.0.0/8".parse::<Ipv4Subnet>(), Err(SubnetError::NotPrivate));
    }

    #[test]
    fn network_and_broadcast_are_no_hosts() {
        let subnet: Ipv4Subnet = "10.1.2.0/29".parse().unwrap();
        assert!(!subnet.is_host("10.1.2.0".parse().unwrap()));
        assert!(subnet.is_host("10.1.2.1".parse().unwrap()));
        assert!(subnet.is_host("10.1.2.6".parse().unwrap()));
        assert!(!subnet.is_host("10.1.2.7".parse().unwrap()));
        assert!(!subnet.is_host("10.1.2.9".parse().unwrap()));
    }

    #[test]
    fn shares_are_by_blocks_that_fit_the_subnet() {
        for (subnet, prefix) in [("10.0.0.0/8", 28), ("10.42.0.0/16", 28), ("10.42.0.0/20", 28)] {
            assert_eq!(subnet.parse::<Ipv4Subnet>().unwrap().share_prefix(), prefix, "{subnet}");
        }
        for (subnet, prefix) in [("10.42.0.0/21", 29), ("10.42.0.0/24", 32), ("10.42.0.0/29", 32)] {
            assert_eq!(subnet.parse::<Ipv4Subnet>().unwrap().share_prefix(), prefix, "{subnet}");
        }
        let share = |subnet: &str, address: &str| {
            subnet.parse::<Ipv4Subnet>().unwrap().share_of(address.parse().unwrap())
        };
        assert_eq!(share("10.42.0.0/16", "10.42.7.31"), Ipv4Addr::new(10, 42, 7, 16).to_bits());
        assert_eq!(share("10.42.0.0/16", "10.42.7.16"), share("10.42.0.0/16", "10.42.7.31"));
        assert_ne!(share("10.42.0.0/16", "10.42.7.32"), share("10.42.0.0/16", "10.42.7.31"));
        assert_ne!(share("10.42.0.0/24", "10.42.0.2"), share("10.42.0.0/24", "10.42.0.3"));
    }

    proptest! {
        #[test]
        fn derived_addresses_are_hosts(node in testing::any_node(), attempt: u32, prefix in 8u8..=29) {
            let subnet = Ipv4Subnet::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap();
            prop_assert!(subnet.is_host(subnet.address_of(&node, attempt)));
        }

        #[test]
        fn ipv6_is_unique_local(node in testing::any_node()) {
            let network = NetworkId::of_founder(&node);
            prop_assert_eq!(ipv6_of(&network, &node).octets()[0], 0xfd);
        }

        #[test]
        fn arbitrary_text_is_no_panic(text in ".*") {
            let _ = text.parse::<Ipv4Subnet>();
        }
    }
}
