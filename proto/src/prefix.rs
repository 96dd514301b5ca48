//! IP prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::codec::serde_as_text;

/// An address and the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an IP address is expected, and after '/' a prefix length of at most 32 (IPv4) or 128 (IPv6)")]
pub struct NoPrefix;

impl Prefix {
    /// An address with a prefix length, cut to what the family has.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        Self { address, length: length.min(bits_of(address)) }
    }

    /// One address alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, u8::MAX)
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix, bits.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The same without the bits behind the prefix.
    #[must_use]
    pub fn network(self) -> Self {
        let network = self.leading_bits() & mask(self.length);
        let address = match self.address {
            IpAddr::V4(_) => Ipv4Addr::from_bits((network >> 96) as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(network).into(),
        };
        Self { address, length: self.length }
    }

    /// Whether they have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && (self.leading_bits() ^ other.leading_bits()) & mask(self.length.min(other.length)) == 0
    }

    /// The address, leading in 128 bits.
    #[must_use]
    pub fn leading_bits(&self) -> u128 {
        match self.address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        }
    }
}

/// The bits of an address of the same family.
fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The leading bits of 128.
fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// An address with or without a prefix length; without, it stands alone.
impl FromStr for Prefix {
    type Err = NoPrefix;

    fn from_str(text: &str) -> Result<Self, NoPrefix> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().map(Self::host).map_err(|_| NoPrefix);
        };
        let address: IpAddr = address.parse().map_err(|_| NoPrefix)?;
        let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
        let length: u8 = length.parse().ok().filter(|_| is_number).ok_or(NoPrefix)?;
        if length <= bits_of(address) { Ok(Self::new(address, length)) } else { Err(NoPrefix) }
    }
}

serde_as_text!(Prefix);

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::host(self.address) {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0/8/8",
            " ::1",
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(NoPrefix), "{text}");
        }
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        // Few bits differ, so that prefixes meet.
        let ipv4 =
            (0u32..8, 0u32..8).prop_map(|(low, high)| Ipv4Addr::from_bits(low << 2 | high << 29).into());
        let ipv6 = (0u128..8).prop_map(|bits| Ipv6Addr::from_bits(bits << 120).into());
        (prop_oneof![ipv4, ipv6], any::<u8>()).prop_map(|(address, length)| Prefix::new(address, length))
    }

    /// The first and the last address.
    fn ends(prefix: Prefix) -> (bool, u128, u128) {
        let first = prefix.network().leading_bits();
        (prefix.address.is_ipv4(), first, first | !mask(prefix.length))
    }

    proptest! {
        #[test]
        fn prefixes_overlap_if_they_have_an_address_in_common(one in any_prefix(), other in any_prefix()) {
            let ((family, first, last), (other_family, other_first, other_last)) = (ends(one), ends(other));
            let common = family == other_family && first.max(other_first) <= last.min(other_last);
            prop_assert_eq!(one.overlaps(&other), common);
            prop_assert_eq!(other.overlaps(&one), common);
            prop_assert!(one.overlaps(&one.network()));
        }

        #[test]
        fn text_is_read_back(address: IpAddr, length: u8) {
            let prefix = Prefix::new(address, length);
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            prop_assert!(prefix.overlaps(&prefix.network()));
            prop_assert_eq!(prefix.network().network(), prefix.network());
        }
    }
}
