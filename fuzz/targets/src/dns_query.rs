//! DNS queries: what programs of the host send to `named`.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use i2plan_ipc::names::MemberLabels;
use i2plan_named::zone::Zone;

use crate::{Seeds, seed};

fn member(name: &str, last: u8, is_short: bool) -> MemberLabels {
    MemberLabels {
        name: name.to_owned(),
        short: is_short.then(|| name.to_owned()),
        full: format!("{name}-10-42-0-{last}"),
        ipv4: [10, 42, 0, last].into(),
        ipv6: [0xfd12, 0, 0, 0, 0, 0, 0x0a2a, last.into()].into(),
    }
}

fn zone() -> Zone {
    let members = [member("web", 1, true), member("db", 2, false), member("db", 3, false)];
    let subnet = "10.42.0.0/20".parse().expect("a subnet");
    Zone::new("office", subnet, members[0].ipv6, &members, 1)
}

/// Runs the target: an answer is a short response to its query, and says nothing of other domains.
pub fn run(input: &[u8]) {
    let Some(answer) = zone().answer(input) else { return };
    assert!(answer.len() <= 512 && input.len() >= 12);
    assert_eq!(answer[..2], input[..2], "another id");
    let answer = Message::from_vec(&answer).expect("it can be read");
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(!answer.metadata.recursion_available);
    let Ok(query) = Message::from_vec(input) else {
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        assert!(answer.answers.is_empty());
        return;
    };
    for record in answer.answers.iter().chain(&answer.authorities) {
        let [asked] = &query.queries[..] else { panic!("an answer to {} questions", query.queries.len()) };
        assert!(record.name.zone_of(asked.name()));
        let name = record.name.to_ascii().to_ascii_lowercase();
        let is_own = [".arpa.", "office.internal."].iter().any(|end| name.ends_with(end));
        assert!(is_own && answer.metadata.authoritative, "{name}");
        match &record.data {
            RData::A(address) => assert_eq!(address.octets()[..3], [10, 42, 0]),
            RData::AAAA(address) => assert_eq!(address.segments()[0], 0xfd12),
            RData::PTR(_) | RData::SOA(_) | RData::NS(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let bytes = |message: &Message| message.to_vec().expect("it can be written");
    let of = |name, kind| bytes(&query(name, kind));
    let mut with_edns = query("web.office.internal.", RecordType::ANY);
    with_edns.set_edns(Edns::new());
    let mut two = query("web.office.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    let mut notify = query("office.internal.", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    vec![
        seed("a", of("web.office.internal.", RecordType::A)),
        seed("aaaa-full", of("db-10-42-0-2.office.internal.", RecordType::AAAA)),
        seed("nothing", of("db.office.internal.", RecordType::A)),
        seed("soa", of("office.internal.", RecordType::SOA)),
        seed("wildcard", of("*.office.internal.", RecordType::NS)),
        seed("foreign", of("example.com.", RecordType::A)),
        seed("root", of(".", RecordType::NS)),
        seed("ptr", of("1.0.42.10.in-addr.arpa.", RecordType::PTR)),
        seed("ptr-branch", of("0.42.10.in-addr.arpa.", RecordType::PTR)),
        seed("ptr-foreign", of("1.16.42.10.in-addr.arpa.", RecordType::PTR)),
        seed(
            "ptr-ipv6",
            of(&Name::from(std::net::IpAddr::from(member("web", 1, true).ipv6)).to_ascii(), RecordType::PTR),
        ),
        seed("transfer", of("office.internal.", RecordType::AXFR)),
        seed("edns", bytes(&with_edns)),
        seed("two-questions", bytes(&two)),
        seed("notify", bytes(&notify)),
        // A name that points at itself.
        seed("loop", b"\0\x07\0\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01".to_vec()),
        seed("cut", b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x03we".to_vec()),
        seed("header", [0; 12].to_vec()),
    ]
}
