//! Who is a member: the founder's charter, and certificates chained to the founder.

use thiserror::Error;

use crate::address::Ipv4Subnet;
use crate::codec::{Codec, DecodeError, Reader, put_list, serde_as_bytes};
use crate::identity::{BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signature, Signed};
use crate::invite::InviteId;

/// How many invitations may lie between the founder and a member.
///
/// Each costs 120 bytes in every record of that member; a chain of eight still leaves a record that I2P
/// carries in two fragments.
pub const MAX_DEPTH: usize = 8;

/// What the founder lays down for the whole network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charter {
    /// The founder; its hash is the network's id.
    pub founder: NodeId,
    /// The subnet of the members' IPv4 addresses.
    pub subnet: Ipv4Subnet,
    /// Unix time in seconds.
    pub founded_at: u64,
}

impl Charter {
    /// The network that this charter founds.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId::of_founder(&self.founder)
    }
}

impl Signable for Charter {
    const DOMAIN: &'static str = "i2plan charter v1";
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
        self.subnet.encode(out);
        out.extend_from_slice(&self.founded_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            founder: NodeId::decode(reader)?,
            subnet: Ipv4Subnet::decode(reader)?,
            founded_at: reader.u64("founding time")?,
        })
    }
}

serde_as_bytes!(Charter);

/// An inviter's word that a node is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The network.
    pub network: NetworkId,
    /// The inviter.
    pub issuer: NodeId,
    /// The new member.
    pub subject: NodeId,
    /// The invite that it used.
    pub invite: InviteId,
    /// Unix time in seconds.
    pub issued_at: u64,
}

impl Signable for Membership {
    const DOMAIN: &'static str = "i2plan membership v1";
    const WHAT: &'static str = "membership certificate";
}

impl SelfSigned for Membership {
    fn signer(&self) -> &NodeId {
        &self.issuer
    }
}

impl Codec for Membership {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.issuer.encode(out);
        self.subject.encode(out);
        self.invite.encode(out);
        out.extend_from_slice(&self.issued_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            issuer: NodeId::decode(reader)?,
            subject: NodeId::decode(reader)?,
            invite: InviteId::decode(reader)?,
            issued_at: reader.u64("certificate time")?,
        })
    }
}

serde_as_bytes!(Membership);

/// One step of a [`Chain`]: a [`Membership`] without what the chain already says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    subject: NodeId,
    invite: InviteId,
    issued_at: u64,
    signature: Signature,
}

impl Codec for Link {
    fn encode(&self, out: &mut Vec<u8>) {
        self.subject.encode(out);
        self.invite.encode(out);
        out.extend_from_slice(&self.issued_at.to_be_bytes());
        self.signature.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            subject: NodeId::decode(reader)?,
            invite: InviteId::decode(reader)?,
            issued_at: reader.u64("certificate time")?,
            signature: Signature::decode(reader)?,
        })
    }
}

/// The certificates that lead from the founder to a member, each signed by the subject of the one before.
///
/// Without links it is the founder's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    founder: NodeId,
    links: Vec<Link>,
}

/// Why a chain does not make its last subject a member.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// It starts at the founder of another network.
    #[error("the membership is of another network")]
    WrongNetwork,
    /// A certificate in it is not signed by the subject of the one before.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// It is as long as a chain may be.
    #[error(
        "the chain of invitations is {MAX_DEPTH} long already; ask a member nearer to the founder for the invite"
    )]
    TooDeep,
    /// A certificate does not continue the chain.
    #[error("the certificate is not issued by the last member of the chain")]
    NotContinued,
}

impl Chain {
    /// The founder's own chain.
    #[must_use]
    pub fn founder(founder: NodeId) -> Self {
        Self { founder, links: Vec::new() }
    }

    /// The network to which the chain belongs.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId::of_founder(&self.founder)
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

    /// When the subject became a member, Unix time in seconds by its inviter's clock; 0 for the founder.
    #[must_use]
    pub fn member_since(&self) -> u64 {
        self.links.last().map_or(0, |link| link.issued_at)
    }

    /// The members over whom the subject was invited, the founder first; none for the founder.
    pub fn ancestors(&self) -> impl Iterator<Item = &NodeId> {
        let all = std::iter::once(&self.founder).chain(self.links.iter().map(|link| &link.subject));
        all.take(self.links.len())
    }

    /// Whether `node` stands above the subject: it is the founder, or one over whom the subject was invited.
    #[must_use]
    pub fn is_ancestor(&self, node: &NodeId) -> bool {
        self.ancestors().any(|ancestor| ancestor == node)
    }

    /// Whether `node` is the subject or stands above it.
    #[must_use]
    pub fn leads_over(&self, node: &NodeId) -> bool {
        self.subject() == node || self.is_ancestor(node)
    }

    /// This chain and one certificate more.
    ///
    /// # Errors
    /// [`ChainError`] if the certificate is of another network, not issued by the chain's subject, not
    /// rightly signed, or one too many.
    pub fn extended(&self, certificate: &Signed<Membership>) -> Result<Self, ChainError> {
        let Membership { network, issuer, subject, invite, issued_at } = &certificate.value;
        if *network != self.network() {
            return Err(ChainError::WrongNetwork);
        }
        if issuer != self.subject() {
            return Err(ChainError::NotContinued);
        }
        if self.links.len() >= MAX_DEPTH {
            return Err(ChainError::TooDeep);
        }
        certificate.verify()?;
        let mut chain = self.clone();
        chain.links.push(Link {
            subject: *subject,
            invite: *invite,
            issued_at: *issued_at,
            signature: certificate.signature,
        });
        Ok(chain)
    }

    /// Checks every certificate and that the chain starts at the founder of `network`.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn verify(&self, network: &NetworkId) -> Result<(), ChainError> {
        if self.network() != *network {
            return Err(ChainError::WrongNetwork);
        }
        let mut issuer = self.founder;
        for link in &self.links {
            let membership = Membership {
                network: *network,
                issuer,
                subject: link.subject,
                invite: link.invite,
                issued_at: link.issued_at,
            };
            membership.verify(&issuer, &link.signature)?;
            issuer = link.subject;
        }
        Ok(())
    }
}

impl Codec for Chain {
    fn encode(&self, out: &mut Vec<u8>) {
        self.founder.encode(out);
        put_list(out, &self.links);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { founder: NodeId::decode(reader)?, links: reader.list(MAX_DEPTH, "membership chain")? })
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
        assert_eq!(
            (Chain::founder(testing::node(0)).ancestors().count(), chain.member_since()),
            (0, testing::NOW)
        );
        assert_eq!(chain.verify(&NetworkId::of_founder(&testing::node(0))), Ok(()));
        assert_eq!(chain.verify(&NetworkId::of_founder(&testing::node(9))), Err(ChainError::WrongNetwork));
    }

    #[test]
    fn only_the_last_member_can_continue_it() {
        let chain = testing::chain(1);
        assert_eq!(chain.extended(&testing::membership(0, 2)), Err(ChainError::NotContinued));
        let mut forged = testing::membership(1, 2);
        forged.signature = testing::membership(0, 2).signature;
        assert!(matches!(chain.extended(&forged), Err(ChainError::BadSignature(_))));
    }

    #[test]
    fn depth_is_bounded() {
        let deepest = testing::chain(u8::try_from(MAX_DEPTH).unwrap());
        let more = testing::membership(8, 9);
        assert_eq!(deepest.extended(&more), Err(ChainError::TooDeep));
        // Nor does a longer one decode.
        let mut bytes = deepest.to_bytes();
        let last_link = bytes[bytes.len() - 120..].to_vec();
        bytes[32] += 1;
        bytes.extend_from_slice(&last_link);
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
                prop_assert!(flipped.verify(&chain.network()).is_err());
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
