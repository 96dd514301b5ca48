//! What a member publishes about itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::destination::{DestinationRole, ProvenDestination};
use crate::identity::{BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signature, Signed};
use crate::membership::{CertificateId, Chain, ChainError, Charter};
use crate::wireguard::{ProvenKey, WireGuardCertificate, WireGuardError};

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

    /// Makes a name of a host's name: a hyphen in place of each character that a name cannot have, cut to the longest
    /// name. One that [`NodeName::from_str`] refuses for what it says gets `-node` appended.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        const SUFFIX: &str = "-node";
        if let Ok(name) = host.parse() {
            return name;
        }
        let name: String = host.chars().map(|c| if Self::has(c) { c } else { '-' }).collect();
        let name = name.trim_matches(['-', '_', '.']);
        let name = if name.is_empty() { "node" } else { &name[..name.len().min(Self::MAX_LEN)] };
        name.parse().unwrap_or_else(|_| {
            Self(format!("{}{SUFFIX}", &name[..name.len().min(Self::MAX_LEN - SUFFIX.len())]))
        })
    }

    /// Whether a name can have this character.
    fn has(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
    }

    fn check_characters(name: &str) -> Result<(), DecodeError> {
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(invalid_name("it must have 1 to 63 characters"));
        }
        if !name.chars().all(Self::has) {
            return Err(invalid_name("use letters, digits, hyphens, underscores and dots"));
        }
        Ok(())
    }
}

fn invalid_name(why: &'static str) -> DecodeError {
    DecodeError::Invalid { what: "node name", why }
}

/// Reads a name. What names a member in another way is refused.
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
        Self::check_characters(name)?;
        Ok(Self(name.to_owned()))
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
        let name = std::str::from_utf8(reader.bytes(usize::from(first & !FLAGS), what)?)
            .map_err(|_| DecodeError::Invalid { what, why: "not UTF-8" })?;
        Ok((name.parse()?, first & FLAGS))
    }
}

impl Codec for NodeName {
    fn encode(&self, out: &mut Vec<u8>) {
        self.put(out, 0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match Self::read(reader)? {
            (name, 0) => Ok(name),
            _ => Err(invalid_name("it is too long")),
        }
    }
}

/// Added to the length of a record's name if a primary destination follows: a name leaves that bit free.
const HAS_PRIMARY: u8 = 0x80;

/// Added to the length of a record's name if the member takes path reports: a name leaves that bit free too.
const TAKES_REPORTS: u8 = 0x40;

const FLAGS: u8 = HAS_PRIMARY | TAKES_REPORTS;

/// What a member says of itself. Signed by the member and by every destination that it names, so that anyone may pass it
/// on; of two records the one with the higher sequence number counts. The member's addresses follow from its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The member's identity.
    pub node: NodeId,
    /// From the member's counter: grows with every record that it signs.
    pub sequence: u64,
    /// Unix time in seconds.
    pub issued_at: u64,
    /// What the member calls itself; names need not be unique.
    pub name: NodeName,
    /// Where it takes control messages.
    pub control: ProvenDestination,
    /// The destination for control messages that it always has, if it takes them elsewhere for now. It is there again
    /// some time, and invites lead there.
    pub primary: Option<Box<ProvenDestination>>,
    /// Where it takes WireGuard packets.
    pub data: ProvenDestination,
    /// Whether it sends and takes [path reports](crate::path_report::PathReport).
    pub takes_reports: bool,
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
    /// Its WireGuard key is not the node's.
    #[error(transparent)]
    WireGuard(#[from] WireGuardError),
    /// It carries a certificate or a chain of another node or network.
    #[error("the record's {0} belongs to another node or network")]
    Mismatch(&'static str),
    /// Its WireGuard key is to be valid for too long.
    #[error("the record's WireGuard certificate is valid for more than 30 days")]
    TooLong,
}

impl Record {
    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.chain.network()
    }

    /// The member's IPv4 address in the network of `charter`.
    #[must_use]
    pub fn ipv4(&self, charter: &Charter) -> Ipv4Addr {
        self.chain.address(&charter.subnet)
    }

    /// The destinations that it names, and what for.
    pub fn destinations(&self) -> impl Iterator<Item = (&ProvenDestination, DestinationRole)> {
        let control =
            if self.primary.is_some() { DestinationRole::Fallback } else { DestinationRole::Primary };
        let primary = self.primary.as_deref().map(|primary| (primary, DestinationRole::Primary));
        [(&self.control, control), (&self.data, DestinationRole::Data)].into_iter().chain(primary)
    }

    /// Checks that the parts of the record belong together, and the signatures of its parts, except those of the
    /// destinations.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify_parts(&self, charter: &Charter) -> Result<(), RecordError> {
        self.verify_parts_except(charter, |_, _| false)
    }

    fn verify_parts_except(
        &self,
        charter: &Charter,
        is_known: impl Fn(&CertificateId, &Signature) -> bool,
    ) -> Result<(), RecordError> {
        if self.chain.subject() != &self.node {
            return Err(RecordError::Mismatch("membership"));
        }
        let wireguard = &self.wireguard.value;
        if wireguard.node != self.node || wireguard.network != charter.network() {
            return Err(RecordError::Mismatch("WireGuard certificate"));
        }
        if wireguard.lasts_too_long() {
            return Err(RecordError::TooLong);
        }
        self.chain.verify_except(charter, is_known)?;
        self.wireguard.verify_key()?;
        Ok(())
    }
}

impl Signed<Record> {
    /// Checks the record as a member of the network of `charter` must before believing it: its signature, those of its
    /// destinations, the member's certificate chain and its WireGuard certificate. Times are not looked at, except
    /// that the WireGuard certificate must not be valid for too long.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify_for(&self, charter: &Charter) -> Result<(), RecordError> {
        self.verify_except(charter, None, |_, _| false)
    }

    /// As [`Signed::<Record>::verify_for`], without what was verified before: certificates of the chain of which
    /// `is_known` says so, and destinations that are also in `before`, a record of the same node.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify_except(
        &self,
        charter: &Charter,
        before: Option<&Record>,
        is_known: impl Fn(&CertificateId, &Signature) -> bool,
    ) -> Result<(), RecordError> {
        self.verify()?;
        let network = charter.network();
        for (destination, role) in self.value.destinations() {
            let is_proven = |before: &Record| before.destinations().any(|known| known == (destination, role));
            if !before.is_some_and(|before| before.node == self.value.node && is_proven(before)) {
                destination.verify(&network, &self.value.node, role)?;
            }
        }
        self.value.verify_parts_except(charter, is_known)
    }
}

impl Signable for Record {
    const DOMAIN: &'static str = "i2plan record v2";
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
        let has_primary = if self.primary.is_some() { HAS_PRIMARY } else { 0 };
        self.name.put(out, has_primary | if self.takes_reports { TAKES_REPORTS } else { 0 });
        self.control.encode(out);
        if let Some(primary) = &self.primary {
            primary.encode(out);
        }
        self.data.encode(out);
        // The certificate's node is the record's and its network is the chain's; only the rest is written.
        let certificate = &self.wireguard.value;
        certificate.key.encode(out);
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
        let (name, flags) = NodeName::read(reader)?;
        let control = ProvenDestination::decode(reader)?;
        let has_primary = flags & HAS_PRIMARY != 0;
        let primary = if has_primary { Some(Box::new(ProvenDestination::decode(reader)?)) } else { None };
        let takes_reports = flags & TAKES_REPORTS != 0;
        let data = ProvenDestination::decode(reader)?;
        let key = ProvenKey::decode(reader)?;
        let epoch = reader.u32("epoch")?;
        let not_before = reader.u64("start of validity")?;
        let not_after = reader.u64("end of validity")?;
        let signature = Signature::decode(reader)?;
        let chain = Chain::decode(reader)?;
        let wireguard = Signed {
            value: WireGuardCertificate { network: chain.network(), node, key, epoch, not_before, not_after },
            signature,
        };
        Ok(Self { node, sequence, issued_at, name, control, primary, data, takes_reports, wireguard, chain })
    }
}

serde_as_bytes!(NodeName, Record);

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
        }
    }

    #[test]
    fn every_host_name_makes_a_name() {
        let id = testing::node(1).to_string();
        let long = "a".repeat(64);
        for (host, name) in [
            ("web", "web"),
            ("localhost", "localhost-node"),
            ("ALL", "ALL-node"),
            ("10.0.0.1", "10.0.0.1-node"),
            (&id, &format!("{id}-node")),
            ("a b", "a-b"),
            ("büro.example", "b-ro.example"),
            ("", "node"),
            ("--!", "node"),
            ("(none)", "none-node"),
            (&long, &long[..63]),
            ("\u{1b}[2J", "2J"),
        ] {
            let made = NodeName::of_host(host);
            assert_eq!(made.as_str(), name);
            assert_eq!(name.parse(), Ok(made));
        }
    }

    #[test]
    fn a_record_speaks_for_its_own_node_only() {
        let charter = testing::charter(0);
        let record = testing::record(2);
        assert_eq!(record.verify_for(&charter), Ok(()));

        let mut stolen = record.clone();
        stolen.value.chain = testing::chain(3);
        stolen.signature = stolen.value.sign(&testing::key(2));
        assert_eq!(stolen.verify_for(&charter), Err(RecordError::Mismatch("membership")));

        let mut foreign = record.clone();
        foreign.value.wireguard = testing::wireguard_certificate(3);
        foreign.signature = foreign.value.sign(&testing::key(2));
        assert_eq!(foreign.verify_for(&charter), Err(RecordError::Mismatch("WireGuard certificate")));

        let mut resigned = record;
        resigned.signature = resigned.value.sign(&testing::key(3));
        assert!(matches!(resigned.verify_for(&charter), Err(RecordError::BadSignature(_))));
    }

    #[test]
    fn a_record_names_destinations_that_have_agreed() {
        let charter = testing::charter(0);
        let good = testing::record_with_primary(2);
        assert_eq!(good.verify_for(&charter), Ok(()));
        let steal: [fn(&mut Record); 4] = [
            |record| record.control = testing::proven(3, 3, DestinationRole::Primary),
            |record| record.data = testing::proven(103, 3, DestinationRole::Data),
            |record| record.primary = Some(Box::new(testing::proven(3, 3, DestinationRole::Primary))),
            |record| record.primary = None,
        ];
        for (number, steal) in steal.into_iter().enumerate() {
            let mut record = good.value.clone();
            steal(&mut record);
            let error = testing::signed(record, 2).verify_for(&charter);
            assert!(matches!(error, Err(RecordError::BadSignature(_))), "{number}: {error:?}");
            // Knowing the record before does not make them the member's.
            let error = testing::signed(good.value.clone(), 2);
            assert_eq!(error.verify_except(&charter, Some(&good.value), |_, _| true), Ok(()));
        }
        let mut record = good.value.clone();
        record.data = testing::proven(103, 3, DestinationRole::Data);
        let record = testing::signed(record, 2);
        assert!(record.verify_except(&charter, Some(&good.value), |_, _| true).is_err());
    }

    #[test]
    fn a_wireguard_key_lasts_thirty_days_at_most() {
        let mut record = testing::record(2).value;
        record.wireguard.value.not_after =
            record.wireguard.value.not_before + WireGuardCertificate::MAX_AGE + 1;
        record.wireguard = testing::signed(record.wireguard.value.clone(), 2);
        assert_eq!(
            testing::signed(record.clone(), 2).verify_for(&testing::charter(0)),
            Err(RecordError::TooLong)
        );
        record.wireguard.value.not_before = u64::MAX;
        record.wireguard.value.not_after = 0;
        record.wireguard = testing::signed(record.wireguard.value.clone(), 2);
        assert_eq!(testing::signed(record, 2).verify_for(&testing::charter(0)), Ok(()), "never valid");
    }

    #[test]
    fn that_a_member_takes_reports_is_a_bit_before_its_name() {
        let record = testing::record(1).value;
        let with = Record { takes_reports: true, ..record.clone() };
        let (mut bytes, name) = (record.to_bytes(), 32 + 8 + 8);
        bytes[name] |= 0x40;
        assert_eq!(with.to_bytes(), bytes);
    }

    #[test]
    fn a_record_of_depth_one_fits_a_kilobyte() {
        assert!(testing::record(1).to_bytes().len() < 900, "{}", testing::record(1).to_bytes().len());
    }

    proptest! {
        #[test]
        fn encodings_read_back(depth in 0u8..=8) {
            testing::round_trips(&testing::record(depth))?;
            testing::round_trips(&testing::record_with_primary(depth))?;
            let reports = Record { takes_reports: true, ..testing::record_with_primary(depth).value };
            testing::round_trips(&reports)?;
        }

        #[test]
        fn one_flipped_bit_is_found(depth in 0u8..=3, bit: prop::sample::Index) {
            let record =
                if depth % 2 == 0 { testing::record(depth) } else { testing::record_with_primary(depth) };
            let mut bytes = record.to_bytes();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = Signed::<Record>::from_bytes(&bytes) {
                prop_assert!(flipped.verify_for(&testing::charter(0)).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
            testing::decodes_canonically::<Signed<Record>>(&bytes)?;
        }
    }
}
