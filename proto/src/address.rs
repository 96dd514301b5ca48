//! Addresses in the mesh: the subnet of a network, the ranges of it that are delegated, and the addresses that follow.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::codec::{Codec, DecodeError, Reader, put_list, serde_as_bytes};
use crate::identity::NetworkId;

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

    /// The other subnets of the same size that a founder tries when this one is in use, in a fixed order: those that follow
    /// it in 10.0.0.0/8, from its end on the ones before it, then those of 172.16.0.0/12 and 192.168.0.0/16, each from its
    /// start. The shared address space (RFC 6598) and the range for benchmarks (RFC 2544) are left to what they are for.
    pub fn alternatives(self) -> impl Iterator<Item = Self> {
        let size = self.range().size();
        let of = move |(base, bits): (Ipv4Addr, u8)| {
            let count = if self.prefix >= bits { 1u32 << (self.prefix - bits) } else { 0 };
            let from = base.to_bits();
            // A subnet elsewhere has nothing before it.
            let start = self.network.to_bits().checked_sub(from).map_or(0, |offset| offset / size);
            let start = if start < count { start } else { 0 };
            (0..count).map(move |step| Self {
                network: Ipv4Addr::from_bits(from + (start + step) % count * size),
                prefix: self.prefix,
            })
        };
        Self::PRIVATE.into_iter().take(3).flat_map(of).filter(move |subnet| *subnet != self)
    }

    /// Whether a member may have `address`: inside, and neither the network's nor the broadcast address.
    #[must_use]
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !mask(self.prefix);
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
            && host != 0
            && host != !mask(self.prefix)
    }

    /// All of its addresses.
    #[must_use]
    pub fn range(&self) -> AddressRange {
        AddressRange { first: self.network.to_bits(), prefix: self.prefix }
    }

    /// The founder's address: the first that a member may have.
    #[must_use]
    pub fn founder_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | 1)
    }

    /// Prefix length of the blocks among which what members share is divided equally: a /28, and less in a subnet that
    /// has fewer than 256 of these.
    #[must_use]
    pub fn share_prefix(&self) -> u8 {
        (self.prefix + 8).clamp(28, 32)
    }

    /// The block to which an address belongs, where shares are concerned: its first address.
    #[must_use]
    pub fn share_of(&self, address: Ipv4Addr) -> u32 {
        address.to_bits() & mask(self.share_prefix())
    }
}

/// An aligned range of IPv4 addresses, written like `10.42.3.16/28`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    first: u32,
    prefix: u8,
}

impl AddressRange {
    /// The range that starts at `first` and has `prefix` as its prefix length; none if it is not aligned.
    #[must_use]
    pub fn new(first: Ipv4Addr, prefix: u8) -> Option<Self> {
        let first = first.to_bits();
        (prefix <= 32 && first & !mask(prefix) == 0).then_some(Self { first, prefix })
    }

    /// The range of `size` addresses, a power of two, that starts at `first`; none if there is no such range.
    #[must_use]
    pub fn of_size(first: u32, size: u32) -> Option<Self> {
        if !size.is_power_of_two() {
            return None;
        }
        Self::new(Ipv4Addr::from_bits(first), u8::try_from(32 - size.trailing_zeros()).ok()?)
    }

    /// Its first address.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first)
    }

    /// Its last address.
    #[must_use]
    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first | !mask(self.prefix))
    }

    /// Its prefix length.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The number of its addresses. A range of all IPv4 addresses counts one too few.
    #[must_use]
    pub fn size(&self) -> u32 {
        (!mask(self.prefix)).saturating_add(1)
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.first
    }

    /// Whether all addresses of another range are in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.first())
    }

    /// Whether it has an address in common with another range: aligned ranges lie within each other or apart.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The smallest aligned range with this prefix length in which it lies; itself if that is longer than its own.
    #[must_use]
    pub fn widened(&self, prefix: u8) -> Self {
        let prefix = prefix.min(self.prefix);
        Self { first: self.first & mask(prefix), prefix }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Codec for AddressRange {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_be_bytes());
        out.push(self.prefix);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "address range";
        let first = Ipv4Addr::from_bits(reader.u32(what)?);
        Self::new(first, reader.u8(what)?).ok_or(DecodeError::Invalid { what, why: "not aligned" })
    }
}

/// The address ranges of one certificate: one to four that have no address in common. The first address of the first
/// is its subject's own; the others the subject may delegate, as in RFC 3779.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressRanges(Vec<AddressRange>);

impl AddressRanges {
    /// Ranges of one certificate at most.
    pub const MAX: usize = 4;

    /// These ranges; none unless they are one to four and have no address in common.
    #[must_use]
    pub fn new(ranges: Vec<AddressRange>) -> Option<Self> {
        let apart = |(number, range): (usize, &AddressRange)| {
            ranges[..number].iter().all(|before| !before.overlaps(range))
        };
        let valid = (1..=Self::MAX).contains(&ranges.len()) && ranges.iter().enumerate().all(apart);
        valid.then_some(Self(ranges))
    }

    /// The address of their holder.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.0[0].first()
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = &AddressRange> {
        self.0.iter()
    }

    /// The number of their addresses.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.size())).sum()
    }

    /// Whether one of them has all addresses of another range.
    #[must_use]
    pub fn cover(&self, other: &AddressRange) -> bool {
        self.0.iter().any(|range| range.covers(other))
    }

    /// Whether they have an address in common with others.
    #[must_use]
    pub fn overlap(&self, others: &Self) -> bool {
        self.0.iter().any(|range| others.0.iter().any(|other| range.overlaps(other)))
    }
}

impl From<AddressRange> for AddressRanges {
    fn from(range: AddressRange) -> Self {
        Self(vec![range])
    }
}

impl Codec for AddressRanges {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "address ranges";
        Self::new(reader.list(Self::MAX, what)?)
            .ok_or(DecodeError::Invalid { what, why: "there must be one to four that lie apart" })
    }
}

serde_as_bytes!(AddressRange, AddressRanges);

impl Default for Ipv4Subnet {
    fn default() -> Self {
        Self::DEFAULT
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

/// The IPv6 address that goes with an IPv4 address in `network`: a unique local address (RFC 4193) in a /64 of the first
/// 56 bits of the network's id. It is as unique as the IPv4 address.
#[must_use]
pub fn ipv6_of(network: &NetworkId, ipv4: Ipv4Addr) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&network.0[..7]);
    octets[12..].copy_from_slice(&ipv4.octets());
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
    fn a_founder_tries_subnets_in_a_fixed_order() {
        let walk = |subnet: &str| {
            let subnets = subnet.parse::<Ipv4Subnet>().unwrap().alternatives();
            subnets.map(|subnet| subnet.to_string()).collect::<Vec<_>>()
        };
        let found = walk("10.42.0.0/16");
        assert_eq!(found.len(), 255 + 16 + 1);
        assert_eq!(found[..2], ["10.43.0.0/16", "10.44.0.0/16"]);
        assert_eq!(found[212..215], ["10.255.0.0/16", "10.0.0.0/16", "10.1.0.0/16"][..]);
        assert_eq!(found[254..257], ["10.41.0.0/16", "172.16.0.0/16", "172.17.0.0/16"][..]);
        assert_eq!(found.last().unwrap(), "192.168.0.0/16");
        assert!(walk("10.0.0.0/8").is_empty());
        assert_eq!(walk("172.31.0.0/16")[256], "172.16.0.0/16");
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
    fn a_range_is_aligned() {
        let range = AddressRange::of_size(0x0a2a_0310, 16).unwrap();
        assert_eq!(range.to_string(), "10.42.3.16/28");
        assert_eq!((range.size(), range.last().to_string().as_str()), (16, "10.42.3.31"));
        assert_eq!(AddressRange::of_size(0x0a2a_0308, 16), None);
        assert_eq!(AddressRange::of_size(0x0a2a_0310, 12), None);
        assert_eq!(AddressRange::of_size(0x0a2a_0310, 0), None);
        assert!(AddressRanges::new(vec![range, range]).is_none() && AddressRanges::new(Vec::new()).is_none());
    }

    #[test]
    fn shares_are_smaller_in_small_subnets() {
        let shares = |subnet: &str| subnet.parse::<Ipv4Subnet>().unwrap().share_prefix();
        assert_eq!(
            ["10.0.0.0/8", "10.42.0.0/16", "10.42.0.0/22", "10.42.0.0/24", "10.42.0.0/29"].map(shares),
            [28, 28, 30, 32, 32]
        );
        let share = Ipv4Subnet::DEFAULT.share_of([10, 42, 3, 21].into());
        assert_eq!(share, u32::from_be_bytes([10, 42, 3, 16]));
    }

    #[test]
    fn ipv6_is_unique_local_and_ends_in_the_ipv4_address() {
        let network = NetworkId([0xab; 32]);
        assert_eq!(ipv6_of(&network, [10, 42, 3, 16].into()).to_string(), "fdab:abab:abab:abab::a2a:310");
    }

    proptest! {
        #[test]
        fn ranges_lie_within_each_other_or_apart(first: u32, prefix in 0u8..=32, other: u32, longer in 0u8..=32) {
            let range = AddressRange { first: first & mask(prefix), prefix };
            let other = AddressRange { first: other & mask(longer), prefix: longer };
            let common = range.first().max(other.first()) <= range.last().min(other.last());
            prop_assert_eq!(range.overlaps(&other), common);
            prop_assert!(range.widened(longer).covers(&range));
            prop_assert_eq!(AddressRange::from_bytes(&range.to_bytes()), Ok(range));
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            testing::decodes_canonically::<AddressRanges>(&bytes)?;
            testing::decodes_canonically::<Ipv4Subnet>(&bytes)?;
        }

        #[test]
        fn arbitrary_text_is_no_panic(text in ".*") {
            let _ = text.parse::<Ipv4Subnet>();
        }
    }
}
