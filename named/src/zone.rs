//! What is answered: the domain of a network, and the domains of its addresses.
//!
//! A name below one of them either exists, and has records or none of the type that is asked for, or does not
//! (NXDOMAIN). A name elsewhere is refused: nothing is asked of another server. Answers have one or two records, and are
//! never longer than 512 bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{NS, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use i2plan_ipc::names::{MemberLabels, TOP};
use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet};

/// For how long an answer may be kept, seconds. A name changes with what its member calls itself.
pub const TTL: u32 = 30;

/// Longest answer, bytes: what every client takes in a datagram.
const MAX_ANSWER: usize = 512;

/// Bytes of the header of a message, without which there is nothing to answer.
const HEADER: usize = 12;

/// What is known of a network.
#[derive(Debug)]
pub struct Zone {
    network: String,
    subnet: Ipv4Subnet,
    /// The address whose /64 is the network's.
    ipv6: Ipv6Addr,
    hosts: BTreeMap<String, (Ipv4Addr, Ipv6Addr)>,
    reverse: BTreeMap<IpAddr, String>,
    serial: u32,
}

/// A domain that answers are given for, and what is asked of it.
struct Found<'a> {
    /// How many labels the domain has.
    apex: usize,
    what: What<'a>,
}

enum What<'a> {
    /// There is no such name.
    Nothing,
    /// A name that only has others below it, or the domain itself.
    Branch,
    Host(Ipv4Addr, Ipv6Addr),
    Pointer(&'a str),
}

impl Zone {
    /// Names of a network's members. `ipv6` is the address of one of them; `serial` counts up with each change.
    #[must_use]
    pub fn new(
        network: &str,
        subnet: Ipv4Subnet,
        ipv6: Ipv6Addr,
        members: &[MemberLabels],
        serial: u32,
    ) -> Self {
        let hosts = members.iter().flat_map(|member| {
            let labels = member.short.iter().chain([&member.full]);
            labels.map(|label| (label.clone(), (member.ipv4, member.ipv6)))
        });
        let reverse = members
            .iter()
            .flat_map(|member| member.addresses().map(|address| (address, member.label().to_owned())));
        Self {
            network: network.to_owned(),
            subnet,
            ipv6,
            hosts: hosts.collect(),
            reverse: reverse.collect(),
            serial,
        }
    }

    /// The answer to a message, if it gets one: a response gets none, nor does what has no whole header.
    #[must_use]
    pub fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        if request.len() < HEADER || request[2] & 0x80 != 0 {
            return None;
        }
        let response = match Message::from_vec(request) {
            Ok(request) => self.respond(&request),
            Err(_) => {
                let id = u16::from_be_bytes([request[0], request[1]]);
                Ok(Message::error_msg(id, OpCode::from_u8(request[2] >> 3 & 0xf), ResponseCode::FormErr))
            }
        };
        let bytes = response.and_then(|response| response.to_vec()).ok()?;
        (bytes.len() <= MAX_ANSWER).then_some(bytes)
    }

    fn respond(&self, request: &Message) -> Result<Message, ProtoError> {
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata = Metadata::response_from_request(&request.metadata);
        if let Some(edns) = &request.edns {
            let mut own = Edns::new();
            own.set_max_payload(u16::try_from(MAX_ANSWER).unwrap_or(u16::MAX));
            response.set_edns(own);
            if edns.version() > 0 {
                response.metadata.response_code = ResponseCode::BADVERS;
                return Ok(response);
            }
        }
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            response.metadata.response_code = ResponseCode::NotImp;
            return Ok(response);
        }
        let [query] = &request.queries[..] else {
            response.metadata.response_code = ResponseCode::FormErr;
            return Ok(response);
        };
        response.add_query(query.clone());
        match self.find(query) {
            None => response.metadata.response_code = ResponseCode::Refused,
            Some(found) => self.fill(&mut response, query, &found)?,
        }
        Ok(response)
    }

    fn fill(&self, response: &mut Message, query: &Query, found: &Found<'_>) -> Result<(), ProtoError> {
        let name = query.name();
        let is_asked = |kind| [kind, RecordType::ANY].contains(&query.query_type());
        let mut add = |kind, data| {
            if is_asked(kind) {
                response.add_answer(Record::from_rdata(name.clone(), TTL, data));
            }
        };
        match found.what {
            What::Nothing | What::Branch => {}
            What::Host(ipv4, ipv6) => {
                add(RecordType::A, RData::A(ipv4.into()));
                add(RecordType::AAAA, RData::AAAA(ipv6.into()));
            }
            What::Pointer(label) => add(RecordType::PTR, RData::PTR(PTR(self.host(label)?))),
        }
        let apex = name.trim_to(found.apex);
        // RFC 6303: the names of a zone that has no server with a name.
        let soa = || -> Result<RData, ProtoError> {
            let nobody = Name::from_ascii("nobody.invalid.")?;
            Ok(RData::SOA(SOA::new(apex.clone(), nobody, self.serial, 3600, 1200, 604_800, TTL)))
        };
        // A `*` counts here, and not in `num_labels`.
        if name.iter().count() == found.apex {
            add(RecordType::SOA, soa()?);
            add(RecordType::NS, RData::NS(NS(apex.clone())));
        }
        response.metadata.authoritative = true;
        if matches!(found.what, What::Nothing) {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        if response.answers.is_empty() {
            response.add_authority(Record::from_rdata(apex.clone(), TTL, soa()?));
        }
        Ok(())
    }

    /// The whole name of a member.
    fn host(&self, label: &str) -> Result<Name, ProtoError> {
        Name::from_ascii(format!("{label}.{}.{TOP}.", self.network))
    }

    /// What a query is about; none if that is not for this server to answer.
    fn find(&self, query: &Query) -> Option<Found<'_>> {
        let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
        if query.query_class() != DNSClass::IN || is_transfer {
            return None;
        }
        // From the root on. Bytes that are in no name of ours match none.
        let labels: Vec<String> = query
            .name()
            .iter()
            .rev()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match &labels[..] {
            [TOP, network, rest @ ..] if *network == self.network => {
                let what = match rest {
                    [] => What::Branch,
                    [label] => {
                        self.hosts.get(*label).map_or(What::Nothing, |(ipv4, ipv6)| What::Host(*ipv4, *ipv6))
                    }
                    _ => What::Nothing,
                };
                Some(Found { apex: 2, what })
            }
            ["arpa", "in-addr", rest @ ..] => {
                let octet = |label: &str| {
                    let octet = label.parse::<u8>().ok()?;
                    (octet.to_string() == label).then_some(octet.into())
                };
                let network = u128::from(self.subnet.range().first().to_bits());
                let address = |bits| Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(0)).into();
                self.reverse(rest, (8, 4), network, self.subnet.prefix(), octet, address)
            }
            ["arpa", "ip6", rest @ ..] => {
                let nibble = |label: &str| match label.as_bytes() {
                    [digit] => char::from(*digit).to_digit(16).map(Into::into),
                    _ => None,
                };
                let network = self.ipv6.to_bits();
                let address = |bits| Ipv6Addr::from_bits(bits).into();
                self.reverse(rest, (4, 32), network, IPV6_PREFIX, nibble, address)
            }
            _ => None,
        }
    }

    /// What an address, or the beginning of one, is about. `labels` say it in digits, the first first, of which there are
    /// `count` of `width` bits each; the first `prefix` bits of `network` are the network's.
    fn reverse(
        &self,
        labels: &[&str],
        (width, count): (u8, usize),
        network: u128,
        prefix: u8,
        digit: impl Fn(&str) -> Option<u128>,
        address: impl Fn(u128) -> IpAddr,
    ) -> Option<Found<'_>> {
        /// What `in-addr.arpa` and `ip6.arpa` have.
        const TOP_LABELS: usize = 2;
        let bits = usize::from(width) * count;
        let digits: Vec<u128> = labels.iter().map_while(|label| digit(label)).take(count).collect();
        let first = digits.iter().fold(0, |bits, digit| bits << width | digit);
        let left = bits - usize::from(width) * digits.len();
        let first = if left == 128 { 0 } else { first << left };
        let last = first | u128::MAX.checked_shr(u32::try_from(128 - left).ok()?).unwrap_or(0);
        // A domain begins where all of its addresses are the network's.
        let apex = usize::from(prefix.div_ceil(width));
        let behind = bits - usize::from(prefix);
        if digits.len() < apex || first >> behind != network >> behind {
            return None;
        }
        let apex = TOP_LABELS + apex;
        let what = if labels.len() > digits.len() {
            What::Nothing
        } else if digits.len() == count {
            self.reverse.get(&address(first)).map_or(What::Nothing, |label| What::Pointer(label))
        } else if TOP_LABELS + digits.len() == apex
            || self.reverse.range(address(first)..=address(last)).next().is_some()
        {
            What::Branch
        } else {
            What::Nothing
        };
        Some(Found { apex, what })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(name: &str, last: u8, is_short: bool) -> MemberLabels {
        MemberLabels {
            name: name.to_owned(),
            short: is_short.then(|| name.to_owned()),
            full: format!("{name}-10-42-0-{last}"),
            ipv4: Ipv4Addr::new(10, 42, 0, last),
            ipv6: Ipv6Addr::new(0xfd12, 0x3456, 0, 0, 0, 0, 0x0a2a, last.into()),
        }
    }

    fn zone_of(subnet: &str) -> Zone {
        let members = [member("web", 1, true), member("db", 2, false), member("db", 3, false)];
        Zone::new("office", subnet.parse().unwrap(), members[0].ipv6, &members, 7)
    }

    fn ask_message(zone: &Zone, request: &Message) -> Message {
        Message::from_vec(&zone.answer(&request.to_vec().unwrap()).unwrap()).unwrap()
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> Message {
        let request = query(name, kind);
        let response = ask_message(zone, &request);
        assert_eq!(response.metadata.id, request.metadata.id);
        assert_eq!(response.queries, request.queries);
        assert!(!response.metadata.recursion_available && !response.metadata.truncation);
        response
    }

    fn data(response: &Message) -> Vec<String> {
        response.answers.iter().map(|record| record.data.to_string()).collect()
    }

    fn code(response: &Message) -> ResponseCode {
        response.metadata.response_code
    }

    #[track_caller]
    fn has_negative_answer(response: &Message, expected: ResponseCode, apex: &str) {
        assert_eq!(code(response), expected);
        assert!(response.answers.is_empty() && response.metadata.authoritative);
        let [soa] = &response.authorities[..] else { panic!("{response:?}") };
        assert_eq!((soa.record_type(), soa.name.to_ascii().as_str(), soa.ttl), (RecordType::SOA, apex, TTL));
    }

    #[test]
    fn a_member_has_its_addresses_by_each_of_its_names() {
        let zone = zone_of("10.42.0.0/16");
        for name in ["web.office.internal.", "WEB.Office.INTERNAL.", "web-10-42-0-1.office.internal."] {
            let response = ask(&zone, name, RecordType::A);
            assert_eq!((code(&response), data(&response)), (ResponseCode::NoError, vec!["10.42.0.1".into()]));
            assert!(response.metadata.authoritative && response.answers[0].ttl == TTL);
            assert_eq!(data(&ask(&zone, name, RecordType::AAAA)), ["fd12:3456::a2a:1"]);
            assert_eq!(data(&ask(&zone, name, RecordType::ANY)), ["10.42.0.1", "fd12:3456::a2a:1"]);
        }
        has_negative_answer(
            &ask(&zone, "web.office.internal.", RecordType::MX),
            ResponseCode::NoError,
            "office.internal.",
        );
    }

    #[test]
    fn a_name_that_two_make_is_neithers() {
        let zone = zone_of("10.42.0.0/16");
        has_negative_answer(
            &ask(&zone, "db.office.internal.", RecordType::A),
            ResponseCode::NXDomain,
            "office.internal.",
        );
        assert_eq!(data(&ask(&zone, "db-10-42-0-3.office.internal.", RecordType::A)), ["10.42.0.3"]);
    }

    #[test]
    fn names_that_are_not_there_and_the_domain_itself() {
        let zone = zone_of("10.42.0.0/16");
        for name in ["x.office.internal.", "a.web.office.internal.", "*.office.internal."] {
            for kind in [RecordType::A, RecordType::ANY, RecordType::NS] {
                has_negative_answer(&ask(&zone, name, kind), ResponseCode::NXDomain, "office.internal.");
            }
        }
        has_negative_answer(
            &ask(&zone, "office.internal.", RecordType::A),
            ResponseCode::NoError,
            "office.internal.",
        );
        let response = ask(&zone, "office.internal.", RecordType::SOA);
        assert!(data(&response)[0].starts_with("office.internal. nobody.invalid. 7 "), "{response:?}");
        assert_eq!(data(&ask(&zone, "office.internal.", RecordType::NS)), ["office.internal."]);
    }

    #[test]
    fn other_domains_are_refused() {
        let zone = zone_of("10.42.0.0/16");
        for name in [
            ".",
            "internal.",
            "example.com.",
            "web.other.internal.",
            "web.office.internal.example.com.",
            "arpa.",
            "10.in-addr.arpa.",
            "1.0.43.10.in-addr.arpa.",
            "1.0.0.127.in-addr.arpa.",
            "ip6.arpa.",
            "d.f.ip6.arpa.",
        ] {
            for kind in [RecordType::A, RecordType::PTR, RecordType::ANY] {
                let response = ask(&zone, name, kind);
                assert_eq!(code(&response), ResponseCode::Refused, "{name}");
                assert!(response.answers.is_empty() && response.authorities.is_empty());
            }
        }
        assert_eq!(code(&ask(&zone, "office.internal.", RecordType::AXFR)), ResponseCode::Refused);
        let mut chaos = query("web.office.internal.", RecordType::A);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(&ask_message(&zone, &chaos)), ResponseCode::Refused);
    }

    #[test]
    fn an_address_has_the_shortest_name_of_its_member() {
        let zone = zone_of("10.42.0.0/16");
        let ptr = |name: &str| ask(&zone, name, RecordType::PTR);
        assert_eq!(data(&ptr("1.0.42.10.in-addr.arpa.")), ["web.office.internal."]);
        assert_eq!(data(&ptr("2.0.42.10.in-addr.arpa.")), ["db-10-42-0-2.office.internal."]);
        let ipv6 = Name::from(member("web", 1, true).ipv6).to_ascii();
        assert_eq!(data(&ptr(&ipv6)), ["web.office.internal."]);
        let ipv4_apex = "42.10.in-addr.arpa.";
        has_negative_answer(
            &ask(&zone, "1.0.42.10.in-addr.arpa.", RecordType::A),
            ResponseCode::NoError,
            ipv4_apex,
        );
        for branch in ["42.10.in-addr.arpa.", "0.42.10.in-addr.arpa."] {
            has_negative_answer(&ptr(branch), ResponseCode::NoError, ipv4_apex);
        }
        for missing in [
            "9.0.42.10.in-addr.arpa.",
            "1.42.10.in-addr.arpa.",
            "01.0.42.10.in-addr.arpa.",
            "256.0.42.10.in-addr.arpa.",
            "x.1.0.42.10.in-addr.arpa.",
        ] {
            has_negative_answer(&ptr(missing), ResponseCode::NXDomain, ipv4_apex);
        }
        let beside = Name::from(Ipv6Addr::new(0xfd12, 0x3456, 0, 0, 0, 0, 0x0a2a, 9)).to_ascii();
        has_negative_answer(
            &ptr(&beside),
            ResponseCode::NXDomain,
            "0.0.0.0.0.0.0.0.6.5.4.3.2.1.d.f.ip6.arpa.",
        );
    }

    #[test]
    fn a_subnet_between_two_octets_has_domains_of_whole_ones() {
        let zone = zone_of("10.42.0.0/20");
        let ptr = |name: &str| ask(&zone, name, RecordType::PTR);
        assert_eq!(data(&ptr("1.0.42.10.in-addr.arpa.")), ["web.office.internal."]);
        has_negative_answer(
            &ptr("1.15.42.10.in-addr.arpa."),
            ResponseCode::NXDomain,
            "15.42.10.in-addr.arpa.",
        );
        has_negative_answer(&ptr("15.42.10.in-addr.arpa."), ResponseCode::NoError, "15.42.10.in-addr.arpa.");
        for beside in ["42.10.in-addr.arpa.", "1.16.42.10.in-addr.arpa."] {
            assert_eq!(code(&ptr(beside)), ResponseCode::Refused, "{beside}");
        }
        let zone = zone_of("10.42.0.0/29");
        let beside = ask(&zone, "5.0.42.10.in-addr.arpa.", RecordType::PTR);
        has_negative_answer(&beside, ResponseCode::NXDomain, "5.0.42.10.in-addr.arpa.");
        assert_eq!(data(&ask(&zone, "3.0.42.10.in-addr.arpa.", RecordType::PTR)).len(), 1);
    }

    #[test]
    fn what_is_no_query_is_told_so_or_gets_no_answer() {
        let zone = zone_of("10.42.0.0/16");
        let good = query("web.office.internal.", RecordType::A);
        let mut response = good.clone();
        response.metadata.message_type = MessageType::Response;
        assert_eq!(zone.answer(&response.to_vec().unwrap()), None);
        assert_eq!(zone.answer(b""), None);
        assert_eq!(zone.answer(&[0; 11]), None);
        let bytes = good.to_vec().unwrap();
        let cut = Message::from_vec(&zone.answer(&bytes[..bytes.len() - 1]).unwrap()).unwrap();
        assert_eq!((code(&cut), cut.metadata.id), (ResponseCode::FormErr, good.metadata.id));
        let mut two = good.clone();
        two.add_query(good.queries[0].clone());
        assert_eq!(code(&ask_message(&zone, &two)), ResponseCode::FormErr);
        let mut update = good.clone();
        update.metadata.op_code = OpCode::Notify;
        assert_eq!(code(&ask_message(&zone, &update)), ResponseCode::NotImp);
        let mut later = good.clone();
        let mut edns = Edns::new();
        edns.set_version(1);
        later.set_edns(edns);
        // Another code has the same number.
        assert_eq!(u16::from(code(&ask_message(&zone, &later))), u16::from(ResponseCode::BADVERS));
        let mut with_edns = good;
        with_edns.set_edns(Edns::new());
        assert!(ask_message(&zone, &with_edns).edns.is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// No bytes make it panic, and no answer has more than its limit.
        #[test]
        fn any_message_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let answer = zone_of("10.42.0.0/16").answer(&bytes);
            prop_assert!(answer.is_none_or(|answer| answer.len() <= MAX_ANSWER));
        }

        /// The longest names too are answered.
        #[test]
        fn every_name_gets_an_answer(
            labels in prop::collection::vec("[a-z0-9]{1,63}", 0..5),
            below in prop::sample::select(vec!["office.internal.", "42.10.in-addr.arpa.", "com."]),
            kind in prop::sample::select(vec![RecordType::A, RecordType::ANY, RecordType::SOA, RecordType::PTR]),
        ) {
            let name = labels.iter().map(|label| format!("{label}.")).collect::<String>() + below;
            prop_assume!(name.len() < 255);
            ask(&zone_of("10.42.0.0/16"), &name, kind);
        }
    }
}
