//! Everything else that is signed: charters, memberships and their chains, WireGuard certificates, grants of
//! invites, requests to join, and the ends of memberships.
//!
//! The first byte says which; what follows is parsed.

use i2plan_proto::codec::Codec as _;
use i2plan_proto::identity::{NodeId, SelfSigned, Signed};
use i2plan_proto::invite::InviteGrant;
use i2plan_proto::join::JoinBody;
use i2plan_proto::membership::{Chain, Charter, MAX_DEPTH, Membership};
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::wireguard::WireGuardCertificate;
use i2plan_testing as testing;

use crate::{Seeds, seed};

const KINDS: u8 = 8;

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % KINDS {
        0 => signed::<Charter>(rest, &testing::signed_charter),
        1 => signed::<Membership>(rest, &|issuer| testing::membership(issuer, issuer + 1)),
        2 => signed::<WireGuardCertificate>(rest, &testing::wireguard_certificate),
        3 => signed::<InviteGrant>(rest, &testing::grant),
        4 => signed::<JoinBody>(rest, &|inviter| testing::join_request(inviter).body),
        5 => chain(rest),
        6 => revocation(rest),
        _ => resignation(rest),
    }
}

/// What verifies is what its signer has signed, bit for bit.
fn signed<T: SelfSigned + PartialEq + std::fmt::Debug>(bytes: &[u8], genuine: &dyn Fn(u8) -> Signed<T>) {
    let Some(value) = testing::decode_canonically::<Signed<T>>(bytes) else { return };
    if value.verify().is_ok() {
        let known = (0..16).map(genuine).any(|known| known == value);
        assert!(known, "a {} was forged: {value:?}", T::WHAT);
    }
}

fn chain(bytes: &[u8]) {
    let Some(chain) = testing::decode_canonically::<Chain>(bytes) else { return };
    assert!(chain.depth() <= MAX_DEPTH);
    let charter = testing::charter(0);
    if chain.verify(&charter).is_ok() {
        assert_eq!(chain.network(), charter.network());
        // A chain can be cut short, but not led to another member.
        let largest = testing::largest_record().value.chain;
        let shorter = std::iter::successors(Some(largest), Chain::parent);
        let mut genuine = (0..=8).map(testing::chain).chain(shorter);
        assert!(genuine.any(|known| known == chain), "a chain was forged: {chain:?}");
        check_ranges(&chain, &charter);
    }
    if chain.verify(&testing::charter(9)).is_ok() {
        assert_eq!(chain, Chain::founder(&testing::charter(9)), "a stranger's network has members");
    }
    // A certificate continues the one chain that it names, whatever else has the same subject.
    let certificate = testing::membership(1, 2);
    if let Ok(longer) = chain.extended(&certificate) {
        assert_eq!((chain.id(), chain.subject()), (certificate.value.parent, &testing::node(1)));
        assert_eq!((longer.subject(), longer.depth()), (&testing::node(2), chain.depth() + 1));
        assert_eq!(longer.parent().as_ref(), Some(&chain));
    }
    let _ = NodeId::from_bytes(bytes);
}

/// What a verified chain delegates lies within what its issuer holds, and no address belongs to two members of it.
fn check_ranges(chain: &Chain, charter: &Charter) {
    let mut addresses = vec![charter.subnet.founder_address()];
    let mut held = vec![charter.subnet.range()];
    for link in chain.links() {
        for range in link.ranges.iter() {
            assert!(held.iter().any(|outer| outer.first() <= range.first() && range.last() <= outer.last()));
            let is_inside = |address: &std::net::Ipv4Addr| (range.first()..=range.last()).contains(address);
            assert!(!addresses.iter().any(is_inside), "a member's own address was delegated");
        }
        held = link.ranges.iter().copied().collect();
        addresses.push(link.ranges.address());
        assert!(charter.subnet.is_host(link.ranges.address()));
    }
    assert_eq!(chain.address(&charter.subnet), addresses[chain.depth()]);
}

/// A revocation that counts was signed by the member that it names, and ends the membership that it names.
fn revocation(bytes: &[u8]) {
    let Some(revocation) = testing::decode_canonically::<Signed<Revocation>>(bytes) else { return };
    assert!(revocation.verify_for(&testing::charter(9)).is_err(), "no member of that network signs here");
    let chain = revocation.value.target.chain();
    // It never reaches above its signer.
    for other in (0..=8).map(testing::chain).chain([chain.clone()]) {
        if let Some(at) = revocation.value.voids(&other) {
            assert!(other.ancestors().take(at + 1).any(|node| *node == revocation.value.issuer));
        }
    }
    if revocation.verify_for(&testing::charter(0)).is_ok() {
        assert!(is_known_revocation(&revocation), "a revocation was forged");
        if let Target::Certificate(chain) = &revocation.value.target {
            assert!(revocation.value.voids(chain).is_some(), "it does not end what it names");
        }
    }
}

/// Whether it is one that is signed here.
pub(crate) fn is_known_revocation(revocation: &Signed<Revocation>) -> bool {
    (0..=8).any(|issuer| {
        *revocation == testing::invite_revocation(issuer)
            || (issuer..=8).any(|depth| *revocation == testing::revocation(issuer, depth))
    })
}

/// A resignation that counts was signed by the member that leaves, and ends no other's certificate up to its last.
fn resignation(bytes: &[u8]) {
    let Some(resignation) = testing::decode_canonically::<Signed<Resignation>>(bytes) else { return };
    assert!(resignation.verify_for(&testing::charter(9)).is_err(), "no member of that network signs here");
    let chain = &resignation.value.chain;
    assert!(resignation.value.voids(chain).is_some(), "it does not end what it names");
    if resignation.verify_for(&testing::charter(0)).is_ok() {
        let known = (0..=8).any(|depth| resignation == testing::resignation(depth));
        assert!(known, "a resignation was forged");
        for other in (0..=8).map(testing::chain) {
            let is_own = other == *chain;
            assert_eq!(resignation.value.voids(&other).is_some(), is_own, "those below stay members");
        }
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut put = |kind: u8, name: &str, bytes: Vec<u8>| {
        seeds.push(seed(name, [&[kind], bytes.as_slice()].concat()));
    };
    put(0, "charter", testing::signed_charter(0).to_bytes());
    put(1, "membership", testing::membership(1, 2).to_bytes());
    put(
        1,
        "membership-unsigned",
        Signed { signature: testing::grant(1).signature, ..testing::membership(1, 2) }.to_bytes(),
    );
    put(2, "wireguard", testing::wireguard_certificate(1).to_bytes());
    put(3, "grant", testing::grant(3).to_bytes());
    put(3, "grant-unlimited", testing::grant(0).to_bytes());
    put(4, "join", testing::join_request(1).body.to_bytes());
    for depth in [0, 1, 3, 8] {
        put(5, &format!("chain-{depth}"), testing::chain(depth).to_bytes());
    }
    for depth in [1, 8] {
        put(6, &format!("revocation-{depth}"), testing::revocation(0, depth).to_bytes());
        put(7, &format!("resignation-{depth}"), testing::resignation(depth).to_bytes());
    }
    put(5, "chain-ranges", testing::largest_record().value.chain.to_bytes());
    put(6, "revocation-from-below", testing::revocation(3, 2).to_bytes());
    put(6, "revocation-invite", testing::invite_revocation(2).to_bytes());
    put(7, "resignation-founder", testing::resignation(0).to_bytes());
    seeds
}
