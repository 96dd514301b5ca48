//! The names of a network's members in the DNS: `MEMBER.NETWORK.internal`.
//!
//! Members choose what they call themselves, and nobody assigns names. So that none takes another's:
//! * A member always has its *full* label, which ends in its IPv4 address: `web-10-42-0-7`. No other member can have
//!   that, because no other has the address.
//! * Its *short* label, `web`, it has only while no other member's name makes the same. Of two that call themselves
//!   alike neither has it: a newcomer can take the short label away from another, but never have it in its place.
//!
//! All of this follows from the members that are known, without a memory: each node comes to the same result, and a
//! restart changes nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::api::meshd::{Network, Peer, Status};

/// The domain that all networks are in. It is reserved for private use, and is never delegated in the DNS.
pub const TOP: &str = "internal";

/// Longest label of the DNS, bytes (RFC 1035).
const MAX_LABEL: usize = 63;

/// What a full label needs behind the name at most: `-255-255-255-255`.
const MAX_SUFFIX: usize = 16;

/// Stands for a name of which no character can be in a label.
const NAMELESS: &str = "node";

/// Labels that programs look up by themselves in the domains that a host searches, and obey the answer: proxies of
/// browsers, and a tunnel. No member has them as its short label.
const WITHHELD: [&str; 3] = ["isatap", "localhost", "wpad"];

/// A member and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLabels {
    /// What it calls itself.
    pub name: String,
    /// Its label without its address, if no other member makes the same.
    pub short: Option<String>,
    /// Its label with its address.
    pub full: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
}

impl MemberLabels {
    /// The shorter of its labels.
    #[must_use]
    pub fn label(&self) -> &str {
        self.short.as_ref().unwrap_or(&self.full)
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }
}

/// The domain of a network, without a dot at its end.
#[must_use]
pub fn domain(network: &Network) -> String {
    format!("{}.{TOP}", network.name)
}

/// The labels of a node and of the members that it knows, by address; none if it is in no network. Members that it has
/// banned have none, and take none away.
#[must_use]
pub fn of_members(status: &Status, peers: &[Peer]) -> Vec<MemberLabels> {
    let Some(network) = &status.network else { return Vec::new() };
    let this_node = (status.name.as_str(), network.ipv4, network.ipv6);
    let others = peers.iter().filter(|peer| !peer.banned && peer.ipv4 != network.ipv4);
    assign(std::iter::once(this_node).chain(others.map(|peer| (peer.name.as_str(), peer.ipv4, peer.ipv6))))
}

/// The labels of members with these names and addresses, of which each IPv4 address is one member's.
fn assign<'a>(members: impl Iterator<Item = (&'a str, Ipv4Addr, Ipv6Addr)>) -> Vec<MemberLabels> {
    let members: BTreeMap<Ipv4Addr, _> =
        members.map(|(name, ipv4, ipv6)| (ipv4, (name, base(name), ipv6))).collect();
    let mut claims: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, base, _) in members.values() {
        *claims.entry(base).or_default() += 1;
    }
    let labels = members.iter().map(|(ipv4, (name, base, ipv6))| {
        let is_its_own = claims.get(base.as_str()) == Some(&1);
        let may_be_short = is_its_own && !ends_in_an_address(base) && !WITHHELD.contains(&base.as_str());
        MemberLabels {
            name: (*name).to_owned(),
            short: may_be_short.then(|| base.clone()),
            full: full(base, *ipv4),
            ipv4: *ipv4,
            ipv6: *ipv6,
        }
    });
    labels.collect()
}

/// A name as a label: in lower case, with one hyphen in place of what cannot be in a label, and none at its ends. That
/// it has no two hyphens in a row also keeps it from being shown as something else (`xn--`).
fn base(name: &str) -> String {
    let mut label = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            label.push(char::from(byte.to_ascii_lowercase()));
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
        if label.len() == MAX_LABEL {
            break;
        }
    }
    let label = label.trim_end_matches('-');
    if label.is_empty() { NAMELESS.to_owned() } else { label.to_owned() }
}

fn full(base: &str, address: Ipv4Addr) -> String {
    let base = base[..base.len().min(MAX_LABEL - MAX_SUFFIX)].trim_end_matches('-');
    let [a, b, c, d] = address.octets();
    format!("{base}-{a}-{b}-{c}-{d}")
}

/// Whether a label could be the full one of a member.
fn ends_in_an_address(label: &str) -> bool {
    let mut parts: Vec<&str> = label.rsplitn(5, '-').take(4).collect();
    parts.reverse();
    parts.join(".").parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> (Ipv4Addr, Ipv6Addr) {
        (Ipv4Addr::new(10, 42, 0, last), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x0a2a, last.into()))
    }

    fn labels(names: &[(&str, u8)]) -> Vec<(Option<String>, String)> {
        let members = names.iter().map(|(name, last)| (*name, address(*last).0, address(*last).1));
        assign(members).into_iter().map(|member| (member.short, member.full)).collect()
    }

    fn short(names: &[(&str, u8)]) -> Vec<Option<String>> {
        labels(names).into_iter().map(|(short, _)| short).collect()
    }

    #[test]
    fn a_name_becomes_a_label() {
        for (name, label) in [
            ("web", "web"),
            ("Alice.Example_1", "alice-example-1"),
            ("--a..b--", "a-b"),
            ("xn--bcher-kva", "xn-bcher-kva"),
            ("...", NAMELESS),
        ] {
            assert_eq!(base(name), label);
        }
        assert_eq!(labels(&[("Web", 7)]), [(Some("web".to_owned()), "web-10-42-0-7".to_owned())]);
    }

    #[test]
    fn of_equal_names_none_is_short_and_a_third_keeps_its_own() {
        let found = short(&[("n2", 2), ("N2", 3), ("n_2", 4)]);
        assert_eq!(found, [None, None, Some("n-2".to_owned())]);
        let full = labels(&[("n2", 2), ("N2", 3)]);
        assert_eq!((full[0].1.as_str(), full[1].1.as_str()), ("n2-10-42-0-2", "n2-10-42-0-3"));
        assert_eq!(short(&[("n2", 2)]), [Some("n2".to_owned())]);
    }

    /// Also while the member whose full label it is is not known.
    #[test]
    fn no_name_is_another_members_full_label() {
        assert_eq!(short(&[("n2-10-42-0-2", 9)]), [None]);
        assert_eq!(short(&[("n2.10.42.0.2", 9), ("n2", 2)]), [Some("n2".to_owned()), None]);
        assert_eq!(short(&[("10-42-0-2", 9)]), [None]);
        assert_eq!(short(&[("n2-10-42-0-256", 9)]), [Some("n2-10-42-0-256".to_owned())]);
    }

    #[test]
    fn what_programs_look_up_by_themselves_is_withheld() {
        assert_eq!(short(&[("WPAD", 2), ("isatap", 3), ("local.host", 4)])[..2], [None, None]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever members call themselves: labels are valid, each is one member's, and the order in which members are
        /// known does not matter.
        #[test]
        fn labels_are_valid_and_unique(
            names in prop::collection::btree_map(
                1u8..=254,
                prop_oneof!["[a-cA-C._-]{1,4}", "[a-zA-Z0-9._-]{1,63}", "[ab]-10-42-0-[0-9]{1,3}"],
                1..20,
            ),
        ) {
            let members: Vec<_> =
                names.iter().map(|(last, name)| (name.as_str(), address(*last).0, address(*last).1)).collect();
            let forward = assign(members.iter().copied());
            prop_assert_eq!(&forward, &assign(members.iter().rev().copied()));
            let mut all = BTreeSet::new();
            for member in &forward {
                for label in member.short.iter().chain([&member.full]) {
                    prop_assert!((1..=MAX_LABEL).contains(&label.len()), "{}", label);
                    prop_assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
                    prop_assert!(!label.starts_with('-') && !label.ends_with('-') && !label.contains("--"));
                    prop_assert!(all.insert(label.clone()), "{} twice", label);
                }
            }
        }

        /// A newcomer has no label that another had before, whatever it calls itself.
        #[test]
        fn a_newcomer_takes_over_no_label(
            names in prop::collection::btree_map(1u8..=100, "[ab-]{1,3}", 1..10),
            newcomer in prop_oneof!["[ab-]{1,3}", "[ab]{1,2}-10-42-0-[0-9]{1,2}"],
        ) {
            let members = || names.iter().map(|(last, name)| (name.as_str(), address(*last).0, address(*last).1));
            let all = |members: &[MemberLabels]| -> BTreeMap<String, Ipv4Addr> {
                let labels = members.iter().flat_map(|member| {
                    member.short.iter().chain([&member.full]).map(|label| (label.clone(), member.ipv4))
                });
                labels.collect()
            };
            let before = all(&assign(members()));
            let (ipv4, ipv6) = address(200);
            let after = all(&assign(members().chain([(newcomer.as_str(), ipv4, ipv6)])));
            for (label, holder) in before {
                prop_assert!(after.get(&label).is_none_or(|now| *now == holder), "{}", label);
            }
        }
    }
}
