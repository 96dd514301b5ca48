//! What a node must remember over a restart, and its form on disk.

use i2plan_proto::codec::{Codec, DecodeError, Reader};
use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::invite::InviteGrant;
use i2plan_proto::liveness::LivenessMessage;
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::record::Record;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use super::addresses::delegations::Delegated;
pub use super::bans::Ban;
pub use super::endings::Ending;
use super::verified::VerifiedRecord;

const MAGIC: &[u8; 12] = b"i2plan state";
const VERSION: u8 = 5;

/// The latest version of which nothing can be taken over: its networks had other charters.
const OUTDATED: u8 = 4;

const SUM_LEN: usize = 32;

/// What a node must remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The node whose state it is.
    pub node: NodeId,
    /// The highest number that it has given to a record, a liveness message or a certificate. It outlasts memberships.
    pub counter: u64,
    /// Its membership, if it is a member of a network.
    pub membership: Option<Membership>,
    /// The membership that others have ended, if it has none since.
    pub former: Option<Former>,
    /// The invites that it has made.
    pub invites: Vec<IssuedInvite>,
    /// The addresses that it has delegated.
    pub delegations: Vec<Delegated>,
    /// The other members.
    pub members: Vec<Remembered>,
    /// How memberships have ended; of a node that has none any more, how its own has.
    pub endings: Vec<Ending>,
    /// The bans.
    pub bans: Vec<Ban>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its record.
    pub record: VerifiedRecord,
    /// Its last liveness message, if that is newer.
    pub liveness_message: Option<Signed<LivenessMessage>>,
    /// When this node learned of it, Unix time in seconds.
    pub created: u64,
    /// When it was last known to be there, Unix time in seconds.
    pub last_seen: Option<u64>,
}

/// A node's place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The network's charter.
    pub charter: Signed<Charter>,
    /// What makes the node a member.
    pub chain: Chain,
    /// The epoch of its WireGuard key; none before the first.
    pub epoch: Option<u32>,
}

/// A membership that others have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// The network.
    pub network: NetworkId,
    /// Who has revoked it; the node itself, if it had left before its state was restored from a backup.
    pub issuer: NodeId,
    /// Whose membership was revoked: the node's own, or that of one of its inviters.
    pub subject: NodeId,
    /// When, Unix time in seconds.
    pub revoked_at: u64,
}

/// An invite that a node has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedInvite {
    /// What `keyd` signed when the invite was made.
    pub grant: Signed<InviteGrant>,
    /// Who has used it; of one without limit the last thousand.
    pub used_by: Vec<NodeId>,
    /// It is not good any more.
    pub revoked: bool,
}

/// Why a file is not a state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// It is something else.
    #[error("it is not a state file of i2plan")]
    Foreign,
    /// It was written by another version.
    #[error("it has version {0}, which this version of i2plan does not know; use the version that wrote it")]
    Version(u8),
    /// It was written by an earlier version, whose networks this one cannot continue.
    #[error(
        "it has version {0}, of an earlier version of i2plan whose networks this one cannot continue; move it away, then found the network anew or join it again"
    )]
    Outdated(u8),
    /// It is not as it was written.
    #[error(
        "it is damaged ({0}); restore it from a backup, or move it away to start as a node without a network"
    )]
    Damaged(&'static str),
    /// It belongs to another identity.
    #[error(
        "it belongs to node {theirs}, but keyd holds the keys of node {ours}; put the matching key store or state in place"
    )]
    OtherNode {
        /// The node of the state, shortened.
        theirs: String,
        /// The node of the key store, shortened.
        ours: String,
    },
}

impl State {
    /// The state of a node that has just come to be.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            counter: 0,
            membership: None,
            former: None,
            invites: Vec::new(),
            delegations: Vec::new(),
            members: Vec::new(),
            endings: Vec::new(),
            bans: Vec::new(),
        }
    }

    /// The file's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        self.node.encode(&mut out);
        out.extend_from_slice(&self.counter.to_be_bytes());
        match &self.membership {
            None => out.push(0),
            Some(membership) => {
                out.push(1);
                membership.charter.encode(&mut out);
                membership.chain.encode(&mut out);
                out.extend_from_slice(&membership.epoch.unwrap_or(0).to_be_bytes());
            }
        }
        out.push(u8::from(self.former.is_some()));
        if let Some(former) = &self.former {
            former.network.encode(&mut out);
            former.issuer.encode(&mut out);
            former.subject.encode(&mut out);
            out.extend_from_slice(&former.revoked_at.to_be_bytes());
        }
        put_all(&mut out, &self.invites, |out, invite| {
            invite.grant.encode(out);
            put_all(out, &invite.used_by, |out, node| node.encode(out));
            out.push(u8::from(invite.revoked));
        });
        put_all(&mut out, &self.delegations, |out, delegated| delegated.encode(out));
        put_all(&mut out, &self.members, |out, member| {
            member.record.encode(out);
            out.push(u8::from(member.liveness_message.is_some()));
            if let Some(liveness_message) = &member.liveness_message {
                liveness_message.encode(out);
            }
            out.extend_from_slice(&member.created.to_be_bytes());
            out.extend_from_slice(&member.last_seen.unwrap_or(0).to_be_bytes());
        });
        put_all(&mut out, &self.endings, |out, ending| ending.encode(out));
        put_all(&mut out, &self.bans, |out, ban| ban.encode(out));
        let sum = Sha256::digest(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// Reads a file's content as the state of `node`. What is in it is trusted no more than the network: records and
    /// endings of memberships that do not verify are left out, and a membership that does not is an error.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn from_bytes(bytes: &[u8], node: &NodeId) -> Result<Self, StateError> {
        if !bytes.starts_with(MAGIC) {
            return Err(StateError::Foreign);
        }
        let (body, sum) =
            bytes.split_last_chunk::<SUM_LEN>().ok_or(StateError::Damaged("it is too short"))?;
        let version = *body.get(MAGIC.len()).ok_or(StateError::Damaged("it is too short"))?;
        if version <= OUTDATED {
            return Err(StateError::Outdated(version));
        }
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        if Sha256::digest(body).as_slice() != sum {
            return Err(StateError::Damaged("its checksum does not match"));
        }
        let mut reader = Reader::new(&body[MAGIC.len() + 1..]);
        let state =
            Self::decode(&mut reader).map_err(|_| StateError::Damaged("its content does not decode"))?;
        reader.finish().map_err(|_| StateError::Damaged("bytes follow its end"))?;
        if state.node != *node {
            return Err(StateError::OtherNode { theirs: state.node.short(), ours: node.short() });
        }
        if let Some(Membership { charter, chain, .. }) = &state.membership {
            let verifies =
                charter.verify().is_ok() && chain.verify(&charter.value).is_ok() && chain.subject() == node;
            if !verifies {
                return Err(StateError::Damaged("its membership does not verify"));
            }
        }
        Ok(state)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let node = NodeId::decode(reader)?;
        let counter = reader.u64("counter")?;
        let membership = match reader.u8("membership")? {
            0 => None,
            _ => Some(Membership {
                charter: Signed::decode(reader)?,
                chain: Chain::decode(reader)?,
                epoch: Some(reader.u32("epoch")?).filter(|epoch| *epoch > 0),
            }),
        };
        let former = if reader.u8("former membership")? != 0 {
            Some(Former {
                network: NetworkId::decode(reader)?,
                issuer: NodeId::decode(reader)?,
                subject: NodeId::decode(reader)?,
                revoked_at: reader.u64("time")?,
            })
        } else {
            None
        };
        let invites = read_all(reader, |reader| {
            Ok(IssuedInvite {
                grant: Signed::decode(reader)?,
                used_by: read_all(reader, NodeId::decode)?,
                revoked: reader.u8("invite")? != 0,
            })
        })?;
        let delegations = read_all(reader, Delegated::decode)?;
        let charter = membership.as_ref().map(|membership: &Membership| &membership.charter.value);
        let members = read_all(reader, |reader| {
            let record: Signed<Record> = Signed::decode(reader)?;
            let liveness_message = match reader.u8("liveness message")? {
                0 => None,
                _ => Some(Signed::decode(reader)?),
            };
            let created = reader.u64("time")?;
            let last_seen = Some(reader.u64("time")?).filter(|time| *time > 0);
            let record = charter.and_then(|charter| VerifiedRecord::new(record, charter).ok());
            Ok(record.map(|record| Remembered { record, liveness_message, created, last_seen }))
        })?;
        let members = members.into_iter().flatten().collect();
        let endings = read_all(reader, Ending::decode)?;
        let is_right = |ending: &Ending| match charter {
            Some(charter) => ending.verify(charter).is_ok(),
            // keyd, which knows the charter, decides what it makes of it.
            None => former.is_some() && ending.is_signed(),
        };
        let most = if membership.is_some() { usize::MAX } else { 1 };
        let endings = endings.into_iter().filter(is_right).take(most).collect();
        let bans = read_all(reader, Ban::decode)?;
        Ok(Self { node, counter, membership, former, invites, delegations, members, endings, bans })
    }
}

fn put_all<T>(out: &mut Vec<u8>, values: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.extend_from_slice(&u32::try_from(values.len()).unwrap_or(u32::MAX).to_be_bytes());
    for value in values {
        put(out, value);
    }
}

fn read_all<T>(
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.u32("count")?;
    // Not reserved in advance: the count alone proves nothing.
    (0..count).map(|_| read(reader)).collect()
}
