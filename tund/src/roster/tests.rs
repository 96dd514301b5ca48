use i2plan_proto::address::AddressRange;
use i2plan_proto::identity::Signed;
use i2plan_proto::invite::InviteId;
use i2plan_proto::membership::ChainError;
use i2plan_proto::record::Record;
use i2plan_testing::{self as testing, NOW};

use super::*;

/// So many members, whom the founder of the network of node 0 has given addresses of their own.
pub(crate) fn many(count: usize) -> StoredMembers {
    let founder = Chain::founder(&testing::charter(0));
    let mut kept = StoredMembers::default();
    for number in 0..count {
        let number = u32::try_from(number).unwrap();
        let mut id = [255; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let ranges = AddressRange::of_size(0x0a2a_0000 + 2 * (number + 1), 2).unwrap().into();
        let grant = Delegation {
            subject: NodeId(id),
            ranges,
            serial: u64::from(number),
            since: u64::from(number),
            ..testing::delegation(0, 1)
        };
        let certificate = founder.certificate(grant.clone()).id();
        kept.certificates.push((founder.id(), grant));
        let entry = RosterEntry {
            sequence: u64::MAX,
            public_key: id,
            endpoint: testing::destination(1),
            not_before: NOW,
            not_after: NOW + 1000,
            certificate,
            keepalive: 0,
            reports: true,
            round: 0,
        };
        kept.entries.push((NodeId(id), entry));
    }
    kept
}

/// What `keyd` of a node in the network of node 0 says.
fn anchor_of(chain: Chain) -> TrustAnchor {
    TrustAnchor {
        epoch: WireGuardCertificate::epoch_at(NOW),
        not_after: NOW + WireGuardCertificate::MAX_AGE,
        charter: testing::charter(0),
        chain,
        revoked: Vec::new(),
    }
}

fn anchor() -> TrustAnchor {
    anchor_of(testing::chain(0))
}

fn roster() -> Roster {
    Roster::new(&anchor(), StoredMembers::default(), NOW)
}

fn member(record: Signed<Record>) -> Member {
    Member { record: Box::new(record), keepalive: 25 }
}

/// The record of node `depth` after some changes, signed by it again.
fn changed(depth: u8, change: impl FnOnce(&mut Record)) -> Member {
    let mut record = testing::record(depth).value;
    change(&mut record);
    member(testing::signed(record, depth))
}

/// The members that the data path has been told of.
fn present(roster: &mut Roster) -> Vec<NodeId> {
    roster.take_changes();
    let mut nodes = roster.nodes();
    nodes.sort_unstable();
    nodes
}

/// The chain of a node that node 0 has certified.
fn certified(subject: u8, first: [u8; 4], prefix: u8, serial: u64) -> Chain {
    let founder = testing::chain(0);
    let ranges = AddressRange::new(first.into(), prefix).unwrap().into();
    let grant = Delegation { ranges, serial, since: serial, ..testing::delegation(0, subject) };
    founder.extended(&testing::signed(founder.certificate(grant), 0)).unwrap()
}

#[test]
fn a_member_has_the_key_and_the_addresses_that_are_certified() {
    let mut roster = roster();
    roster.take_member(&member(testing::record(2)), NOW).unwrap();
    let Changes { set, removed } = roster.take_changes();
    let [peer] = &set[..] else { panic!("{set:?}") };
    assert!(removed.is_empty());
    let record = testing::record(2).value;
    assert_eq!((peer.node, peer.public_key), (record.node, record.wireguard.value.public_key()));
    assert_eq!((&peer.endpoint, peer.keepalive), (&Some(record.data.destination.into()), 25));
    let ipv4 = testing::ranges(2).address();
    let ipv6 = ipv6_of(&testing::charter(0).network(), ipv4);
    assert_eq!(peer.allowed_ips, AllowedIps::Member(ipv4, ipv6));
    assert_eq!(roster.take_changes(), Changes::default());
}

#[test]
fn what_is_not_signed_by_those_whom_it_names_is_refused() {
    let mut roster = roster();
    let mut refused = |member: Member| match roster.take_member(&member, NOW) {
        Err(NotAdmitted::Record(error)) => error,
        other => panic!("{other:?}"),
    };
    let mut forged = testing::record(2);
    forged.value.sequence += 1;
    assert!(matches!(refused(member(forged)), RecordError::BadSignature(_)));
    // Another's address: a chain that is not the node's.
    let error = refused(changed(2, |record| record.chain = testing::chain(3)));
    assert_eq!(error, RecordError::Mismatch("membership"));
    // Another's key.
    let error = refused(changed(2, |record| record.wireguard = testing::wireguard_certificate(3)));
    assert_eq!(error, RecordError::Mismatch("WireGuard certificate"));
    // A key whose private half the node has not shown to have: the certificate is its own, the proof another's.
    let error = refused(changed(2, |record| {
        let mut certificate = record.wireguard.value.clone();
        certificate.key = testing::wireguard_certificate(3).value.key;
        record.wireguard = testing::signed(certificate, 2);
    }));
    assert!(matches!(error, RecordError::WireGuard(_)), "{error}");
    // Another's destination.
    let error = refused(changed(2, |record| record.data = testing::record(3).value.data));
    assert!(matches!(error, RecordError::BadSignature(_)), "{error}");
    // A chain that does not lead to the founder: node 5 certifies addresses that it was not given.
    let founder = testing::chain(0);
    let certificate = founder.certificate(testing::delegation(0, 5));
    let forged = founder.appended(&testing::signed(certificate, 5));
    let error = refused(changed(5, |record| record.chain = forged));
    assert!(matches!(error, RecordError::NotAMember(ChainError::BadSignature(_))), "{error}");
    // Addresses that the issuer does not hold.
    let parent = testing::chain(2);
    let elsewhere = AddressRange::new([10, 42, 0, 16].into(), 28).unwrap().into();
    let grant = Delegation { ranges: elsewhere, ..testing::delegation(2, 5) };
    let forged = parent.appended(&testing::signed(parent.certificate(grant), 2));
    let error = refused(changed(5, |record| record.chain = forged));
    assert!(matches!(error, RecordError::NotAMember(ChainError::NotDelegable(_))), "{error}");
    assert!(present(&mut roster).is_empty());
}

#[test]
fn a_record_of_another_network_is_refused() {
    let anchor =
        TrustAnchor { charter: testing::charter(1), chain: Chain::founder(&testing::charter(1)), ..anchor() };
    let mut roster = Roster::new(&anchor, StoredMembers::default(), NOW);
    assert!(matches!(roster.take_member(&member(testing::record(2)), NOW), Err(NotAdmitted::Record(_))));
    let ending = Ending::Resignation(Box::new(testing::resignation(2)));
    assert!(matches!(roster.take_ending(&ending), Err(NotAdmitted::Ending(_))));
}

#[test]
fn this_nodes_own_address_and_record_are_no_members() {
    let mut roster =
        Roster::new(&anchor_of(certified(7, [10, 42, 3, 16], 28, 9)), StoredMembers::default(), NOW);
    let own = changed(7, |record| record.chain = certified(7, [10, 42, 3, 16], 28, 9));
    assert_eq!(roster.take_member(&own, NOW), Err(NotAdmitted::Local));
    // Even of one with a better claim.
    let other = changed(8, |record| record.chain = certified(8, [10, 42, 3, 16], 28, 5));
    assert!(matches!(roster.take_member(&other, NOW), Err(NotAdmitted::Held(_))));
}

#[test]
fn keys_are_used_while_their_certificates_are_valid() {
    let mut roster = roster();
    let late = NOW + 1001;
    assert_eq!(roster.take_member(&member(testing::record(2)), late), Err(NotAdmitted::NotValidNow));
    let early = NOW - WireGuardCertificate::CLOCK_TOLERANCE - 1;
    assert_eq!(roster.take_member(&member(testing::record(2)), early), Err(NotAdmitted::NotValidNow));
    roster.take_member(&member(testing::record(2)), NOW).unwrap();
    roster.trust(&anchor(), NOW + 1000);
    assert_eq!(present(&mut roster), [testing::node(2)]);
    roster.trust(&anchor(), late);
    assert!(present(&mut roster).is_empty());
}

#[test]
fn when_the_clock_is_wrong_what_is_in_force_stays() {
    let mut roster = roster();
    roster.take_member(&member(testing::record(2)), NOW).unwrap();
    let before = WireGuardCertificate::begins_at(anchor().epoch) - WireGuardCertificate::CLOCK_TOLERANCE - 1;
    for wrong in [0, before, anchor().not_after + 1, u64::MAX] {
        assert!(roster.is_clock_suspect(wrong), "{wrong}");
        roster.trust(&anchor(), wrong);
        assert_eq!(present(&mut roster), [testing::node(2)]);
    }
    assert!(!roster.is_clock_suspect(NOW));
}

#[test]
fn who_was_revoked_or_has_resigned_is_out_and_stays_out() {
    let revocation = Ending::Revocation(Box::new(testing::revocation(1, 3)));
    let resignation = Ending::Resignation(Box::new(testing::resignation(3)));
    for (ending, out) in [(revocation, vec![3, 4]), (resignation, vec![3])] {
        let mut roster = roster();
        for depth in 1..=4 {
            roster.take_member(&member(testing::record(depth)), NOW).unwrap();
        }
        roster.take_changes();
        roster.take_ending(&ending).unwrap();
        let all = roster.to_sweep();
        roster.sweep(&all);
        let mut removed = roster.take_changes().removed;
        removed.sort_unstable();
        let mut wanted: Vec<_> = out.iter().map(|depth| testing::node(*depth)).collect();
        wanted.sort_unstable();
        assert_eq!(removed, wanted);
        for depth in out {
            let newer = changed(depth, |record| record.sequence += 1);
            assert_eq!(roster.take_member(&newer, NOW), Err(NotAdmitted::Ended), "{depth}");
        }
    }
}

#[test]
fn endings_that_are_not_signed_by_one_who_may_end_nothing() {
    let mut roster = roster();
    roster.take_member(&member(testing::record(3)), NOW).unwrap();
    let beside = Ending::Revocation(Box::new(testing::revocation(4, 3)));
    assert_eq!(roster.take_ending(&beside), Err(RevocationError::NotEntitled.into()));
    let mut forged = testing::revocation(1, 3);
    forged.signature = testing::revocation(2, 3).signature;
    let forged = Ending::Revocation(Box::new(forged));
    assert!(matches!(roster.take_ending(&forged), Err(NotAdmitted::Ending(_))));
    assert!(roster.to_sweep().is_empty());
}

#[test]
fn what_this_node_has_revoked_cannot_be_withheld() {
    let mut roster = roster();
    for depth in 1..=4 {
        roster.take_member(&member(testing::record(depth)), NOW).unwrap();
    }
    let revoked = testing::revocation(0, 3).value.revoked().unwrap();
    let anchor = TrustAnchor { revoked: vec![revoked, Revoked::Invite(InviteId([7; 16]))], ..anchor() };
    roster.trust(&anchor, NOW);
    let all = roster.to_sweep();
    roster.sweep(&all);
    let mut rest = [testing::node(1), testing::node(2)];
    rest.sort_unstable();
    assert_eq!(present(&mut roster), rest);
    // Also when all is told again without it.
    roster.begin_sync();
    for depth in 1..=2 {
        roster.take_member(&member(testing::record(depth)), NOW).unwrap();
    }
    roster.end_sync();
    assert_eq!(roster.take_member(&member(testing::record(3)), NOW), Err(NotAdmitted::Ended));
    // And by the next process.
    let mut next = Roster::new(&anchor, roster.to_stored(), NOW);
    assert_eq!(present(&mut next), rest);
    assert_eq!(next.take_member(&member(testing::record(3)), NOW), Err(NotAdmitted::Ended));
}

#[test]
fn of_two_that_claim_an_address_the_same_one_stands_whichever_comes_first() {
    let first = changed(1, |record| record.chain = certified(1, [10, 42, 3, 16], 28, 5));
    let second = changed(2, |record| record.chain = certified(2, [10, 42, 3, 16], 28, 9));
    for order in [[&first, &second], [&second, &first]] {
        let mut roster = roster();
        let results = order.map(|member| roster.take_member(member, NOW));
        assert_eq!(present(&mut roster), [testing::node(1)], "{results:?}");
        assert!(results[0].is_ok());
    }
}

#[test]
fn a_key_belongs_to_one_member() {
    // Both have the private half: it is one liar with two identities.
    let mut roster = roster();
    roster.take_member(&member(testing::record(2)), NOW).unwrap();
    let sharing = changed(3, |record| {
        let network = testing::charter(0).network();
        let mut certificate = record.wireguard.value.clone();
        certificate.key = testing::wireguard_secret(2).proven(network, testing::node(3));
        record.wireguard = testing::signed(certificate, 3);
    });
    assert!(matches!(roster.take_member(&sharing, NOW), Err(NotAdmitted::KeyOfAnother(_))));
}

#[test]
fn the_newer_record_counts_and_others_change_nothing() {
    let mut roster = roster();
    let rekeyed = |sequence| {
        changed(2, |record| {
            record.sequence = sequence;
            let network = testing::charter(0).network();
            record.wireguard.value.key = testing::wireguard_secret(77).proven(network, testing::node(2));
            record.wireguard = testing::signed(record.wireguard.value.clone(), 2);
        })
    };
    roster.take_member(&member(testing::record(2)), NOW).unwrap();
    let key = roster.take_changes().set[0].public_key;
    for sequence in [41, 42] {
        roster.take_member(&rekeyed(sequence), NOW).unwrap();
        assert_eq!(roster.take_changes(), Changes::default());
    }
    roster.take_member(&rekeyed(43), NOW).unwrap();
    let changes = roster.take_changes();
    assert_ne!(changes.set[0].public_key, key);
    assert_eq!(roster.by_key.len(), 1);
    roster.set_keepalive(&testing::node(2), 0);
    assert_eq!(roster.take_changes().set[0].keepalive, 0);
    roster.remove(&[testing::node(2), testing::node(3)]);
    assert_eq!(roster.take_changes().removed, [testing::node(2)]);
    assert!(roster.by_key.is_empty() && roster.nodes().is_empty());
}

#[test]
fn what_is_not_told_again_goes_and_the_rest_is_not_touched() {
    let mut roster = roster();
    let revocation = Ending::Revocation(Box::new(testing::revocation(1, 5)));
    roster.take_ending(&revocation).unwrap();
    for depth in 1..=4 {
        roster.take_member(&member(testing::record(depth)), NOW).unwrap();
    }
    roster.take_changes();
    roster.begin_sync();
    roster.take_ending(&revocation).unwrap();
    for depth in [1, 3, 4] {
        roster.take_member(&member(testing::record(depth)), NOW).unwrap();
    }
    assert_eq!(roster.take_changes(), Changes::default());
    roster.end_sync();
    assert_eq!(roster.take_changes(), Changes { set: Vec::new(), removed: vec![testing::node(2)] });
    assert_eq!(roster.take_member(&member(testing::record(5)), NOW), Err(NotAdmitted::Ended));
    // The certificate of the one that is gone is still in the chains of others.
    roster.remove(&[testing::node(1), testing::node(3), testing::node(4)]);
    roster.begin_sync();
    roster.end_sync();
    assert!(roster.certificates.export().is_empty() && roster.endings.is_empty());
}

/// What ten thousand members take, and that they are bounded.
#[test]
fn ten_thousand_members_take_little_memory_and_more_are_refused() {
    // With the id that leads to it and what leads from its key to it: some 250 bytes. With the certificate, and all that
    // finds both, a member takes a kilobyte.
    assert!(size_of::<RosterEntry>() <= 160, "{}", size_of::<RosterEntry>());
    let kept = many(MAX_PEERS + 1);
    let mut roster = Roster::new(&anchor(), kept, NOW);
    assert_eq!(roster.take_changes().set.len(), MAX_PEERS);
    assert_eq!(roster.certificates.export().len(), MAX_PEERS);
    assert_eq!(roster.take_member(&member(testing::record(1)), NOW), Err(NotAdmitted::Full));
    let first = roster.to_stored().entries[0].0;
    roster.remove(&[first]);
    assert_eq!(roster.take_member(&member(testing::record(1)), NOW), Ok(()));
}

#[test]
fn what_was_kept_without_its_certificates_is_of_no_use() {
    let mut kept = many(3);
    kept.certificates.remove(1);
    assert_eq!(Roster::new(&anchor(), kept, NOW).nodes().len(), 2);
    // The certificates of another network lead nowhere.
    let anchor =
        TrustAnchor { charter: testing::charter(1), chain: Chain::founder(&testing::charter(1)), ..anchor() };
    assert!(Roster::new(&anchor, many(3), NOW).nodes().is_empty());
}
