//! What a member publishes about itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::address::ipv6_of;
use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::destination::Destination;
use crate::identity::{BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signature, Signed};
use crate::membership::{Chain, ChainError};
use crate::wireguard::WireGuardCertificate;

/// A node's name: 1 to 63 letters, digits, hyphens, underscores or dots, so that it is safe to print, to log
/// and to use as a host name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

impl NodeName {
    /// Longest name, bytes.
    pub const MAX_LEN: usize = 63;

    /// Words that mean something else than a member of that name where members are named.
    pub const RESERVED: [&str; 7] = ["self", "me", "all", "any", "none", "founder", "localhost"];

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a name that another member has chosen: its length and characters are checked. What it says is not, unlike
    /// by [`NodeName::from_str`]; where a person names a member, node ids and addresses win over names.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no name.
    pub fn of_member(name: &str) -> Result<Self, DecodeError> {
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(invalid_name("it must have 1 to 63 characters"));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(invalid_name("use letters, digits, hyphens, underscores and dots"));
        }
        Ok(Self(name.to_owned()))
    }

    /// Makes a name of a host's name. One that [`NodeName::from_str`] refuses for what it says gets `-node` appended.
    ///
    /// # Errors
    /// [`DecodeError`] if its length or characters are not those of a name.
    pub fn of_host(host: &str) -> Result<Self, DecodeError> {
        let name = Self::of_member(host)?;
        host.parse().or_else(|_| format!("{name}-node").parse())
    }
}

fn invalid_name(why: &'static str) -> DecodeError {
    DecodeError::Invalid { what: "node name", why }
}

/// Reads a name for this node. What names a member in another way is refused.
impl FromStr for NodeName {
    type Err = DecodeError;

    fn from_str(name: &str) -> Result<Self, DecodeError> {
        if name.parse::<IpAddr>().is_ok() {
            return Err(invalid_name("it is an IP address"));
        }
        if name.parse::<NodeId>().is_ok() {
            return Err(invalid_name("it is a node id"));
        }
        if Self::RESERVED.iter().any(|word| name.eq_ignore_ascii_case(word)) {
            return Err(invalid_name("self, me, all, any, none, founder and localhost are reserved"));
        }
        Self::of_member(name)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl NodeName {
    fn put(&self, out: &mut Vec<u8>, flag: u8) {
        out.push(u8::try_from(self.0.len()).expect("a name has at most 63 bytes") | flag);
        out.extend_from_slice(self.0.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<(Self, u8), DecodeError> {
        let what = "node name";
        let first = reader.u8(what)?;
        let name = std::str::from_utf8(reader.bytes(usize::from(first & !HAS_HOME), what)?)
            .map_err(|_| DecodeError::Invalid { what, why: "not UTF-8" })?;
        Ok((Self::of_member(name)?, first & HAS_HOME))
    }
}

/// Added to the length of a record's name if a home follows: a name leaves that bit free.
const HAS_HOME: u8 = 0x80;

/// What a member says of itself. Signed by the member, so that anyone may pass it on; of two records the one
/// with the higher sequence number counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The member's identity.
    pub node: NodeId,
    /// Grows with every record that the member signs.
    pub sequence: u64,
    /// Unix time in seconds.
    pub issued_at: u64,
    /// What the member calls itself; names need not be unique.
    pub name: NodeName,
    /// Where it takes control messages.
    pub control: Destination,
    /// The destination for control messages that it always has, if it takes them elsewhere for now. It is there again
    /// some time, and invites lead there.
    pub home: Option<Box<Destination>>,
    /// Where it takes WireGuard packets.
    pub data: Destination,
    /// Its address in the network's subnet.
    pub ipv4: Ipv4Addr,
    /// Its current WireGuard key.
    pub wireguard: Signed<WireGuardCertificate>,
    /// Its membership, which also says of which network the record is.
    pub chain: Chain,
}

/// Why a record is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Its node is no member of the network.
    #[error(transparent)]
    NotAMember(#[from] ChainError),
    /// A signature is wrong.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// It carries a certificate or a chain of another node or network.
    #[error("the record's {0} belongs to another node or network")]
    Mismatch(&'static str),
}

impl Record {
    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.chain.network()
    }

    /// The member's IPv6 address, which follows from its identity.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        ipv6_of(&self.network(), &self.node)
    }

    /// Checks that the parts of the record belong together, and the signatures of its parts.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify_parts(&self, network: &NetworkId) -> Result<(), RecordError> {
        if self.chain.subject() != &self.node {
            return Err(RecordError::Mismatch("membership"));
        }
        if self.wireguard.value.node != self.node || self.wireguard.value.network != *network {
            return Err(RecordError::Mismatch("WireGuard certificate"));
        }
        self.chain.verify(network)?;
        self.wireguard.verify()?;
        Ok(())
    }
}

impl Signed<Record> {
    /// Checks the record as a member of `network` must before believing it: its signature, the member's
    /// certificate chain and its WireGuard certificate. Times are not looked at.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify_for(&self, network: &NetworkId) -> Result<(), RecordError> {
        self.verify()?;
        self.value.verify_parts(network)
    }
}

impl Signable for Record {
    const DOMAIN: &'static str = "i2plan record v1";
    const WHAT: &'static str = "record";
}

impl SelfSigned for Record {
    fn signer(&self) -> &NodeId {
        &self.node
    }
}

impl Codec for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.issued_at.to_be_bytes());
        self.name.put(out, if self.home.is_some() { HAS_HOME } else { 0 });
        self.control.encode(out);
        if let Some(home) = &self.home {
            home.encode(out);
        }
        self.data.encode(out);
        out.extend_from_slice(&self.ipv4.octets());
        // The certificate's node is the record's and its network is the chain's; only the rest is written.
        let certificate = &self.wireguard.value;
        out.extend_from_slice(&certificate.public_key);
        out.extend_from_slice(&certificate.epoch.to_be_bytes());
        out.extend_from_slice(&certificate.not_before.to_be_bytes());
        out.extend_from_slice(&certificate.not_after.to_be_bytes());
        self.wireguard.signature.encode(out);
        self.chain.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let node = NodeId::decode(reader)?;
        let sequence = reader.u64("sequence number")?;
        let issued_at = reader.u64("record time")?;
        let (name, has_home) = NodeName::read(reader)?;
        let control = Destination::decode(reader)?;
        let home = if has_home == 0 { None } else { Some(Box::new(Destination::decode(reader)?)) };
        let data = Destination::decode(reader)?;
        let ipv4 = Ipv4Addr::from(reader.array::<4>("IPv4 address")?);
        let public_key = reader.array("WireGuard key")?;
        let epoch = reader.u32("epoch")?;
        let not_before = reader.u64("start of validity")?;
        let not_after = reader.u64("end of validity")?;
        let signature = Signature::decode(reader)?;
        let chain = Chain::decode(reader)?;
        let wireguard = Signed {
            value: WireGuardCertificate {
                network: chain.network(),
                node,
                public_key,
                epoch,
                not_before,
                not_after,
            },
            signature,
        };
        Ok(Self { node, sequence, issued_at, name, control, home, data, ipv4, wireguard, chain })
    }
}

serde_as_bytes!(Record);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    #[test]
    fn names_are_safe_to_print() {
        assert!("web-1.example_net".parse::<NodeName>().is_ok());
        for bad in ["", "a b", "a\n", "\u{1b}[2J", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
            assert!(NodeName::of_member(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_says_nothing_else() {
        let id = testing::node(1).to_string();
        let upper = id.to_ascii_uppercase();
        for (bad, why) in [
            ("10.42.0.1", "it is an IP address"),
            ("fd00::1", "it is an IP address"),
            (&id, "it is a node id"),
            (&upper, "it is a node id"),
            ("LocalHost", "are reserved"),
            ("me", "are reserved"),
            ("FOUNDER", "are reserved"),
        ] {
            let error = bad.parse::<NodeName>().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        for good in ["me-2", "10.42.0", &id[..51], &id[..10], "localhost.localdomain", "10.42.0.1.example"] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
        for word in NodeName::RESERVED {
            assert!(word.to_uppercase().parse::<NodeName>().is_err(), "{word}");
            assert!(NodeName::of_member(word).is_ok(), "another member may be called so");
        }
    }

    #[test]
    fn every_host_name_of_good_characters_makes_a_name() {
        let id = testing::node(1).to_string();
        for (host, name) in [
            ("web", "web"),
            ("localhost", "localhost-node"),
            ("ALL", "ALL-node"),
            ("10.0.0.1", "10.0.0.1-node"),
            (&id, &format!("{id}-node")),
        ] {
            assert_eq!(NodeName::of_host(host).unwrap().as_str(), name);
        }
        let error = NodeName::of_host("a b").unwrap_err();
        assert!(error.to_string().contains("use letters"), "{error}");
        assert!(NodeName::of_host("").is_err());
        assert!(NodeName::of_host(&"a".repeat(64)).is_err());
        assert!(NodeName::of_host("::1").is_err());
    }

    #[test]
    fn a_record_speaks_for_its_own_node_only() {
        let network = testing::chain(2).network();
        let record = testing::record(2);
        assert_eq!(record.verify_for(&network), Ok(()));

        let mut stolen = record.clone();
        stolen.value.chain = testing::chain(3);
        stolen.signature = stolen.value.sign(&testing::key(2));
        assert_eq!(stolen.verify_for(&network), Err(RecordError::Mismatch("membership")));

        let mut foreign = record.clone();
        foreign.value.wireguard = testing::wireguard_certificate(3);
        foreign.signature = foreign.value.sign(&testing::key(2));
        assert_eq!(foreign.verify_for(&network), Err(RecordError::Mismatch("WireGuard certificate")));

        let mut resigned = record;
        resigned.signature = resigned.value.sign(&testing::key(3));
        assert!(matches!(resigned.verify_for(&network), Err(RecordError::BadSignature(_))));
    }

    #[test]
    fn a_record_of_depth_one_fits_a_kilobyte() {
        assert!(testing::record(1).to_bytes().len() < 700, "{}", testing::record(1).to_bytes().len());
    }

    proptest! {
        #[test]
        fn encodings_read_back(depth in 0u8..=8) {
            testing::round_trips(&testing::record(depth))?;
            testing::round_trips(&testing::record_with_home(depth))?;
        }

        #[test]
        fn one_flipped_bit_is_found(depth in 0u8..=3, bit: prop::sample::Index) {
            let record =
                if depth % 2 == 0 { testing::record(depth) } else { testing::record_with_home(depth) };
            let network = record.value.network();
            let mut bytes = record.to_bytes();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = Signed::<Record>::from_bytes(&bytes) {
                prop_assert!(flipped.verify_for(&network).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
            testing::decodes_canonically::<Signed<Record>>(&bytes)?;
        }
    }
}
