//! The datagrams that members send to each other's control destinations.
//!
//! A datagram is a version, whom it is for, a kind and a body. The router has authenticated the sender's destination;
//! what a message claims beyond that is signed by whom it concerns.
//!
//! In a repliable datagram of I2P the sender signs the payload and nothing else ([I2P, Datagrams]): whoever gets one can
//! send it on, to anybody and as often as they like, and to the receiver's router it comes from who has signed it. So each
//! names the destination that it is for, and nobody else takes it.
//!
//! [I2P, Datagrams]: https://geti2p.net/spec/datagrams

use crate::codec::{Codec, DecodeError, Reader, put_list};
use crate::destination::{Destination, DestinationHash};
use crate::identity::{NodeId, Signed, byte_id};
use crate::join::{JoinReply, JoinRequest};
use crate::liveness::LivenessMessage;
use crate::membership::Chain;
use crate::record::Record;
use crate::revocation::{Resignation, Revocation};
use crate::suspicion::Suspicion;

/// Largest control datagram that is sent or accepted, bytes. An I2P tunnel message carries about a kilobyte;
/// four fragments are the most that should be lost together.
pub const MAX_LEN: usize = 4096;

/// What a datagram with gossip is filled to, bytes, unless a single item is longer. With the 455 bytes that a
/// repliable datagram adds it travels in two fragments. Where nothing is lost, on one machine, datagrams of 200 to 8000
/// bytes fare alike (`lab bench --sizes`); elsewhere each fragment is one more that may be.
pub const GOOD_LEN: usize = 1400;

/// Items in one message at most.
pub const MAX_ITEMS: usize = 24;

/// Entries of one list at most.
pub const MAX_ENTRIES: usize = 32;

/// Ranges of one comparison at most.
pub const MAX_RANGES: usize = 32;

const VERSION: u8 = 4;

/// Kinds of messages.
const JOIN_REPLY: u8 = 2;
const GRANT: u8 = 9;

byte_id!(
    /// The first half of the hash of the destination that a datagram is for.
    Addressee,
    16,
    "addressee"
);

impl From<DestinationHash> for Addressee {
    fn from(hash: DestinationHash) -> Self {
        Self(*hash.0.first_chunk().expect("a hash has 32 bytes"))
    }
}

/// Bytes before the kind of a message.
pub const HEADER_LEN: usize = 17;

/// A control datagram as it travels. [`Message::to_datagram`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Whom it is for.
    pub to: Addressee,
    /// What it says.
    pub message: Message,
}

impl Datagram {
    /// Whom a datagram is for, whatever follows.
    ///
    /// # Errors
    /// It is shorter than that, or of another version.
    pub fn addressee(datagram: &[u8]) -> Result<Addressee, DecodeError> {
        read_header(&mut Reader::new(datagram))
    }
}

impl Codec for Datagram {
    fn encode(&self, out: &mut Vec<u8>) {
        put_header(self.to, out);
        self.message.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { to: read_header(reader)?, message: Message::decode(reader)? })
    }
}

fn put_header(to: Addressee, out: &mut Vec<u8>) {
    out.push(VERSION);
    to.encode(out);
}

fn read_header(reader: &mut Reader<'_>) -> Result<Addressee, DecodeError> {
    match reader.u8("control message")? {
        VERSION => Addressee::decode(reader),
        version => Err(DecodeError::Version { what: "control message", version }),
    }
}

/// What a control datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A stranger with an invite asks to become a member.
    JoinRequest(Box<JoinRequest>),
    /// The inviter answers.
    JoinReply(JoinReply),
    /// News for the receiver.
    News(Gossip),
    /// The sender asks whether the receiver is there, by an [`Message::Ack`] with this number.
    Ping(u64, Gossip),
    /// The sender is there: the answer to a ping; or: the node that was to be pinged is there.
    Ack(u64, Gossip),
    /// The receiver is to ping a member that the sender cannot reach, and to answer with an [`Message::Ack`] with
    /// this number when that has answered.
    PingRequest(u64, NodeId, Gossip),
    /// The sender compares what it knows with what the receiver knows.
    Compare(Vec<Range>, Gossip),
    /// The sender wants what the receiver has that is newer than this.
    Want(Vec<Entry>),
    /// The sender, who has invited the receiver, has delegated more addresses to it: the receiver's chain with its new
    /// certificate.
    Grant(Box<Chain>),
}

/// News, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gossip {
    /// What the sender has, for the receiver to ask for if that is news.
    pub entries: Vec<Entry>,
    /// What the receiver may not have.
    pub items: Vec<Item>,
}

/// Something signed that spreads through the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// What a member says of itself.
    Record(Box<Signed<Record>>),
    /// A liveness message of a member.
    Liveness(Signed<LivenessMessage>),
    /// A member's suspicion that another cannot be reached.
    Suspicion(Signed<Suspicion>),
    /// The end of a membership by one who stands above the member.
    Revocation(Box<Signed<Revocation>>),
    /// The end of a membership by the member.
    Resignation(Box<Signed<Resignation>>),
}

/// How much a member knows of a member, or that it knows how a membership has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Of whom; of the end of a membership its own id.
    pub node: NodeId,
    /// The sequence number of its newest record; 0 for none.
    pub record: u64,
    /// The sequence number of its newest liveness message, if that is newer than the record; 0 for none.
    pub liveness: u64,
    /// It is the end of a membership, which has no sequence numbers.
    pub ended: bool,
}

impl Entry {
    /// Its place among all entries.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { ended: self.ended, node: self.node }
    }
}

/// A place in the order in which entries are compared: members by their ids, then the ends of memberships by theirs.
/// Members can end many memberships that they have made up; that does not make it harder to find who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// It is the end of a membership.
    pub ended: bool,
    /// The id of the node or the end.
    pub node: NodeId,
}

impl Position {
    /// Where the ends of memberships begin.
    pub const ENDINGS: Self = Self { ended: true, node: NodeId([0; 32]) };

    /// Of a member.
    #[must_use]
    pub const fn member(node: NodeId) -> Self {
        Self { ended: false, node }
    }

    /// Of the end of a membership.
    #[must_use]
    pub const fn ending(id: NodeId) -> Self {
        Self { ended: true, node: id }
    }
}

/// A part of all entries, from where the range before ended (at first from the beginning), and what the sender has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first position after it; none where it reaches to the end.
    pub end: Option<Position>,
    /// What the sender has.
    pub content: Content,
}

/// What a member has in a [`Range`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing is said of it.
    Skip,
    /// How much it is, and the sum of it.
    Fingerprint {
        /// Entries.
        count: u16,
        /// Of their fingerprints.
        sum: [u8; 16],
    },
    /// Everything, entry by entry.
    Entries(Vec<Entry>),
}

impl Codec for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
        out.push(u8::from(self.liveness > 0) | u8::from(self.ended) << 1);
        out.extend_from_slice(&self.record.to_be_bytes());
        if self.liveness > 0 {
            out.extend_from_slice(&self.liveness.to_be_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "entry";
        let node = NodeId::decode(reader)?;
        let flags = reader.u8(what)?;
        if flags > 3 {
            return Err(DecodeError::Invalid { what, why: "unknown flags" });
        }
        let record = reader.u64("sequence number")?;
        let liveness = if flags & 1 == 0 { 0 } else { reader.u64("sequence number")? };
        if flags & 1 == 1 && liveness == 0 {
            return Err(DecodeError::Invalid { what, why: "a liveness message without a number" });
        }
        Ok(Self { node, record, liveness, ended: flags & 2 == 2 })
    }
}

impl Codec for Item {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Record(record) => {
                out.push(1);
                record.encode(out);
            }
            Self::Liveness(liveness_message) => {
                out.push(2);
                liveness_message.encode(out);
            }
            Self::Suspicion(suspicion) => {
                out.push(3);
                suspicion.encode(out);
            }
            Self::Revocation(revocation) => {
                out.push(4);
                revocation.encode(out);
            }
            Self::Resignation(resignation) => {
                out.push(5);
                resignation.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "item";
        Ok(match reader.u8(what)? {
            1 => Self::Record(Box::new(Signed::decode(reader)?)),
            2 => Self::Liveness(Signed::decode(reader)?),
            3 => Self::Suspicion(Signed::decode(reader)?),
            4 => Self::Revocation(Box::new(Signed::decode(reader)?)),
            5 => Self::Resignation(Box::new(Signed::decode(reader)?)),
            _ => return Err(DecodeError::Invalid { what, why: "unknown kind" }),
        })
    }
}

impl Codec for Gossip {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.entries);
        put_list(out, &self.items);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { entries: reader.list(MAX_ENTRIES, "entries")?, items: reader.list(MAX_ITEMS, "items")? })
    }
}

impl Codec for Range {
    fn encode(&self, out: &mut Vec<u8>) {
        let kind = match &self.content {
            Content::Skip => 0,
            Content::Fingerprint { .. } => 1,
            Content::Entries(_) => 2,
        };
        let ended = self.end.is_some_and(|end| end.ended);
        out.push(kind | u8::from(self.end.is_none()) << 2 | u8::from(ended) << 3);
        if let Some(end) = &self.end {
            end.node.encode(out);
        }
        match &self.content {
            Content::Skip => {}
            Content::Fingerprint { count, sum } => {
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(sum);
            }
            Content::Entries(entries) => put_list(out, entries),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "range";
        let kind = reader.u8(what)?;
        let end = match kind & 12 {
            4 => None,
            0 | 8 => Some(Position { ended: kind & 8 == 8, node: NodeId::decode(reader)? }),
            _ => return Err(DecodeError::Invalid { what, why: "an end that is none" }),
        };
        let content = match kind & !12 {
            0 => Content::Skip,
            1 => Content::Fingerprint { count: reader.u16("count")?, sum: reader.array("fingerprint")? },
            2 => Content::Entries(reader.list(MAX_ENTRIES, "entries")?),
            _ => return Err(DecodeError::Invalid { what, why: "unknown kind" }),
        };
        Ok(Self { end, content })
    }
}

/// Ranges follow each other.
fn read_ranges(reader: &mut Reader<'_>) -> Result<Vec<Range>, DecodeError> {
    let ranges: Vec<Range> = reader.list(MAX_RANGES, "ranges")?;
    let follows = |pair: &[Range]| match (pair[0].end, pair[1].end) {
        (Some(first), Some(second)) => first < second,
        (first, _) => first.is_some(),
    };
    if !ranges.windows(2).all(follows) {
        return Err(DecodeError::Invalid { what: "ranges", why: "one does not follow the other" });
    }
    Ok(ranges)
}

impl Message {
    /// The datagram that takes it to a destination.
    #[must_use]
    pub fn to_datagram(&self, to: &Destination) -> Vec<u8> {
        let mut datagram = Vec::new();
        put_header(to.hash().into(), &mut datagram);
        self.encode(&mut datagram);
        datagram
    }

    /// News for the receiver, in full.
    #[must_use]
    pub const fn news(items: Vec<Item>) -> Self {
        Self::News(Gossip { entries: Vec::new(), items })
    }

    /// The news that it carries.
    #[must_use]
    pub const fn gossip(&self) -> Option<&Gossip> {
        match self {
            Self::News(gossip)
            | Self::Ping(_, gossip)
            | Self::Ack(_, gossip)
            | Self::PingRequest(_, _, gossip)
            | Self::Compare(_, gossip) => Some(gossip),
            Self::JoinRequest(_) | Self::JoinReply(_) | Self::Want(_) | Self::Grant(_) => None,
        }
    }

    /// Whether an encoded datagram promises something that its sender must not forget: a membership, or addresses.
    #[must_use]
    pub fn is_promise(datagram: &[u8]) -> bool {
        matches!(datagram.get(HEADER_LEN), Some(&(JOIN_REPLY | GRANT)))
    }

    /// What to call its kind in statistics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JoinRequest(_) => "join-request",
            Self::JoinReply(_) => "join-reply",
            Self::News(_) => "news",
            Self::Ping(..) => "ping",
            Self::Ack(..) => "ack",
            Self::PingRequest(..) => "ping-request",
            Self::Compare(..) => "compare",
            Self::Want(_) => "want",
            Self::Grant(_) => "grant",
        }
    }
}

impl Codec for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::JoinRequest(request) => {
                out.push(1);
                request.encode(out);
            }
            Self::JoinReply(reply) => {
                out.push(JOIN_REPLY);
                reply.encode(out);
            }
            Self::News(gossip) => {
                out.push(3);
                gossip.encode(out);
            }
            Self::Ping(number, gossip) => {
                out.push(4);
                out.extend_from_slice(&number.to_be_bytes());
                gossip.encode(out);
            }
            Self::Ack(number, gossip) => {
                out.push(5);
                out.extend_from_slice(&number.to_be_bytes());
                gossip.encode(out);
            }
            Self::PingRequest(number, node, gossip) => {
                out.push(6);
                out.extend_from_slice(&number.to_be_bytes());
                node.encode(out);
                gossip.encode(out);
            }
            Self::Compare(ranges, gossip) => {
                out.push(7);
                put_list(out, ranges);
                gossip.encode(out);
            }
            Self::Want(entries) => {
                out.push(8);
                put_list(out, entries);
            }
            Self::Grant(chain) => {
                out.push(GRANT);
                chain.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "control message";
        Ok(match reader.u8(what)? {
            1 => Self::JoinRequest(Box::new(JoinRequest::decode(reader)?)),
            JOIN_REPLY => Self::JoinReply(JoinReply::decode(reader)?),
            3 => Self::News(Gossip::decode(reader)?),
            4 => Self::Ping(reader.u64("number")?, Gossip::decode(reader)?),
            5 => Self::Ack(reader.u64("number")?, Gossip::decode(reader)?),
            6 => Self::PingRequest(reader.u64("number")?, NodeId::decode(reader)?, Gossip::decode(reader)?),
            7 => Self::Compare(read_ranges(reader)?, Gossip::decode(reader)?),
            8 => Self::Want(reader.list(MAX_ENTRIES, "entries")?),
            GRANT => Self::Grant(Box::new(Chain::decode(reader)?)),
            _ => return Err(DecodeError::Invalid { what, why: "unknown kind" }),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::destination::{DestinationProof, DestinationRole};
    use crate::identity::Signable as _;
    use crate::join::Welcome;
    use crate::membership::MAX_DEPTH;
    use crate::revocation::Target;
    use crate::testing;

    #[test]
    fn the_largest_messages_fit_a_datagram() {
        let len = |message: &Message| message.to_datagram(&testing::destination(1)).len();
        let entry = Entry { node: testing::node(1), record: u64::MAX, liveness: u64::MAX, ended: true };
        let entries = vec![entry; MAX_ENTRIES];
        assert!(len(&Message::Want(entries.clone())) <= MAX_LEN);
        let largest = testing::largest_record();
        assert_eq!(largest.value.chain.depth(), MAX_DEPTH);
        assert_eq!(largest.verify_for(&testing::charter(0)), Ok(()));
        let record = Item::Record(Box::new(largest.clone()));
        // Gossip is filled to GOOD_LEN, unless a single item is longer.
        let gossip = Gossip { entries: vec![entry; 8], items: vec![record] };
        assert!(len(&Message::PingRequest(1, testing::node(1), gossip)) <= MAX_LEN);
        let gossip = Gossip { entries, items: Vec::new() };
        assert!(len(&Message::PingRequest(1, testing::node(1), gossip)) <= MAX_LEN);
        let range = Range {
            end: Some(Position::member(testing::node(1))),
            content: Content::Fingerprint { count: 1, sum: [1; 16] },
        };
        assert!(len(&Message::Compare(vec![range; MAX_RANGES], Gossip::default())) <= MAX_LEN);
        let chain = largest.value.chain.clone();
        let target = Target::Certificate(chain.clone());
        let revocation = Revocation { issuer: testing::node(0), target, issued_at: 0 };
        let resignation = Resignation { chain: chain.clone(), last_serial: u64::MAX, issued_at: 0 };
        let deepest = u8::try_from(MAX_DEPTH).unwrap();
        for item in [
            Item::Revocation(Box::new(testing::signed(revocation, 0))),
            Item::Resignation(Box::new(testing::signed(resignation, deepest))),
        ] {
            assert!(len(&Message::news(vec![item])) <= MAX_LEN);
        }
        assert!(len(&Message::Grant(Box::new(chain.clone()))) <= MAX_LEN);
        // What is common fits what travels well.
        let record = Item::Record(Box::new(testing::record(3)));
        let news = Gossip { entries: Vec::new(), items: vec![record] };
        assert!(len(&Message::News(news)) <= GOOD_LEN);
        // The longest welcome: by a member of depth seven, whose record cannot be larger than the largest.
        let welcome = Welcome { charter: testing::signed_charter(0), chain, records: vec![largest] };
        assert!(len(&Message::JoinReply(JoinReply::Welcome(Box::new(welcome)))) <= MAX_LEN);
    }

    #[test]
    fn no_signed_structure_begins_like_a_control_message() {
        // A destination signs the payload of its datagrams, and proofs, with the same key.
        let proof = DestinationProof {
            network: testing::charter(0).network(),
            node: testing::node(1),
            role: DestinationRole::Primary,
            destination: testing::destination(1),
        };
        assert_eq!(proof.signed_bytes()[0], b'i');
        // No letter begins a control message.
        const { assert!(VERSION < 32) };
    }

    #[test]
    fn a_later_version_is_named() {
        assert!(matches!(Datagram::from_bytes(&[9, 1]), Err(DecodeError::Version { version: 9, .. })));
    }

    #[test]
    fn whom_it_is_for_is_read_before_all_else() {
        let to = testing::destination(1);
        let datagram = Message::Ping(7, Gossip::default()).to_datagram(&to);
        assert_eq!(Datagram::addressee(&datagram), Ok(to.hash().into()));
        assert_eq!(Datagram::addressee(&datagram[..HEADER_LEN]), Ok(to.hash().into()));
        assert!(matches!(
            Datagram::addressee(&datagram[..HEADER_LEN - 1]),
            Err(DecodeError::Truncated { .. })
        ));
        let read = Datagram::from_bytes(&datagram).unwrap();
        assert_eq!(read, Datagram { to: to.hash().into(), message: Message::Ping(7, Gossip::default()) });
        assert_eq!(read.to_bytes(), datagram);
    }

    #[test]
    fn ranges_that_do_not_follow_each_other_do_not_decode() {
        let end = |end: u8| Position { ended: end > 10, node: NodeId([end % 10; 32]) };
        let range = |at: Option<u8>| Range { end: at.map(end), content: Content::Skip };
        for (ends, good) in [
            (vec![Some(1), Some(2), None], true),
            (vec![Some(2), Some(11), Some(12)], true),
            (vec![Some(11), Some(2)], false),
            (vec![Some(1), Some(1)], false),
            (vec![Some(2), Some(1)], false),
            (vec![None, Some(1)], false),
            (vec![None, None], false),
        ] {
            let message = Message::Compare(ends.into_iter().map(range).collect(), Gossip::default());
            assert_eq!(Message::from_bytes(&message.to_bytes()).is_ok(), good, "{message:?}");
        }
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (testing::any_node(), any::<u64>(), any::<u64>(), any::<bool>())
            .prop_map(|(node, record, liveness, ended)| Entry { node, record, liveness, ended })
    }

    fn item() -> impl Strategy<Value = Item> {
        (0u8..5, 0u8..8).prop_map(|(kind, seed)| match kind {
            0 => Item::Record(Box::new(testing::record(seed))),
            1 => Item::Liveness(testing::liveness_message(seed)),
            2 => Item::Suspicion(testing::suspicion(seed, 1)),
            3 => Item::Resignation(Box::new(testing::resignation(seed))),
            _ => Item::Revocation(Box::new(testing::revocation(0, seed))),
        })
    }

    fn gossip() -> impl Strategy<Value = Gossip> {
        let entries = prop::collection::vec(entry(), 0..=MAX_ENTRIES);
        (entries, prop::collection::vec(item(), 0..4)).prop_map(|(entries, items)| Gossip { entries, items })
    }

    fn ranges() -> impl Strategy<Value = Vec<Range>> {
        let content = prop_oneof![
            Just(Content::Skip),
            any::<(u16, [u8; 16])>().prop_map(|(count, sum)| Content::Fingerprint { count, sum }),
            prop::collection::vec(entry(), 0..4).prop_map(Content::Entries),
        ];
        let position = any::<(bool, [u8; 32])>().prop_map(|(ended, id)| Position { ended, node: NodeId(id) });
        let ends = prop::collection::btree_map(position, content, 0..5);
        (ends, any::<bool>()).prop_map(|(ends, open)| {
            let mut ranges: Vec<_> =
                ends.into_iter().map(|(end, content)| Range { end: Some(end), content }).collect();
            if let Some(last) = ranges.last_mut().filter(|_| open) {
                last.end = None;
            }
            ranges
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (0u8..8).prop_map(|depth| Message::JoinRequest(Box::new(testing::join_request(depth)))),
            (0u8..8).prop_map(|depth| Message::JoinReply(testing::welcome(depth))),
            gossip().prop_map(Message::News),
            (any::<u64>(), gossip()).prop_map(|(number, gossip)| Message::Ping(number, gossip)),
            (any::<u64>(), gossip()).prop_map(|(number, gossip)| Message::Ack(number, gossip)),
            (any::<u64>(), testing::any_node(), gossip())
                .prop_map(|(number, node, gossip)| Message::PingRequest(number, node, gossip)),
            (ranges(), gossip()).prop_map(|(ranges, gossip)| Message::Compare(ranges, gossip)),
            prop::collection::vec(entry(), 0..=MAX_ENTRIES).prop_map(Message::Want),
            (0u8..8).prop_map(|depth| Message::Grant(Box::new(testing::chain(depth)))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn encodings_read_back(message in message()) {
            testing::round_trips(&message)?;
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(kind in 0u8..11, bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            testing::decodes_canonically::<Message>(&bytes)?;
            testing::decodes_canonically::<Message>(&[&[VERSION, kind], bytes.as_slice()].concat())?;
        }
    }
}
