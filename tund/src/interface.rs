//! What may be asked for as the interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{Interface, MTU, NewInterface, StaticInterface, check_interface_name};
use i2plan_proto::address::Ipv4Subnet;

/// The shortest prefix of a unique local network (RFC 4193: a /48 each).
const MIN_IPV6_PREFIX: u8 = 48;

/// Checks what is asked for.
///
/// # Errors
/// [`i2plan_ipc::ErrorKind::Invalid`], naming what is wrong.
pub fn check_new(NewInterface { name, mtu, .. }: &NewInterface) -> Result<(), ApiError> {
    check_name_and_mtu(name, *mtu)
}

/// Checks what an administrator asks for.
///
/// # Errors
/// [`i2plan_ipc::ErrorKind::Invalid`], naming what is wrong.
pub fn check_static(StaticInterface { name, mtu, .. }: &StaticInterface) -> Result<(), ApiError> {
    check_name_and_mtu(name, *mtu)
}

fn check_name_and_mtu(name: &str, mtu: u16) -> Result<(), ApiError> {
    check_interface_name(name).map_err(ApiError::invalid)?;
    if !MTU.contains(&mtu) {
        let (least, most) = MTU.into_inner();
        return Err(ApiError::invalid(format!("an MTU of {mtu} is out of bounds: {least} to {most}")));
    }
    Ok(())
}

/// Checks the description of an interface.
///
/// # Errors
/// [`i2plan_ipc::ErrorKind::Invalid`], naming what is wrong.
pub fn check(interface: &Interface) -> Result<(), ApiError> {
    check_new(&interface.to_new())?;
    // Addresses decide which traffic the kernel sends this way: only what a private network may claim.
    let (ipv4, prefix) = (interface.ipv4, interface.ipv4_prefix);
    let network = Ipv4Addr::from_bits(ipv4.to_bits() & mask(32, prefix) as u32);
    let subnet = Ipv4Subnet::new(network, prefix)
        .map_err(|error| ApiError::invalid(format!("{ipv4}/{prefix} is no address in a mesh: {error}")))?;
    if !subnet.is_host(ipv4) {
        return Err(ApiError::invalid(format!("{ipv4} is no member's address in {subnet}")));
    }
    let (ipv6, prefix) = (interface.ipv6, interface.ipv6_prefix);
    if !ipv6.is_unique_local() || !(MIN_IPV6_PREFIX..=128).contains(&prefix) {
        return Err(ApiError::invalid(format!(
            "{ipv6}/{prefix} is no address in a mesh: use one in fd00::/8 with a prefix of {MIN_IPV6_PREFIX} to 128"
        )));
    }
    Ok(())
}

/// The subnets that are reached through the interface.
#[derive(Debug, Clone, Copy)]
pub struct Subnets {
    ipv4: (Ipv4Addr, u8),
    ipv6: (Ipv6Addr, u8),
}

impl Subnets {
    /// Those of an interface.
    #[must_use]
    pub fn of(interface: &Interface) -> Self {
        Self { ipv4: (interface.ipv4, interface.ipv4_prefix), ipv6: (interface.ipv6, interface.ipv6_prefix) }
    }

    /// Whether this is the node's own address.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.ipv4.0,
            IpAddr::V6(address) => address == self.ipv6.0,
        }
    }

    /// The block of a member's address ([`Ipv4Subnet::share_of`]).
    #[must_use]
    pub fn share_of(&self, address: Ipv4Addr) -> u32 {
        let (own, prefix) = self.ipv4;
        let network = Ipv4Addr::from_bits(own.to_bits() & mask(32, prefix) as u32);
        let subnet = Ipv4Subnet::new(network, prefix).ok();
        subnet.map_or(0, |subnet| subnet.share_of(address))
    }

    /// Whether another member may have this address.
    #[must_use]
    pub fn may_be_peer(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let (own, prefix) = self.ipv4;
                let differs = u128::from(own.to_bits() ^ address.to_bits());
                differs != 0 && differs & mask(32, prefix) == 0
            }
            IpAddr::V6(address) => {
                let (own, prefix) = self.ipv6;
                let differs = own.to_bits() ^ address.to_bits();
                differs != 0 && differs & mask(128, prefix) == 0
            }
        }
    }
}

/// The bits of a prefix in an address of `width` bits.
fn mask(width: u8, prefix: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(width));
    all & all.checked_shl(u32::from(width.saturating_sub(prefix))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use i2plan_proto::identity::NetworkId;

    use super::*;

    fn interface() -> Interface {
        Interface {
            name: "i2plan0".to_owned(),
            network: NetworkId([1; 32]),
            ipv4: "10.42.3.4".parse().unwrap(),
            ipv4_prefix: 16,
            ipv6: "fd12:3456:789a::1".parse().unwrap(),
            ipv6_prefix: 64,
            mtu: 1280,
        }
    }

    #[test]
    fn the_usual_is_fine() {
        assert_eq!(check(&interface()), Ok(()));
    }

    #[test]
    fn each_fault_is_named() {
        let fault = |change: fn(&mut Interface)| {
            let mut changed = interface();
            change(&mut changed);
            check(&changed).unwrap_err().message
        };
        for name in ["", ".", "..", "a/b", "a b", "sixteen-letters-", "ü", "a%d", "a\n"] {
            let mut changed = interface();
            name.clone_into(&mut changed.name);
            assert!(check(&changed).unwrap_err().message.contains("name"), "{name:?}");
        }
        assert!(fault(|i| i.mtu = 1279).contains("1279"));
        assert!(fault(|i| i.mtu = 7201).contains("7201"));
        assert!(fault(|i| i.ipv4_prefix = 0).contains("prefix"));
        assert!(fault(|i| i.ipv4_prefix = 33).contains("prefix"));
        assert!(fault(|i| i.ipv4_prefix = 255).contains("prefix"));
        assert!(fault(|i| i.ipv4 = "8.8.8.8".parse().unwrap()).contains("private"));
        assert!(fault(|i| i.ipv4 = "10.42.0.0".parse().unwrap()).contains("10.42.0.0"));
        assert!(fault(|i| i.ipv6 = "2001:db8::1".parse().unwrap()).contains("fd00::/8"));
        assert!(fault(|i| i.ipv6_prefix = 7).contains("/7"));
        assert!(fault(|i| i.ipv6_prefix = 129).contains("/129"));
    }

    #[test]
    fn members_of_one_block_have_one_share() {
        let subnets = Subnets::of(&interface());
        let share = |address: [u8; 4]| subnets.share_of(address.into());
        assert_eq!(share([10, 42, 7, 17]), share([10, 42, 7, 30]));
        assert_ne!(share([10, 42, 7, 17]), share([10, 42, 7, 33]));
    }

    #[test]
    fn peers_live_in_the_subnets_and_are_not_this_node() {
        let subnets = Subnets::of(&interface());
        let may = |address: &str| subnets.may_be_peer(address.parse().unwrap());
        assert!(may("10.42.0.1"));
        assert!(may("fd12:3456:789a::2"));
        assert!(!may("10.42.3.4"));
        assert!(!may("10.43.0.1"));
        assert!(!may("fd12:3456:789a::1"));
        assert!(!may("fd12:3456:789a:1::1"));
    }
}
