//! The order in which members' statements arrive: two nodes that have heard the same, often enough, know the same. That is
//! what the comparison of notes rests on.
//!
//! The input makes a tree of certificates by up to ten nodes, honest or not, records and ends of memberships. One node
//! hears them as they were made, the other in another order. Contested addresses change their holder once an hour, so an
//! hour passes between one round and the next.

use std::net::Ipv4Addr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use i2plan_ipc::api::keyd;
use i2plan_meshd::core::state::{Membership, State};
use i2plan_meshd::core::{Mesh, Now, Settings};
use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
use i2plan_proto::codec::Codec;
use i2plan_proto::destination::DestinationRole;
use i2plan_proto::identity::NodeId;
use i2plan_proto::membership::{Chain, Delegation};
use i2plan_proto::message::{Item, Message};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_testing::{self as testing, NOW};

use crate::{Seeds, seed};

/// The nodes that may be members; node 0 is the founder.
const NODES: u8 = 10;

/// The node that hears it all.
const HEARER: u8 = 200;

/// Whose destination brings it all.
const SENDER: u8 = 250;

const MAX_CHAINS: usize = 12;

const MAX_STATEMENTS: usize = 14;

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut choices = Unstructured::new(input);
    let mut story = Story::new();
    let mut order = Vec::new();
    while !choices.is_empty() && story.statements.len() < MAX_STATEMENTS {
        if story.step(&mut choices).is_err() {
            break;
        }
    }
    for number in 0..story.statements.len() {
        let place = usize::from(choices.arbitrary::<u8>().unwrap_or(0)) % (number + 1);
        order.insert(place, number);
    }
    let forward: Vec<&Message> = story.statements.iter().collect();
    let other: Vec<&Message> = order.iter().map(|number| &story.statements[*number]).collect();
    let (first, second) = (Hearer::after(&forward), Hearer::after(&other));
    assert_eq!(first.summary(), second.summary(), "what is known depends on the order");
}

/// What may be heard.
struct Story {
    chains: Vec<Chain>,
    /// The nodes that have a record: one for each, so that it is not by its sequence number that it counts or not.
    recorded: Vec<NodeId>,
    statements: Vec<Message>,
}

impl Story {
    fn new() -> Self {
        Self {
            chains: vec![Chain::founder(&testing::charter(0))],
            recorded: Vec::new(),
            statements: Vec::new(),
        }
    }

    fn step(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let kind = choices.arbitrary::<u8>()? % 8;
        let index = usize::from(choices.arbitrary::<u8>()?) % self.chains.len();
        let chain = self.chains[index].clone();
        match kind {
            0..=2 => self.issue(&chain, choices),
            3 | 4 => {
                self.record(&chain);
                Ok(())
            }
            _ => self.end(&chain, kind, choices),
        }
    }

    /// The subject of a chain delegates a part of its first range to another node, and that publishes its record.
    fn issue(&mut self, chain: &Chain, choices: &mut Unstructured<'_>) -> Result<()> {
        let subject = choices.arbitrary::<u8>()? % NODES;
        let (longer, place) = (1 + choices.arbitrary::<u8>()? % 4, u32::from(choices.arbitrary::<u8>()?));
        let (serial, flags) = (choices.arbitrary::<u8>()?, choices.arbitrary::<u8>()?);
        let held = chain.ranges(&Ipv4Subnet::DEFAULT);
        let Some(outer) = held.iter().next() else { return Ok(()) };
        let prefix = (outer.prefix() + longer).min(32);
        let size = 1u32 << (32 - prefix);
        let first = outer.first().to_bits() + place % (outer.size() / size) * size;
        let Some(range) = AddressRange::new(Ipv4Addr::from_bits(first), prefix) else { return Ok(()) };
        let grant = Delegation {
            subject: testing::node(subject),
            invite: testing::invite(flags >> 1 & 1).id(),
            ranges: AddressRanges::from(range),
            serial: serial.into(),
            since: serial.into(),
            replaces: flags & 1 == 1,
            issued_at: NOW,
        };
        let issuer = number_of(chain.subject());
        let next = chain.appended(&testing::signed(chain.certificate(grant), issuer));
        if self.chains.len() < MAX_CHAINS && next.depth() <= 8 && next.verify(&testing::charter(0)).is_ok() {
            self.chains.push(next);
        }
        Ok(())
    }

    fn record(&mut self, chain: &Chain) {
        let (node, number) = (*chain.subject(), number_of(chain.subject()));
        if self.recorded.contains(&node) {
            return;
        }
        self.recorded.push(node);
        let record = Record {
            node,
            sequence: 1,
            control: testing::proven(number, number, DestinationRole::Primary),
            data: testing::proven(number + 100, number, DestinationRole::Data),
            wireguard: testing::wireguard_certificate(number),
            chain: chain.clone(),
            ..testing::record(0).value
        };
        self.statements.push(Message::news(vec![Item::Record(Box::new(testing::signed(record, number)))]));
    }

    fn end(&mut self, chain: &Chain, kind: u8, choices: &mut Unstructured<'_>) -> Result<()> {
        let number = choices.arbitrary::<u8>()?;
        let item = match kind {
            5 => {
                let place = usize::from(number) % chain.depth().max(1);
                let Some(issuer) = chain.ancestors().nth(place).copied() else { return Ok(()) };
                let revocation =
                    Revocation { issuer, target: Target::Certificate(chain.clone()), issued_at: NOW };
                Item::Revocation(Box::new(testing::signed(revocation, number_of(&issuer))))
            }
            6 => {
                let issuer = *chain.subject();
                let target = Target::Invite(chain.clone(), testing::invite(number % 2).id());
                let revocation = Revocation { issuer, target, issued_at: NOW };
                Item::Revocation(Box::new(testing::signed(revocation, number_of(&issuer))))
            }
            _ => {
                let resignation =
                    Resignation { chain: chain.clone(), last_serial: number.into(), issued_at: NOW };
                Item::Resignation(Box::new(testing::signed(resignation, number_of(chain.subject()))))
            }
        };
        self.statements.push(Message::news(vec![item]));
        Ok(())
    }
}

fn number_of(node: &NodeId) -> u8 {
    (0..NODES).find(|number| testing::node(*number) == *node).expect("one of the nodes")
}

/// A node that hears.
struct Hearer {
    mesh: Mesh,
    now: Now,
}

/// Whether a core is a member, the others that it knows with their addresses, the ends of memberships, and the sum of all.
type Summary = (bool, Vec<(NodeId, Ipv4Addr)>, Vec<Vec<u8>>, u128);

impl Hearer {
    /// A node that has heard these messages in this order, again and again until nothing changes.
    fn after(messages: &[&Message]) -> Self {
        let founder = Chain::founder(&testing::charter(0));
        let range = AddressRange::new([10, 42, 255, 0].into(), 25).expect("an aligned range");
        let grant = Delegation {
            subject: testing::node(HEARER),
            invite: testing::invite(9).id(),
            ranges: range.into(),
            serial: 0,
            since: 0,
            replaces: false,
            issued_at: NOW,
        };
        let chain = founder.appended(&testing::signed(founder.certificate(grant), 0));
        let mut state = State::new(testing::node(HEARER));
        state.membership = Some(Membership { charter: testing::signed_charter(0), chain, epoch: None });
        let me = testing::destination(HEARER);
        let identity =
            keyd::Identity { node: testing::node(HEARER), control: me, sealed: false, remembers: true };
        let settings = Settings {
            name: "fuzz".parse().expect("a name"),
            subnet: Ipv4Subnet::DEFAULT,
            heartbeat: Duration::from_secs(30),
            peer_timeout: Duration::from_secs(300),
            max_peers: 50,
            control_rate: 2000,
            interface: "i2plan0".to_owned(),
            mtu: 1280,
            keepalive: 25,
        };
        let now = Now { monotonic: Duration::from_secs(5), unix: Duration::from_secs(NOW) };
        let mut hearer = Self { mesh: Mesh::new(identity, settings, state, [7; 32], now), now };
        let datagrams: Vec<Vec<u8>> = messages.iter().map(|message| message.to_datagram(&me)).collect();
        // Each round settles at least what is nearest to the founder of what was open.
        for _ in 0..messages.len() + 3 {
            let before = hearer.summary();
            for datagram in &datagrams {
                hearer.mesh.handle_datagram(&testing::destination(SENDER), datagram, hearer.now);
                hearer.mesh.poll_turn();
                hearer.now.monotonic += Duration::from_secs(2);
            }
            hearer.now.monotonic += Duration::from_secs(3600);
            if hearer.summary() == before {
                return hearer;
            }
        }
        panic!("it does not come to rest: {:?}", hearer.summary());
    }

    /// What it knows: its network, the members with their addresses, the ends of memberships, and the sum of it.
    fn summary(&self) -> Summary {
        let mut members: Vec<_> =
            self.mesh.peer_reports(self.now).into_iter().map(|(node, peer)| (node, peer.ipv4)).collect();
        members.sort();
        let mut endings: Vec<_> = self.mesh.state().endings.iter().map(Codec::to_bytes).collect();
        endings.sort();
        if self.mesh.network().is_none() {
            return (false, Vec::new(), Vec::new(), 0);
        }
        (true, members, endings, self.mesh.fingerprint())
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    // See `Story::step` for what the numbers mean: 0 issues a certificate, 3 makes a record, 5 revokes, 6 revokes an
    // invite, 7 resigns. What is left over makes the order.
    let issue = |chain: u8, subject: u8, place: u8, serial: u8, flags: u8| {
        [0, chain, subject, 3, place, serial, flags]
    };
    let script = |parts: &[&[u8]]| [parts.concat().as_slice(), &[0; 16]].concat();
    // Three nodes in a row, and one that the founder has invited.
    let tree =
        [issue(0, 1, 1, 5, 0), issue(1, 2, 1, 6, 0), issue(2, 3, 1, 7, 2), issue(0, 4, 2, 8, 0)].concat();
    let records: Vec<u8> = (0..5).flat_map(|chain| [3, chain]).collect();
    let twice =
        [issue(0, 1, 1, 5, 0), issue(0, 2, 1, 7, 0), issue(0, 3, 1, 9, 0), issue(2, 4, 1, 1, 0)].concat();
    let replaced = [issue(0, 1, 1, 5, 0), issue(0, 2, 1, 7, 1), issue(0, 3, 1, 9, 0)].concat();
    // Node 1 holds the same addresses by the founder and by node 2.
    let crossed = [
        issue(0, 1, 1, 5, 0),
        issue(0, 2, 1, 7, 0),
        [0, 2, 1, 0, 1, 1, 0],
        [0, 1, 3, 3, 12, 9, 0],
        [0, 3, 4, 2, 4, 6, 0],
    ]
    .concat();
    let order: Vec<u8> = (0..14).map(|number| number * 5).collect();
    vec![
        seed("records", script(&[&tree, &records])),
        seed("revoked", script(&[&tree, &records, &[5, 2, 0, 5, 3, 2]])),
        seed("revoked-signer", [&tree, &records, &[5, 3, 2, 5, 2, 0, 5, 1, 0][..], &order].concat()),
        seed("invite", [&tree, &records, &[6, 2, 1, 6, 0, 0][..], &order].concat()),
        seed("resigned", [&tree, &records, &[7, 1, 0, 7, 2, 100, 7, 0, 7][..], &order].concat()),
        seed("twice", script(&[&twice, &records])),
        seed("replaced", script(&[&replaced, &records])),
        seed("crossed", script(&[&crossed, &[3, 4, 3, 5]])),
    ]
}
