//! Everything else that is signed: charters, memberships and their chains, WireGuard certificates, grants of
//! invites, and requests to join.
//!
//! The first byte says which; what follows is parsed.

use i2plan_proto::codec::Codec as _;
use i2plan_proto::identity::{NodeId, SelfSigned, Signed};
use i2plan_proto::invite::InviteGrant;
use i2plan_proto::join::JoinBody;
use i2plan_proto::membership::{Chain, Charter, MAX_DEPTH, Membership};
use i2plan_proto::testing;
use i2plan_proto::wireguard::WireGuardCertificate;

use crate::{Seeds, seed};

const KINDS: u8 = 6;

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % KINDS {
        0 => signed::<Charter>(rest, &testing::signed_charter),
        1 => signed::<Membership>(rest, &|issuer| testing::membership(issuer, issuer + 1)),
        2 => signed::<WireGuardCertificate>(rest, &testing::wireguard_certificate),
        3 => signed::<InviteGrant>(rest, &testing::grant),
        4 => signed::<JoinBody>(rest, &|inviter| testing::join_request(inviter).body),
        _ => chain(rest),
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
    let network = chain.network();
    let rightly_signed = chain.verify(&network).is_ok();
    if rightly_signed && network == testing::charter(0).network() {
        // A chain can be cut short, but not led to anybody else.
        let genuine = (0..=8).map(testing::chain).find(|known| known.depth() == chain.depth());
        assert_eq!(Some(&chain), genuine.as_ref(), "a chain was forged");
    } else if rightly_signed {
        assert_eq!(chain.depth(), 0, "a stranger's network has members");
        assert_ne!(chain.subject(), &testing::node(0));
    }
    // Nobody's certificate continues a chain that it is not meant for.
    let certificate = testing::membership(1, 2);
    if let Ok(longer) = chain.extended(&certificate) {
        assert_eq!(chain.subject(), &testing::node(1));
        assert_eq!((longer.subject(), longer.depth()), (&testing::node(2), chain.depth() + 1));
    }
    let _ = NodeId::from_bytes(bytes);
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
    seeds
}
