//! The end of a membership: by one who stands above the member, or by the member.
//!
//! Both name a certificate and never an identity: the same node may be invited again. Whether one counts is decided by the
//! chain of the record that it is held against ([`Revocation::voids`], [`Resignation::voids`]), to which the record's node
//! has consented by its signature. A chain that somebody else has put together for a node decides nothing.

use thiserror::Error;

use crate::address::AddressRanges;
use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signed};
use crate::invite::InviteId;
use crate::membership::{CertificateId, Chain, ChainError, Charter, Delegation, Issued};

/// What a [`Revocation`] takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The last certificate of this chain, in which the signer stands above its subject.
    ///
    /// It covers all certificates of the same issuer for any of the same addresses up to the same serial number.
    Certificate(Chain),
    /// All certificates of the signer for users of this invite. The chain is the signer's own.
    Invite(Chain, InviteId),
}

impl Target {
    /// The chain that shows that the signer may revoke.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        match self {
            Self::Certificate(chain) | Self::Invite(chain, _) => chain,
        }
    }
}

/// A statement of the founder or of an inviter of a member that a certificate holds no longer. It is final. Members whose
/// chains contain the certificate are no members any more: their certificates rest on the signature of a key that is
/// not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Who revokes.
    pub issuer: NodeId,
    /// What is revoked.
    pub target: Target,
    /// Unix time in seconds. For people: nothing depends on it.
    pub issued_at: u64,
}

/// A statement of a member that it leaves. It is final for its certificate and for earlier ones of the same issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resignation {
    /// The member's chain.
    pub chain: Chain,
    /// The serial number of the last certificate that it has issued: later ones are void, those up to it stay valid.
    pub last_serial: u64,
    /// Unix time in seconds. For people: nothing depends on it.
    pub issued_at: u64,
}

/// Why a revocation or a resignation does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// The chain does not show a member of the network.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A signature is wrong.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// Neither the founder nor another inviter of the member.
    #[error("only the network's founder and a member's inviters can revoke its membership")]
    NotEntitled,
}

impl Revocation {
    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.target.chain().network()
    }

    /// Whether the signer stands where the target requires it.
    #[must_use]
    pub fn is_entitled(&self) -> bool {
        match &self.target {
            Target::Certificate(chain) => chain.is_ancestor(&self.issuer),
            Target::Invite(chain, _) => *chain.subject() == self.issuer,
        }
    }

    /// What it takes back; none if its target is the founder, who cannot be revoked.
    #[must_use]
    pub fn revoked(&self) -> Option<Revoked> {
        match &self.target {
            Target::Certificate(chain) => chain.issued().last().map(|(issuer, link)| Revoked::Certificates {
                issuer: *issuer,
                serial: link.serial,
                ranges: link.ranges.clone(),
            }),
            Target::Invite(_, invite) => Some(Revoked::Invite(*invite)),
        }
    }

    /// What it says against chains.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        Some(Verdict::Revoked { by: self.issuer, what: self.revoked()? })
    }

    /// The first certificate of `chain` that it makes void, by its place; none if it says nothing against the chain.
    #[must_use]
    pub fn voids(&self, chain: &Chain) -> Option<usize> {
        self.verdict()?.voids(&chain.path())
    }
}

impl Resignation {
    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.chain.network()
    }

    /// What it says against chains.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let certificate = self.chain.issued().last();
        Verdict::Resigned {
            by: *self.chain.subject(),
            certificate: certificate.map(|(issuer, link)| (*issuer, *link.id(), Box::new((**link).clone()))),
            last_serial: self.last_serial,
        }
    }

    /// The first certificate of `chain` that it makes void, by its place, which is the chain's length where it ends the
    /// founder's own membership; none if it says nothing against the chain.
    #[must_use]
    pub fn voids(&self, chain: &Chain) -> Option<usize> {
        self.verdict().voids(&chain.path())
    }
}

/// What a revocation takes back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// Certificates of this issuer for any of these addresses.
    Certificates {
        /// Who has signed them.
        issuer: NodeId,
        /// The highest serial number that is covered.
        serial: u64,
        /// The addresses.
        ranges: AddressRanges,
    },
    /// Certificates of the signer for users of this invite.
    Invite(InviteId),
}

/// What a verified ending says against chains, without what has proven it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A revocation.
    Revoked {
        /// Its signer.
        by: NodeId,
        /// What it takes back.
        what: Revoked,
    },
    /// A resignation.
    Resigned {
        /// Who leaves.
        by: NodeId,
        /// Its certificate with issuer and id. The founder has none.
        certificate: Option<(NodeId, CertificateId, Box<Delegation>)>,
        /// The serial number of the last certificate that it has issued.
        last_serial: u64,
    },
}

impl Verdict {
    /// Whose certificates it can make void: it says nothing against a chain in which this node neither issues one nor is
    /// the subject of the last.
    #[must_use]
    pub fn about(&self) -> &NodeId {
        match self {
            Self::Revoked { what: Revoked::Certificates { issuer, .. }, .. } => issuer,
            Self::Resigned { certificate: Some((issuer, ..)), .. } => issuer,
            Self::Revoked { by, what: Revoked::Invite(_) } | Self::Resigned { by, certificate: None, .. } => {
                by
            }
        }
    }

    /// The first certificate of a chain that it makes void, by its place, which is the chain's length where it ends the
    /// founder's own membership; none if it says nothing against the chain.
    #[must_use]
    pub fn voids(&self, path: &[Issued<'_>]) -> Option<usize> {
        match self {
            Self::Revoked { by, what } => {
                let mut is_above = false;
                path.iter().position(|Issued { issuer, grant, .. }| {
                    is_above |= *issuer == by;
                    is_above
                        && match what {
                            Revoked::Certificates { issuer: revoked, serial, ranges } => {
                                *issuer == revoked && grant.serial <= *serial && grant.ranges.overlap(ranges)
                            }
                            Revoked::Invite(invite) => *issuer == by && grant.invite == *invite,
                        }
                })
            }
            Self::Resigned { certificate: None, last_serial, .. } => match path.first() {
                None => Some(0),
                Some(first) => (first.grant.serial > *last_serial).then_some(0),
            },
            Self::Resigned { certificate: Some((resigned_issuer, id, resigned)), last_serial, .. } => {
                let last = path.len().saturating_sub(1);
                path.iter().enumerate().find_map(|(at, Issued { issuer, id: other, grant })| {
                    if *issuer != resigned_issuer {
                        return None;
                    }
                    let is_own = grant.subject == resigned.subject;
                    // What it replaced stays replaced.
                    let replaced = resigned.replaces
                        && !is_own
                        && grant.serial < resigned.serial
                        && grant.ranges.overlap(&resigned.ranges);
                    let ended = is_own && at == last && grant.serial <= resigned.serial;
                    let after =
                        path.get(at + 1).filter(|next| *other == id && next.grant.serial > *last_serial);
                    if replaced || ended { Some(at) } else { after.map(|_| at + 1) }
                })
            }
        }
    }
}

impl Codec for Revoked {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Certificates { issuer, serial, ranges } => {
                out.push(0);
                issuer.encode(out);
                out.extend_from_slice(&serial.to_be_bytes());
                ranges.encode(out);
            }
            Self::Invite(invite) => {
                out.push(1);
                invite.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "what is revoked";
        match reader.u8(what)? {
            0 => Ok(Self::Certificates {
                issuer: NodeId::decode(reader)?,
                serial: reader.u64("serial number")?,
                ranges: AddressRanges::decode(reader)?,
            }),
            1 => Ok(Self::Invite(InviteId::decode(reader)?)),
            _ => Err(DecodeError::Invalid { what, why: "unknown kind" }),
        }
    }
}

impl Signed<Revocation> {
    /// Checks the revocation as a member of the network of `charter` must before it acts on it.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn verify_for(&self, charter: &Charter) -> Result<(), RevocationError> {
        if !self.value.is_entitled() {
            return Err(RevocationError::NotEntitled);
        }
        self.verify()?;
        self.value.target.chain().verify(charter)?;
        Ok(())
    }
}

impl Signed<Resignation> {
    /// Checks the resignation as a member of the network of `charter` must before it acts on it.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn verify_for(&self, charter: &Charter) -> Result<(), RevocationError> {
        self.verify()?;
        self.value.chain.verify(charter)?;
        Ok(())
    }
}

impl Signable for Revocation {
    const DOMAIN: &'static str = "i2plan revocation v2";
    const WHAT: &'static str = "revocation";
}

impl SelfSigned for Revocation {
    fn signer(&self) -> &NodeId {
        &self.issuer
    }
}

impl Signable for Resignation {
    const DOMAIN: &'static str = "i2plan resignation v1";
    const WHAT: &'static str = "resignation";
}

impl SelfSigned for Resignation {
    fn signer(&self) -> &NodeId {
        self.chain.subject()
    }
}

impl Codec for Target {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Certificate(chain) => {
                out.push(0);
                chain.encode(out);
            }
            Self::Invite(chain, invite) => {
                out.push(1);
                chain.encode(out);
                invite.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "target of a revocation";
        match reader.u8(what)? {
            0 => Ok(Self::Certificate(Chain::decode(reader)?)),
            1 => Ok(Self::Invite(Chain::decode(reader)?, InviteId::decode(reader)?)),
            _ => Err(DecodeError::Invalid { what, why: "unknown kind" }),
        }
    }
}

impl Codec for Revocation {
    fn encode(&self, out: &mut Vec<u8>) {
        self.issuer.encode(out);
        self.target.encode(out);
        out.extend_from_slice(&self.issued_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            issuer: NodeId::decode(reader)?,
            target: Target::decode(reader)?,
            issued_at: reader.u64("revocation time")?,
        })
    }
}

impl Codec for Resignation {
    fn encode(&self, out: &mut Vec<u8>) {
        self.chain.encode(out);
        out.extend_from_slice(&self.last_serial.to_be_bytes());
        out.extend_from_slice(&self.issued_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            chain: Chain::decode(reader)?,
            last_serial: reader.u64("serial number")?,
            issued_at: reader.u64("resignation time")?,
        })
    }
}

serde_as_bytes!(Revocation, Resignation, Revoked);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::Delegation;
    use crate::testing;

    #[test]
    fn only_inviters_may_revoke() {
        let charter = testing::charter(0);
        for issuer in 0..3 {
            assert_eq!(testing::revocation(issuer, 3).verify_for(&charter), Ok(()), "{issuer}");
        }
        // Neither the member itself, which can leave, nor one below or beside it.
        for issuer in [3, 4, 9] {
            let revocation = testing::revocation(issuer, 3);
            assert_eq!(revocation.verify_for(&charter), Err(RevocationError::NotEntitled), "{issuer}");
        }
        // The founder cannot be revoked: there is no member above it.
        assert_eq!(testing::revocation(0, 0).verify_for(&charter), Err(RevocationError::NotEntitled));
    }

    #[test]
    fn it_is_for_one_network() {
        let error = testing::revocation(1, 3).verify_for(&testing::charter(1));
        assert_eq!(error, Err(RevocationError::Chain(ChainError::WrongNetwork)));
        let error = testing::resignation(3).verify_for(&testing::charter(1));
        assert_eq!(error, Err(RevocationError::Chain(ChainError::WrongNetwork)));
    }

    /// The chain of node 3, which node 2 has certified with this serial number, under another certificate of node 2.
    fn certified(serial: u64, replaces: bool) -> Chain {
        let parent = testing::chain(2);
        let grant = testing::membership(2, 3).value.grant;
        let certificate = parent.certificate(Delegation { serial, replaces, ..grant });
        parent.extended(&testing::signed(certificate, 2)).unwrap()
    }

    #[test]
    fn it_counts_against_chains_that_contain_the_certificate() {
        let revocation = testing::revocation(1, 3).value;
        assert_eq!(revocation.voids(&testing::chain(3)), Some(2));
        assert_eq!(revocation.voids(&testing::chain(5)), Some(2));
        assert_eq!(revocation.voids(&testing::chain(2)), None);
        let serial = testing::chain(3).last().unwrap().serial;
        assert_eq!(revocation.voids(&certified(serial - 1, false)), Some(2));
        assert_eq!(revocation.voids(&certified(serial + 1, false)), None, "a new certificate");
    }

    /// A member that stands below puts together a chain for one that stands above, or beside.
    #[test]
    fn a_certificate_without_its_subjects_consent_revokes_nothing() {
        let attacker = testing::chain(3);
        for victim in [1, 2, 9] {
            let grant =
                Delegation { subject: testing::node(victim), ..testing::membership(3, 4).value.grant };
            let chain = attacker.extended(&testing::signed(attacker.certificate(grant), 3)).unwrap();
            let revocation =
                Revocation { issuer: testing::node(3), target: Target::Certificate(chain), issued_at: 0 };
            for depth in 0..=3 {
                assert_eq!(revocation.voids(&testing::chain(depth)), None, "{victim} {depth}");
            }
        }
    }

    #[test]
    fn an_invite_is_revoked_with_its_users() {
        let chain = testing::chain(1);
        let target = Target::Invite(chain, testing::invite(1).id());
        let revocation = testing::signed(Revocation { issuer: testing::node(1), target, issued_at: 0 }, 1);
        assert_eq!(revocation.verify_for(&testing::charter(0)), Ok(()));
        assert_eq!(revocation.value.voids(&testing::chain(2)), Some(1));
        assert_eq!(revocation.value.voids(&testing::chain(4)), Some(1));
        assert_eq!(revocation.value.voids(&testing::chain(1)), None);
        let other = Revocation { issuer: testing::node(2), ..revocation.value };
        assert!(!other.is_entitled());
    }

    #[test]
    fn a_resignation_ends_one_membership_and_leaves_those_below() {
        let resignation = testing::resignation(2).value;
        assert_eq!(resignation.voids(&testing::chain(2)), Some(1));
        assert_eq!(resignation.voids(&testing::chain(1)), None);
        assert_eq!(resignation.voids(&testing::chain(3)), None);
        // Whom it certifies afterwards, though, is not a member.
        assert_eq!(resignation.voids(&certified(resignation.last_serial + 1, false)), Some(2));
        let founder = testing::resignation(0).value;
        assert_eq!(founder.voids(&testing::chain(0)), Some(0));
        assert_eq!(founder.voids(&testing::chain(1)), None);
    }

    #[test]
    fn whom_a_member_has_invited_stays_when_it_leaves_again() {
        // Node 2 was invited again, and has invited no one since.
        let parent = testing::chain(1);
        let grant = Delegation { serial: 50, ..testing::delegation(1, 2) };
        let again = parent.extended(&testing::signed(parent.certificate(grant), 1)).unwrap();
        let resignation = Resignation { chain: again.clone(), last_serial: 0, issued_at: 0 };
        assert_eq!(resignation.voids(&again), Some(1));
        assert_eq!(resignation.voids(&testing::chain(2)), Some(1));
        assert_eq!(resignation.voids(&testing::chain(3)), None);
    }

    #[test]
    fn who_was_replaced_stays_so_when_the_replacing_member_leaves() {
        let before = testing::chain(3);
        let serial = before.last().unwrap().serial;
        let parent = testing::chain(2);
        let grant = Delegation {
            subject: testing::node(9),
            serial: serial + 1,
            replaces: true,
            ..testing::membership(2, 3).value.grant
        };
        let after = parent.extended(&testing::signed(parent.certificate(grant), 2)).unwrap();
        let resignation = Resignation { chain: after, last_serial: 0, issued_at: 0 };
        assert_eq!(resignation.voids(&before), Some(2));
        assert_eq!(resignation.voids(&certified(serial + 2, false)), None);
    }

    proptest! {
        #[test]
        fn encodings_read_back(issuer: u8, depth in 0u8..=8) {
            testing::round_trips(&testing::revocation(issuer, depth))?;
            testing::round_trips(&testing::resignation(depth))?;
            if let Some(revoked) = testing::revocation(issuer, depth).value.revoked() {
                testing::round_trips(&revoked)?;
            }
            testing::round_trips(&Revoked::Invite(testing::invite(issuer).id()))?;
            let target = Target::Invite(testing::chain(depth), testing::invite(issuer).id());
            testing::round_trips(&Revocation { issuer: testing::node(issuer), target, issued_at: 3 })?;
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            testing::decodes_canonically::<Signed<Revocation>>(&bytes)?;
            testing::decodes_canonically::<Signed<Resignation>>(&bytes)?;
        }

        #[test]
        fn one_flipped_bit_breaks_a_revocation(depth in 1u8..=4, bit: prop::sample::Index) {
            let mut bytes = testing::revocation(0, depth).to_bytes();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = Signed::<Revocation>::from_bytes(&bytes) {
                prop_assert!(flipped.verify_for(&testing::charter(0)).is_err());
            }
        }
    }
}
