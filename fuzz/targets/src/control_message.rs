//! A control datagram: the message and everything in it.

use i2plan_proto::codec::{Codec as _, DecodeError};
use i2plan_proto::identity::Signed;
use i2plan_proto::join::{self, JoinReply, JoinRequest, Refusal};
use i2plan_proto::message::{Digest, DigestEntry, MAX_DIGEST, MAX_RECORDS, Message};
use i2plan_proto::record::Record;
use i2plan_proto::testing;

use crate::{Seeds, record, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    if let Err(DecodeError::Version { version, .. }) = Message::from_bytes(input) {
        assert_eq!(Some(&version), input.first());
        assert_ne!(version, 1);
    }
    match testing::decode_canonically::<Message>(input) {
        None => {}
        Some(Message::JoinRequest(request)) => check_request(&request),
        Some(Message::JoinReply(JoinReply::Refused { refusal, .. })) => {
            assert!(!refusal.to_string().contains('\n'));
        }
        Some(Message::JoinReply(JoinReply::Welcome(welcome))) => {
            assert!(welcome.records.len() <= join::MAX_RECORDS);
            let network = welcome.charter.value.network();
            let _ = (welcome.charter.verify(), welcome.chain.verify(&network));
            check_records(&welcome.records);
        }
        Some(Message::Records(records)) => {
            assert!(records.len() <= MAX_RECORDS);
            check_records(&records);
        }
        Some(Message::Digest(digest)) => assert!(digest.entries.len() <= MAX_DIGEST),
    }
}

/// A request that verifies is one that its joiner has signed, bit for bit.
fn check_request(request: &JoinRequest) {
    if request.verify().is_ok() {
        let known = (0..16).map(testing::join_request).any(|known| known == *request);
        assert!(known, "a request was forged");
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
    let mut put = |name: &str, message: Message| seeds.push(seed(name, message.to_bytes()));
    put("join", Message::JoinRequest(Box::new(testing::join_request(1))));
    put("welcome", Message::JoinReply(testing::welcome(2)));
    let invite = testing::invite(1).secret.key();
    for refusal in [Refusal::Unknown, Refusal::Busy] {
        put(&format!("refused-{refusal:?}"), Message::JoinReply(JoinReply::Refused { invite, refusal }));
    }
    put("records", Message::Records((0..3).map(testing::record).collect()));
    put("records-none", Message::Records(vec![]));
    let entry = |seed| DigestEntry { node: testing::node(seed), sequence: 42 };
    for complete in [false, true] {
        let entries = (0..4).map(entry).collect();
        put(&format!("digest-{complete}"), Message::Digest(Digest { complete, entries }));
    }
    seeds
}
