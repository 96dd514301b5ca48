//! A control datagram: the message and everything in it.

use i2plan_proto::codec::DecodeError;
use i2plan_proto::identity::Signed;
use i2plan_proto::join::{self, JoinReply, JoinRequest, Refusal};
use i2plan_proto::message::{
    Content, Datagram, Entry, Gossip, Item, MAX_ENTRIES, MAX_ITEMS, MAX_RANGES, Message, Position, Range,
};
use i2plan_proto::record::Record;
use i2plan_testing as testing;

use crate::{Seeds, certificate, record, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    let addressee = Datagram::addressee(input);
    if let Err(DecodeError::Version { version, .. }) = addressee {
        assert_eq!(Some(&version), input.first());
        assert_ne!(version, 4);
    }
    let datagram = testing::decode_canonically::<Datagram>(input);
    if let Some(Datagram { to, .. }) = datagram {
        assert_eq!(Ok(to), addressee);
    }
    match datagram.map(|datagram| datagram.message) {
        None => {}
        Some(Message::JoinRequest(request)) => check_request(&request),
        Some(Message::JoinReply(JoinReply::Refused { refusal, .. })) => {
            assert!(!refusal.to_string().contains('\n'));
        }
        Some(Message::JoinReply(JoinReply::Welcome(welcome))) => {
            assert!(welcome.records.len() <= join::MAX_RECORDS);
            let _ = (welcome.charter.verify(), welcome.chain.verify(&welcome.charter.value));
            check_records(&welcome.records);
        }
        Some(
            Message::News(gossip)
            | Message::Ping(_, gossip)
            | Message::Ack(_, gossip)
            | Message::PingRequest(_, _, gossip),
        ) => check_gossip(&gossip),
        Some(Message::Compare(ranges, gossip)) => {
            check_gossip(&gossip);
            assert!(ranges.len() <= MAX_RANGES);
            let ends: Vec<_> = ranges.iter().map(|range| (range.end.is_none(), range.end)).collect();
            assert!(ends.is_sorted(), "ranges that do not follow each other");
        }
        Some(Message::Want(entries)) => assert!(entries.len() <= MAX_ENTRIES),
        Some(Message::Grant(chain)) => drop(chain.verify(&testing::charter(0))),
    }
}

/// A request that verifies is one that its joiner has signed, bit for bit.
fn check_request(request: &JoinRequest) {
    if request.verify().is_ok() {
        let known = (0..16).map(testing::join_request).any(|known| known == *request);
        assert!(known, "a request was forged");
    }
}

/// What verifies is what its signer has signed, bit for bit.
fn check_gossip(gossip: &Gossip) {
    assert!(gossip.entries.len() <= MAX_ENTRIES && gossip.items.len() <= MAX_ITEMS);
    let charter = testing::charter(0);
    for item in &gossip.items {
        match item {
            Item::Record(signed) => record::check(signed),
            Item::Liveness(liveness_message) if liveness_message.verify().is_ok() => {
                assert!(
                    (0..16).map(testing::liveness_message).any(|known| known == *liveness_message),
                    "a liveness message was forged"
                );
            }
            Item::Suspicion(suspicion) if suspicion.verify().is_ok() => {
                let mut known = (0..16).map(|confirmer| testing::suspicion(confirmer, 1));
                assert!(known.any(|known| known == *suspicion), "a suspicion was forged");
            }
            Item::Revocation(revocation) if revocation.verify_for(&charter).is_ok() => {
                assert!(certificate::is_known_revocation(revocation), "a revocation was forged");
            }
            Item::Resignation(resignation) if resignation.verify_for(&charter).is_ok() => {
                let mut known = (0..=8).map(testing::resignation);
                assert!(known.any(|known| known == **resignation), "a resignation was forged");
            }
            Item::Liveness(_) | Item::Suspicion(_) | Item::Revocation(_) | Item::Resignation(_) => {}
        }
    }
}

fn check_records(records: &[Signed<Record>]) {
    for signed in records {
        record::check(signed);
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = vec![seed("later", [9, 1])];
    let mut put =
        |name: &str, message: Message| seeds.push(seed(name, message.to_datagram(&testing::destination(1))));
    put("join", Message::JoinRequest(Box::new(testing::join_request(1))));
    put("welcome", Message::JoinReply(testing::welcome(2)));
    let invite = testing::invite(1).secret.key();
    for refusal in [Refusal::Unknown, Refusal::Busy, Refusal::NoAddresses] {
        put(&format!("refused-{refusal:?}"), Message::JoinReply(JoinReply::Refused { invite, refusal }));
    }
    let record = |seed| Item::Record(Box::new(testing::record(seed)));
    let news = Message::news;
    put("records", news((0..3).map(record).collect()));
    put("news-none", news(vec![]));
    put("pulses", news((0..3).map(|seed| Item::Liveness(testing::liveness_message(seed))).collect()));
    put("accusations", news((2..5).map(|seed| Item::Suspicion(testing::suspicion(seed, 1))).collect()));
    put("revocation", news(vec![Item::Revocation(Box::new(testing::revocation(0, 3)))]));
    put("revocation-invite", news(vec![Item::Revocation(Box::new(testing::invite_revocation(2)))]));
    put("resignation", news(vec![Item::Resignation(Box::new(testing::resignation(3)))]));
    put("record-largest", news(vec![Item::Record(Box::new(testing::largest_record()))]));
    put("grant", Message::Grant(Box::new(testing::chain(2))));
    let entry = |seed: u8| Entry {
        node: testing::node(seed),
        record: 42,
        liveness: u64::from(seed % 2),
        ended: seed.is_multiple_of(3),
    };
    let entries: Vec<_> = (0..4).map(entry).collect();
    let gossip = Gossip { entries: entries.clone(), items: vec![] };
    put("ping", Message::Ping(1, gossip.clone()));
    put("ack", Message::Ack(1, gossip.clone()));
    put("ping-request", Message::PingRequest(1, testing::node(2), gossip.clone()));
    put("want", Message::Want(entries.clone()));
    let mut ends: Vec<_> = (0..2).map(testing::node).collect();
    ends.sort();
    put(
        "compare",
        Message::Compare(
            vec![
                Range { end: Some(Position::member(ends[0])), content: Content::Skip },
                Range {
                    end: Some(Position::member(ends[1])),
                    content: Content::Fingerprint { count: 5, sum: [7; 16] },
                },
                Range { end: None, content: Content::Entries(entries) },
            ],
            gossip,
        ),
    );
    seeds
}
