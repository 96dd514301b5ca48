//! The exchange by which an invite becomes a membership.
//!
//! The joiner sends a [`JoinRequest`] to the inviter's control destination and repeats it until it is
//! answered; the inviter answers every repetition alike. The request carries two signatures over the same
//! body: the invite's, which proves that the joiner holds the invite, and the joiner's own, which proves that
//! it holds the identity that is to become a member. The body names the destination that it comes from, so that
//! a request that somebody else sends again leads nowhere. A joiner may ask from several of its own.

use std::fmt;

use ed25519_dalek::SigningKey;

use crate::codec::{Codec, DecodeError, Reader, put_list, serde_as_bytes};
use crate::destination::DestinationHash;
use crate::identity::{BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signature, Signed};
use crate::invite::InviteKey;
use crate::membership::{Chain, Charter};
use crate::record::Record;

/// Records that a reply carries at most: enough to start with, the rest comes by gossip.
pub const MAX_RECORDS: usize = 3;

/// What a joiner signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinBody {
    /// The network to join.
    pub network: NetworkId,
    /// The member whose invite it is.
    pub inviter: NodeId,
    /// The invite.
    pub invite: InviteKey,
    /// Who wants to join.
    pub joiner: NodeId,
    /// Whence the request comes and whither the reply goes.
    pub control: DestinationHash,
    /// Unix time in seconds.
    pub issued_at: u64,
}

impl Signable for JoinBody {
    const DOMAIN: &'static str = "i2plan join v1";
    const WHAT: &'static str = "join request";
}

impl SelfSigned for JoinBody {
    fn signer(&self) -> &NodeId {
        &self.joiner
    }
}

impl JoinBody {
    /// The proof of holding the invite.
    #[must_use]
    pub fn prove(&self, secret: &SigningKey) -> Signature {
        Proof(self.clone()).sign(secret)
    }
}

/// The same body under the domain of the invite's proof.
struct Proof(JoinBody);

impl Signable for Proof {
    const DOMAIN: &'static str = "i2plan invite proof v1";
    const WHAT: &'static str = "proof of holding the invite";
}

impl Codec for Proof {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        JoinBody::decode(reader).map(Self)
    }
}

impl Codec for JoinBody {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.inviter.encode(out);
        self.invite.encode(out);
        self.joiner.encode(out);
        self.control.encode(out);
        out.extend_from_slice(&self.issued_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            inviter: NodeId::decode(reader)?,
            invite: InviteKey::decode(reader)?,
            joiner: NodeId::decode(reader)?,
            control: DestinationHash::decode(reader)?,
            issued_at: reader.u64("request time")?,
        })
    }
}

serde_as_bytes!(JoinBody);

/// A request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Signed by the joiner.
    pub body: Signed<JoinBody>,
    /// The invite's signature on the body.
    pub proof: Signature,
}

impl JoinRequest {
    /// Checks both signatures.
    ///
    /// # Errors
    /// [`BadSignature`] naming the one that is wrong.
    pub fn verify(&self) -> Result<(), BadSignature> {
        let body = &self.body.value;
        Proof(body.clone()).verify(&NodeId(body.invite.0), &self.proof)?;
        self.body.verify()
    }
}

impl Codec for JoinRequest {
    fn encode(&self, out: &mut Vec<u8>) {
        self.body.encode(out);
        self.proof.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { body: Signed::decode(reader)?, proof: Signature::decode(reader)? })
    }
}

serde_as_bytes!(JoinRequest);

/// Why an inviter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It never made this invite.
    Unknown,
    /// The invite is past its time.
    Expired,
    /// The invite has been used as often as it may.
    UsedUp,
    /// The inviter's own chain is as long as a chain may be.
    TooDeep,
    /// The inviter cannot answer now; the joiner may try again.
    Busy,
    /// The inviter has revoked the invite.
    Revoked,
    /// The inviter has no addresses left to delegate.
    NoAddresses,
    /// The joiner is one of the inviter's own inviters.
    Above,
}

impl Refusal {
    const ALL: [(Self, u8); 8] = [
        (Self::Unknown, 1),
        (Self::Expired, 2),
        (Self::UsedUp, 3),
        (Self::TooDeep, 4),
        (Self::Busy, 5),
        (Self::NoAddresses, 6),
        (Self::Revoked, 7),
        (Self::Above, 8),
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the inviter does not know this invite; ask for a new one",
            Self::Expired => "the invite has expired; ask for a new one",
            Self::UsedUp => "the invite has been used as often as it may; ask for a new one",
            Self::TooDeep => "the inviter is too far from the founder to invite; ask a member nearer to it",
            Self::Busy => "the inviter cannot answer now; try again in a minute",
            Self::Revoked => "the invite was revoked; ask for a new one",
            Self::Above => {
                "this node is one of the inviter's own inviters and cannot join below itself; ask a member that it has not invited"
            }
            Self::NoAddresses => {
                "the inviter has no addresses left to delegate; ask it, or another member, for a new invite"
            }
        })
    }
}

/// What a new member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The network's charter.
    pub charter: Signed<Charter>,
    /// The new member's own chain.
    pub chain: Chain,
    /// The inviter's record, and others as far as there is room.
    pub records: Vec<Signed<Record>>,
}

/// The inviter's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinReply {
    /// Come in.
    Welcome(Box<Welcome>),
    /// No.
    Refused {
        /// The invite that was named in the request.
        invite: InviteKey,
        /// Why not.
        refusal: Refusal,
    },
}

impl Codec for JoinReply {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(welcome) => {
                out.push(0);
                welcome.charter.encode(out);
                welcome.chain.encode(out);
                put_list(out, &welcome.records);
            }
            Self::Refused { invite, refusal } => {
                out.push(Refusal::ALL.iter().find(|(this, _)| this == refusal).map_or(0, |(_, code)| *code));
                invite.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "join reply";
        match reader.u8(what)? {
            0 => Ok(Self::Welcome(Box::new(Welcome {
                charter: Signed::decode(reader)?,
                chain: Chain::decode(reader)?,
                records: reader.list(MAX_RECORDS, "records")?,
            }))),
            code => {
                let known = Refusal::ALL.iter().find(|(_, known)| *known == code);
                let (refusal, _) = known.ok_or(DecodeError::Invalid { what, why: "unknown refusal" })?;
                Ok(Self::Refused { invite: InviteKey::decode(reader)?, refusal: *refusal })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    #[test]
    fn both_signatures_count() {
        let request = testing::join_request(1);
        assert_eq!(request.verify(), Ok(()));

        let mut unproven = request.clone();
        unproven.proof = request.body.signature;
        assert_eq!(unproven.verify(), Err(BadSignature { what: "proof of holding the invite" }));

        let mut unsigned = request.clone();
        unsigned.body.signature = request.proof;
        assert_eq!(unsigned.verify(), Err(BadSignature { what: "join request" }));
    }

    proptest! {
        #[test]
        fn encodings_read_back(depth in 0u8..8) {
            testing::round_trips(&testing::join_request(depth))?;
            testing::round_trips(&testing::welcome(depth))?;
            for (refusal, _) in Refusal::ALL {
                testing::round_trips(&JoinReply::Refused { invite: testing::invite(depth).secret.key(), refusal })?;
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            testing::decodes_canonically::<JoinRequest>(&bytes)?;
            testing::decodes_canonically::<JoinReply>(&bytes)?;
        }
    }
}
