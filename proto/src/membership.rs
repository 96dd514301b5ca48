//! Who is a member: the founder's charter, and certificates chained to the founder.
//!
//! A certificate delegates address ranges, as resource certificates do for the Internet's addresses (RFC 3779): a part of
//! those that its issuer holds. Its subject uses the first address itself and may delegate the others. So the addresses of
//! members are unique as long as no issuer delegates a range twice, and the number of members below an issuer is bounded
//! by its ranges.
//!
//! A certificate names the certificate of its issuer. It is worth nothing in a chain with another, such as that of an
//! issuer whose membership was revoked and which was invited again.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

use crate::address::{AddressRange, AddressRanges, Ipv4Subnet};
use crate::codec::{Codec, DecodeError, Reader, put_list, serde_as_bytes};
use crate::identity::{
    BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signature, Signed, byte_id, tagged_hash,
};
use crate::invite::InviteId;
use crate::record::NodeName;

/// How many invitations may lie between the founder and a member.
///
/// Each costs 143 to 158 bytes in every record of that member; a chain of eight still leaves a record that I2P
/// carries in two fragments.
pub const MAX_DEPTH: usize = 8;

/// A network's name, for people: 1 to 18 lower-case letters, digits and hyphens, neither first nor last a hyphen, so that
/// it can stand in a host name and in an invite code. Names need not be unique: a network is told by its id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// Longest name, bytes.
    pub const MAX_LEN: usize = 18;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a network for which its founder, of this name, has chosen none.
    #[must_use]
    pub fn of_founder(founder: &NodeName) -> Self {
        const SUFFIX: &str = "-net";
        let lower = founder.as_str().to_ascii_lowercase();
        let name: String = lower.chars().map(|c| if Self::has(c) { c } else { '-' }).collect();
        let name = name.trim_start_matches('-');
        let name = name[..name.len().min(Self::MAX_LEN - SUFFIX.len())].trim_end_matches('-');
        Self(if name.is_empty() { "mesh".to_owned() } else { format!("{name}{SUFFIX}") })
    }

    fn has(c: char) -> bool {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
    }
}

impl FromStr for NetworkName {
    type Err = DecodeError;

    fn from_str(name: &str) -> Result<Self, DecodeError> {
        let invalid = |why| Err(DecodeError::Invalid { what: "network name", why });
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return invalid("it must have 1 to 18 characters");
        }
        if !name.chars().all(Self::has) {
            return invalid("use lower-case letters, digits and hyphens");
        }
        if name.starts_with('-') || name.ends_with('-') {
            return invalid("a hyphen is neither first nor last");
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// As many bytes for every name, with zeros behind it.
impl Codec for NetworkName {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
        out.resize(out.len() + Self::MAX_LEN - self.0.len(), 0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "network name";
        let bytes: [u8; Self::MAX_LEN] = reader.array(what)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX_LEN);
        if bytes[end..].iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Invalid { what, why: "there is something behind it" });
        }
        let text = str::from_utf8(&bytes[..end]);
        text.map_err(|_| DecodeError::Invalid { what, why: "not UTF-8" })?.parse()
    }
}

serde_as_bytes!(NetworkName);

/// What the founder lays down for the whole network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charter {
    /// The founder.
    pub founder: NodeId,
    /// What the founder calls the network.
    pub name: NetworkName,
    /// The subnet of the members' IPv4 addresses.
    pub subnet: Ipv4Subnet,
    /// Unix time in seconds.
    pub founded_at: u64,
    /// Random bytes: two networks of one founder are never the same.
    pub nonce: [u8; 16],
}

impl Charter {
    /// The network that this charter founds: its hash.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId(tagged_hash("i2plan network v3", &[&self.to_bytes()]))
    }
}

impl Signable for Charter {
    const DOMAIN: &'static str = "i2plan charter v3";
    const WHAT: &'static str = "charter";
}

impl SelfSigned for Charter {
    fn signer(&self) -> &NodeId {
        &self.founder
    }
}

impl Codec for Charter {
    fn encode(&self, out: &mut Vec<u8>) {
        self.founder.encode(out);
        self.name.encode(out);
        self.subnet.encode(out);
        out.extend_from_slice(&self.founded_at.to_be_bytes());
        out.extend_from_slice(&self.nonce);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            founder: NodeId::decode(reader)?,
            name: NetworkName::decode(reader)?,
            subnet: Ipv4Subnet::decode(reader)?,
            founded_at: reader.u64("founding time")?,
            nonce: reader.array("charter nonce")?,
        })
    }
}

serde_as_bytes!(Charter);

byte_id!(
    /// A membership certificate: its hash without the signature. The founder, which has none, counts as certified by
    /// the network's id.
    CertificateId,
    32,
    "certificate id"
);

impl From<NetworkId> for CertificateId {
    fn from(network: NetworkId) -> Self {
        Self(network.0)
    }
}

/// A membership certificate: an inviter states that a node is a member, and delegates addresses to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The network.
    pub network: NetworkId,
    /// The certificate by which the issuer is a member.
    pub parent: CertificateId,
    /// The inviter.
    pub issuer: NodeId,
    /// What the certificate states of its subject.
    pub grant: Delegation,
}

/// What a certificate states of its subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delegation {
    /// The member.
    pub subject: NodeId,
    /// The invite that it used.
    pub invite: InviteId,
    /// The addresses that it holds: the first is its own, the others it may delegate.
    pub ranges: AddressRanges,
    /// From the issuer's counter.
    pub serial: u64,
    /// The serial number of the first certificate by which the subject holds its addresses: the same, or a smaller one
    /// if it holds more of them since.
    pub since: u64,
    /// The issuer's earlier certificates for any of these addresses are void.
    pub replaces: bool,
    /// Unix time in seconds. For people: nothing depends on it.
    pub issued_at: u64,
}

impl Membership {
    /// What names this certificate.
    #[must_use]
    pub fn id(&self) -> CertificateId {
        CertificateId(tagged_hash("i2plan certificate id v2", &[&self.to_bytes()]))
    }
}

impl Signable for Membership {
    const DOMAIN: &'static str = "i2plan membership v2";
    const WHAT: &'static str = "membership certificate";
}

impl SelfSigned for Membership {
    fn signer(&self) -> &NodeId {
        &self.issuer
    }
}

impl Codec for Delegation {
    fn encode(&self, out: &mut Vec<u8>) {
        self.subject.encode(out);
        self.invite.encode(out);
        self.ranges.encode(out);
        out.extend_from_slice(&self.serial.to_be_bytes());
        out.extend_from_slice(&self.since.to_be_bytes());
        out.push(u8::from(self.replaces));
        out.extend_from_slice(&self.issued_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let subject = NodeId::decode(reader)?;
        let invite = InviteId::decode(reader)?;
        let ranges = AddressRanges::decode(reader)?;
        let serial = reader.u64("serial number")?;
        let since = reader.u64("serial number")?;
        let what = "replacement flag";
        let replaces = match reader.u8(what)? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid { what, why: "neither 0 nor 1" }),
        };
        Ok(Self {
            subject,
            invite,
            ranges,
            serial,
            since,
            replaces,
            issued_at: reader.u64("certificate time")?,
        })
    }
}

impl Codec for Membership {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.parent.encode(out);
        self.issuer.encode(out);
        self.grant.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            parent: CertificateId::decode(reader)?,
            issuer: NodeId::decode(reader)?,
            grant: Delegation::decode(reader)?,
        })
    }
}

serde_as_bytes!(Delegation, Membership);

/// One certificate of a [`Chain`]. Network, parent and issuer follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainLink {
    grant: Delegation,
    signature: Signature,
    id: CertificateId,
}

impl ChainLink {
    /// What names the certificate.
    #[must_use]
    pub fn id(&self) -> &CertificateId {
        &self.id
    }
}

impl std::ops::Deref for ChainLink {
    type Target = Delegation;

    fn deref(&self) -> &Delegation {
        &self.grant
    }
}

/// A certificate of a chain with its issuer, without its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued<'a> {
    /// Who has signed it.
    pub issuer: &'a NodeId,
    /// What names it.
    pub id: &'a CertificateId,
    /// What it states of its subject.
    pub grant: &'a Delegation,
}

/// A [`ChainLink`] as it is written.
struct Written(Delegation, Signature);

impl Codec for Written {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(Delegation::decode(reader)?, Signature::decode(reader)?))
    }
}

/// The certificates that lead from the founder to a member, each signed by the subject of the one before.
///
/// Without links it is the founder's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    network: NetworkId,
    founder: NodeId,
    links: Vec<ChainLink>,
}

/// Why a chain does not make its last subject a member.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// It belongs to another network.
    #[error("the membership is of another network")]
    WrongNetwork,
    /// A certificate in it is not signed by the subject of the one before.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// It is as long as a chain may be.
    #[error(
        "the chain of certificates is {MAX_DEPTH} long already; ask a member nearer to the founder for the invite"
    )]
    TooDeep,
    /// A certificate does not continue the chain.
    #[error("the certificate is not issued by the last member of the chain")]
    NotContinued,
    /// A certificate delegates addresses that its issuer does not hold, or the issuer's own.
    #[error("a certificate delegates {0}, which its issuer cannot delegate")]
    NotDelegable(AddressRange),
    /// A certificate gives its subject an address that belongs to no member.
    #[error("a certificate assigns {0}, which no member can have")]
    NoHost(Ipv4Addr),
    /// A member occurs twice in it.
    #[error("a member occurs twice in the chain of certificates")]
    Loop,
}

impl Chain {
    /// The founder's own chain.
    #[must_use]
    pub fn founder(charter: &Charter) -> Self {
        Self { network: charter.network(), founder: charter.founder, links: Vec::new() }
    }

    /// The network to which the chain belongs.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Whose membership it shows.
    #[must_use]
    pub fn subject(&self) -> &NodeId {
        self.links.last().map_or(&self.founder, |link| &link.subject)
    }

    /// The number of invitations between the founder and the subject.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.links.len()
    }

    /// The certificates, that of the member nearest to the founder first.
    #[must_use]
    pub fn links(&self) -> &[ChainLink] {
        &self.links
    }

    /// The certificates with the issuer of each.
    pub fn issued(&self) -> impl Iterator<Item = (&NodeId, &ChainLink)> {
        self.ancestors().zip(&self.links)
    }

    /// The same without their signatures.
    #[must_use]
    pub fn path(&self) -> Vec<Issued<'_>> {
        self.issued().map(|(issuer, link)| Issued { issuer, id: &link.id, grant: &link.grant }).collect()
    }

    /// The certificate of the subject. The founder has none.
    #[must_use]
    pub fn last(&self) -> Option<&ChainLink> {
        self.links.last()
    }

    /// What names the subject's certificate.
    #[must_use]
    pub fn id(&self) -> CertificateId {
        self.links.last().map_or(self.network.into(), |link| link.id)
    }

    /// The chain of the subject's inviter. The founder has none.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, links) = self.links.split_last()?;
        Some(Self { network: self.network, founder: self.founder, links: links.to_vec() })
    }

    /// When the subject became a member, Unix time in seconds by its inviter's clock; 0 for the founder.
    #[must_use]
    pub fn member_since(&self) -> u64 {
        self.links.last().map_or(0, |link| link.issued_at)
    }

    /// The subject's inviters, the founder first; none for the founder.
    pub fn ancestors(&self) -> impl Iterator<Item = &NodeId> {
        let all = std::iter::once(&self.founder).chain(self.links.iter().map(|link| &link.subject));
        all.take(self.links.len())
    }

    /// Whether `node` is one of the subject's inviters.
    #[must_use]
    pub fn is_ancestor(&self, node: &NodeId) -> bool {
        self.ancestors().any(|ancestor| ancestor == node)
    }

    /// The address of the subject in a network with this subnet.
    #[must_use]
    pub fn address(&self, subnet: &Ipv4Subnet) -> Ipv4Addr {
        self.links.last().map_or(subnet.founder_address(), |link| link.ranges.address())
    }

    /// The addresses that the subject holds in a network with this subnet.
    #[must_use]
    pub fn ranges(&self, subnet: &Ipv4Subnet) -> AddressRanges {
        self.links.last().map_or_else(|| subnet.range().into(), |link| link.ranges.clone())
    }

    /// The addresses that one of the subject's inviters, or the subject, holds in a network with this subnet.
    #[must_use]
    pub fn ranges_of(&self, node: &NodeId, subnet: &Ipv4Subnet) -> Option<AddressRanges> {
        if self.founder == *node {
            return Some(subnet.range().into());
        }
        self.links.iter().find(|link| link.subject == *node).map(|link| link.ranges.clone())
    }

    /// The certificate with which [`Chain::extended`] continues this chain, to be signed by the subject.
    #[must_use]
    pub fn certificate(&self, grant: Delegation) -> Membership {
        Membership { network: self.network, parent: self.id(), issuer: *self.subject(), grant }
    }

    /// This chain and one certificate more. Whether its issuer may delegate the addresses is left to [`Chain::verify`].
    ///
    /// # Errors
    /// [`ChainError`] if the certificate is of another network, not issued by the chain's subject under the chain's
    /// last certificate, not correctly signed, or one too many.
    pub fn extended(&self, certificate: &Signed<Membership>) -> Result<Self, ChainError> {
        let Membership { network, parent, issuer, .. } = &certificate.value;
        if *network != self.network {
            return Err(ChainError::WrongNetwork);
        }
        if issuer != self.subject() || *parent != self.id() {
            return Err(ChainError::NotContinued);
        }
        if self.links.len() >= MAX_DEPTH {
            return Err(ChainError::TooDeep);
        }
        certificate.verify()?;
        Ok(self.appended(certificate))
    }

    /// This chain and one certificate more, of which nothing is checked.
    #[must_use]
    pub fn appended(&self, certificate: &Signed<Membership>) -> Self {
        let mut chain = self.clone();
        let (grant, id) = (certificate.value.grant.clone(), certificate.value.id());
        chain.links.push(ChainLink { grant, signature: certificate.signature, id });
        chain
    }

    /// The certificate that a node has issued in this chain.
    #[must_use]
    pub fn certificate_by(&self, issuer: &NodeId) -> Option<Signed<Membership>> {
        let at = self.ancestors().position(|node| node == issuer)?;
        let parent = at.checked_sub(1).map_or(self.network.into(), |before| self.links[before].id);
        let ChainLink { grant, signature, .. } = self.links[at].clone();
        let value = Membership { network: self.network, parent, issuer: *issuer, grant };
        Some(Signed { value, signature })
    }

    /// Checks that the chain belongs to the network of `charter`, that every issuer may delegate what it delegates, and
    /// every signature. The charter's own signature is not checked.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn verify(&self, charter: &Charter) -> Result<(), ChainError> {
        self.verify_except(charter, |_, _| false)
    }

    /// As [`Chain::verify`], without the signatures of certificates that `is_known` says were verified before with this
    /// signature.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn verify_except(
        &self,
        charter: &Charter,
        is_known: impl Fn(&CertificateId, &Signature) -> bool,
    ) -> Result<(), ChainError> {
        if self.network != charter.network() || self.founder != charter.founder {
            return Err(ChainError::WrongNetwork);
        }
        let mut holder = AddressRanges::from(charter.subnet.range());
        let mut address = charter.subnet.founder_address();
        for (number, (_, link)) in self.issued().enumerate() {
            if self.ancestors().take(number + 1).any(|above| *above == link.subject) {
                return Err(ChainError::Loop);
            }
            let taken = |range: &&AddressRange| !holder.cover(range) || range.contains(address);
            if let Some(range) = link.ranges.iter().find(taken) {
                return Err(ChainError::NotDelegable(*range));
            }
            address = link.ranges.address();
            if !charter.subnet.is_host(address) {
                return Err(ChainError::NoHost(address));
            }
            holder = link.ranges.clone();
        }
        let mut parent = CertificateId::from(self.network);
        for (issuer, link) in self.issued() {
            if !is_known(&link.id, &link.signature) {
                let (network, issuer, grant) = (self.network, *issuer, link.grant.clone());
                let certificate = Membership { network, parent, issuer, grant };
                certificate.verify(&issuer, &link.signature)?;
            }
            parent = link.id;
        }
        Ok(())
    }

    /// The certificates with their signatures, for what is to be remembered of verified chains.
    pub fn signatures(&self) -> impl Iterator<Item = (&CertificateId, &Signature)> {
        self.links.iter().map(|link| (&link.id, &link.signature))
    }
}

impl Codec for Chain {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.founder.encode(out);
        let links: Vec<Written> =
            self.links.iter().map(|link| Written(link.grant.clone(), link.signature)).collect();
        put_list(out, &links);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let network = NetworkId::decode(reader)?;
        let founder = NodeId::decode(reader)?;
        let written: Vec<Written> = reader.list(MAX_DEPTH, "membership chain")?;
        let mut links = Vec::with_capacity(written.len());
        let (mut parent, mut issuer) = (CertificateId::from(network), founder);
        for Written(grant, signature) in written {
            let certificate = Membership { network, parent, issuer, grant };
            let id = certificate.id();
            (parent, issuer) = (id, certificate.grant.subject);
            links.push(ChainLink { grant: certificate.grant, signature, id });
        }
        Ok(Self { network, founder, links })
    }
}

serde_as_bytes!(Chain);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    #[test]
    fn a_chain_leads_to_its_subject() {
        let chain = testing::chain(3);
        assert_eq!(chain.depth(), 3);
        assert_eq!(chain.subject(), &testing::node(3));
        assert!(chain.ancestors().eq(&[0, 1, 2].map(testing::node)));
        let founder = Chain::founder(&testing::charter(0));
        assert_eq!((founder.ancestors().count(), chain.member_since()), (0, testing::NOW));
        assert_eq!(chain.verify(&testing::charter(0)), Ok(()));
        assert_eq!(chain.verify(&testing::charter(9)), Err(ChainError::WrongNetwork));
        assert_eq!(chain.parent(), Some(testing::chain(2)));
    }

    #[test]
    fn a_network_name_can_stand_in_a_host_name() {
        for good in ["a", "office", "net-2", "abcdefghijklmnopqr"] {
            let name: NetworkName = good.parse().unwrap();
            assert_eq!(name.to_string(), good);
            let bytes = name.to_bytes();
            assert_eq!((bytes.len(), NetworkName::decode(&mut Reader::new(&bytes))), (18, Ok(name)));
        }
        for bad in ["", "Office", "a b", "-a", "a-", "ü", "a.b", "abcdefghijklmnopqrs"] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
        }
        let mut hidden = *b"office\0\0\0\0\0\0\0\0\0\0\0x";
        assert!(NetworkName::decode(&mut Reader::new(&hidden)).is_err());
        hidden[17] = 0;
        assert!(NetworkName::decode(&mut Reader::new(&hidden)).is_ok());
        for (founder, name) in [
            ("web", "web-net"),
            ("Alice.Example_1", "alice-example-net"),
            ("a-very-long-name-of-a-host", "a-very-long-na-net"),
            ("twelve-chars---x", "twelve-chars-net"),
            ("...", "mesh"),
        ] {
            let made = NetworkName::of_founder(&founder.parse().unwrap());
            assert_eq!(made.as_str(), name);
            assert_eq!(name.parse(), Ok(made));
        }
    }

    #[test]
    fn a_network_of_the_same_founder_is_another() {
        let first = testing::charter(0);
        let second = Charter { nonce: [9; 16], ..first.clone() };
        assert_ne!(first.network(), second.network());
        assert_eq!(testing::chain(2).verify(&second), Err(ChainError::WrongNetwork));
    }

    #[test]
    fn only_the_last_member_can_continue_it() {
        let chain = testing::chain(1);
        assert_eq!(chain.extended(&testing::membership(0, 2)), Err(ChainError::NotContinued));
        let mut forged = testing::membership(1, 2);
        forged.signature = testing::membership(0, 2).signature;
        assert!(matches!(chain.extended(&forged), Err(ChainError::BadSignature(_))));
    }

    /// Node 1 under another certificate, as after it was invited again.
    #[test]
    fn a_certificate_is_bound_to_that_of_its_issuer() {
        let founder = Chain::founder(&testing::charter(0));
        let grant = testing::chain(1).links()[0].grant.clone();
        let again = founder.certificate(Delegation { serial: 100, ..grant });
        let again = founder.extended(&testing::signed(again, 0)).unwrap();
        assert_eq!(again.extended(&testing::membership(1, 2)), Err(ChainError::NotContinued));
        let mut grafted = testing::chain(2);
        grafted.links[0] = again.links[0].clone();
        assert!(matches!(grafted.verify(&testing::charter(0)), Err(ChainError::BadSignature(_))));
    }

    fn delegating(ranges: &[(&str, u8)]) -> Result<(), ChainError> {
        let chain = testing::chain(1);
        let ranges =
            ranges.iter().map(|(first, prefix)| AddressRange::new(first.parse().unwrap(), *prefix).unwrap());
        let grant = Delegation {
            ranges: AddressRanges::new(ranges.collect()).unwrap(),
            subject: testing::node(2),
            ..testing::membership(1, 2).value.grant
        };
        let certificate = testing::signed(chain.certificate(grant), 1);
        chain.extended(&certificate).unwrap().verify(&testing::charter(0))
    }

    #[test]
    fn an_issuer_delegates_its_own_ranges_only_and_not_its_own_address() {
        // Node 1 holds 10.42.128.0/17.
        assert_eq!(delegating(&[("10.42.192.0", 18)]), Ok(()));
        assert_eq!(delegating(&[("10.42.128.16", 28), ("10.42.255.0", 24)]), Ok(()));
        for outside in [("10.42.64.0", 18), ("10.42.0.0", 16), ("10.43.0.0", 28)] {
            assert!(matches!(delegating(&[outside]), Err(ChainError::NotDelegable(_))), "{outside:?}");
        }
        assert!(matches!(
            delegating(&[("10.42.192.0", 18), ("10.42.1.0", 24)]),
            Err(ChainError::NotDelegable(_))
        ));
        for own in [("10.42.128.0", 32), ("10.42.128.0", 17), ("10.42.128.0", 28)] {
            assert!(matches!(delegating(&[own]), Err(ChainError::NotDelegable(_))), "{own:?}");
        }
        assert!(matches!(delegating(&[("10.42.255.255", 32)]), Err(ChainError::NoHost(_))));
    }

    #[test]
    fn no_member_stands_above_itself() {
        let chain = testing::chain(1);
        let grant = Delegation { subject: testing::node(0), ..testing::membership(1, 2).value.grant };
        let looped = chain.extended(&testing::signed(chain.certificate(grant), 1)).unwrap();
        assert_eq!(looped.verify(&testing::charter(0)), Err(ChainError::Loop));
    }

    #[test]
    fn depth_is_bounded() {
        let deepest = testing::chain(u8::try_from(MAX_DEPTH).unwrap());
        let more = testing::signed(deepest.certificate(testing::membership(8, 9).value.grant), 8);
        assert_eq!(deepest.extended(&more), Err(ChainError::TooDeep));
        // Nor does a longer one decode.
        let mut bytes = deepest.to_bytes();
        let link = deepest.links.last().unwrap();
        bytes[64] += 1;
        Written(link.grant.clone(), link.signature).encode(&mut bytes);
        assert!(matches!(Chain::from_bytes(&bytes), Err(DecodeError::Invalid { .. })));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_breaks_a_chain(depth in 0u8..=4, bit: prop::sample::Index) {
            let chain = testing::chain(depth);
            let mut bytes = chain.to_bytes();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = Chain::from_bytes(&bytes) {
                prop_assert!(flipped.verify(&testing::charter(0)).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            testing::decodes_canonically::<Chain>(&bytes)?;
            testing::decodes_canonically::<Signed<Membership>>(&bytes)?;
            testing::decodes_canonically::<Signed<Charter>>(&bytes)?;
        }

        #[test]
        fn encodings_read_back(depth in 0u8..=8) {
            testing::round_trips(&testing::chain(depth))?;
            testing::round_trips(&testing::membership(depth, depth + 1))?;
            testing::round_trips(&testing::signed_charter(depth))?;
        }
    }
}
