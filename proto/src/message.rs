//! The datagrams that members send to each other's control destinations.
//!
//! A datagram is a version, a kind and a body. The router has authenticated the sender's destination; what a
//! message claims beyond that is signed by whom it concerns.

use crate::codec::{Codec, DecodeError, Reader, put_list};
use crate::identity::{NodeId, Signed};
use crate::join::{JoinReply, JoinRequest};
use crate::record::Record;

/// Largest control datagram that is sent or accepted, bytes. An I2P tunnel message carries about a kilobyte;
/// four fragments are the most that should be lost together.
pub const MAX_LEN: usize = 4096;

/// Records in one message at most.
pub const MAX_RECORDS: usize = 4;

/// Entries of one digest at most.
pub const MAX_DIGEST: usize = 48;

const VERSION: u8 = 1;

/// A control datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A stranger with an invite asks to become a member.
    JoinRequest(Box<JoinRequest>),
    /// The inviter answers.
    JoinReply(JoinReply),
    /// Records that the receiver may not have, in no order.
    Records(Vec<Signed<Record>>),
    /// Which records the sender has, a part of them or all.
    Digest(Digest),
}

/// Which records a member has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The sender has no other records than these, so the receiver may send what is missing here.
    pub complete: bool,
    /// Node and sequence number of each record.
    pub entries: Vec<DigestEntry>,
}

/// One line of a [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestEntry {
    /// Whose record.
    pub node: NodeId,
    /// Its sequence number.
    pub sequence: u64,
}

impl Codec for DigestEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
        out.extend_from_slice(&self.sequence.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { node: NodeId::decode(reader)?, sequence: reader.u64("sequence number")? })
    }
}

impl Codec for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Self::JoinRequest(request) => {
                out.push(1);
                request.encode(out);
            }
            Self::JoinReply(reply) => {
                out.push(2);
                reply.encode(out);
            }
            Self::Records(records) => {
                out.push(3);
                put_list(out, records);
            }
            Self::Digest(digest) => {
                out.push(4);
                out.push(u8::from(digest.complete));
                put_list(out, &digest.entries);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "control message";
        match reader.u8(what)? {
            VERSION => {}
            version => return Err(DecodeError::Version { what, version }),
        }
        Ok(match reader.u8(what)? {
            1 => Self::JoinRequest(Box::new(JoinRequest::decode(reader)?)),
            2 => Self::JoinReply(JoinReply::decode(reader)?),
            3 => Self::Records(reader.list(MAX_RECORDS, "records")?),
            4 => Self::Digest(Digest {
                complete: match reader.u8("digest")? {
                    0 => false,
                    1 => true,
                    _ => {
                        return Err(DecodeError::Invalid {
                            what: "digest",
                            why: "neither complete nor partial",
                        });
                    }
                },
                entries: reader.list(MAX_DIGEST, "digest")?,
            }),
            _ => return Err(DecodeError::Invalid { what, why: "unknown kind" }),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::MAX_DEPTH;
    use crate::testing;

    #[test]
    fn the_largest_messages_fit_a_datagram() {
        let deepest = u8::try_from(MAX_DEPTH).unwrap();
        let entries = vec![DigestEntry { node: testing::node(1), sequence: u64::MAX }; MAX_DIGEST];
        assert!(Message::Digest(Digest { complete: false, entries }).to_bytes().len() <= MAX_LEN);
        assert!(Message::Records(vec![testing::record(deepest); 2]).to_bytes().len() <= MAX_LEN);
        assert!(Message::Records(vec![testing::record(1); MAX_RECORDS]).to_bytes().len() <= MAX_LEN);
        let JoinReply::Welcome(mut welcome) = testing::welcome(deepest) else { unreachable!() };
        welcome.records.truncate(1);
        assert!(Message::JoinReply(JoinReply::Welcome(welcome)).to_bytes().len() <= MAX_LEN);
    }

    #[test]
    fn a_later_version_is_named() {
        assert!(matches!(Message::from_bytes(&[9, 1]), Err(DecodeError::Version { version: 9, .. })));
    }

    proptest! {
        #[test]
        fn encodings_read_back(depth in 0u8..8, count in 0usize..=MAX_RECORDS, complete: bool) {
            testing::round_trips(&Message::JoinRequest(Box::new(testing::join_request(depth))))?;
            testing::round_trips(&Message::JoinReply(testing::welcome(depth)))?;
            testing::round_trips(&Message::Records(vec![testing::record(depth); count]))?;
            let entry = DigestEntry { node: testing::node(depth), sequence: 5 };
            testing::round_trips(&Message::Digest(Digest { complete, entries: vec![entry; count] }))?;
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(kind in 0u8..6, bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            testing::decodes_canonically::<Message>(&bytes)?;
            testing::decodes_canonically::<Message>(&[&[VERSION, kind], bytes.as_slice()].concat())?;
        }
    }
}
