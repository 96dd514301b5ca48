//! The self-test of a session: a datagram that the session sends to itself through the router.
//!
//! A bridge takes datagrams at a UDP port of which it says nothing on its connection, and drops without a word what it
//! cannot deliver. What comes back shows that the port is right, that the bridge forwards to this node, and that the
//! session's tunnels carry datagrams. Without a configured port the ports that routers use are tried in turn.

use std::time::Duration;

use crate::endpoint::AnyDestination;

use super::datagram;
use super::session::Style;

/// The usual UDP port of a bridge.
pub const UDP_PORT: u16 = 7655;

/// The time between two probes of a port. A router may drop the first datagram to a destination that it has yet to find.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the answers of one port are waited for before the next one's turn, in the first round; in each round after
/// that it is so much longer, for tunnels that are slower.
const TURN: Duration = Duration::from_secs(2);

/// How long something may take to come back. Tunnels are built by the time that a session is open.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// How long ports at which nothing takes datagrams are probed: a router that starts may be about to open one.
const REFUSED_DEADLINE: Duration = Duration::from_secs(10);

/// What every probe begins with.
pub const PROBE: &[u8] = b"i2plan self-test ";

/// The UDP ports that the bridge with this TCP port may have unless it is configured otherwise, in the order in which they
/// are tried: the usual one, and i2pd's, which is below that of TCP.
#[must_use]
pub fn usual_ports(tcp: u16) -> Vec<u16> {
    let below = tcp.checked_sub(1).filter(|port| ![0, UDP_PORT].contains(port));
    [UDP_PORT].into_iter().chain(below).collect()
}

/// Whether a bridge that agrees to this version of SAM brings back what a session sends to itself, if all is well. Java I2P,
/// which agrees to 3.3, drops it since version 2.5 (`ClientManager.distributeMessage`). i2pd 2.58 agrees to 3.3 as well.
#[must_use]
pub fn loops_back(version: &str) -> bool {
    version != "3.3"
}

/// A self-test. Times count from any fixed instant.
#[derive(Debug)]
pub struct SelfTest {
    style: Style,
    destination: AnyDestination,
    /// A probe, as the bridge takes it.
    datagram: Vec<u8>,
    /// Its payload.
    payload: Vec<u8>,
    ports: Vec<Port>,
    /// The position of the port whose turn it is.
    current: usize,
    round: u32,
    turn_ends: Duration,
    deadline: Duration,
    refused_deadline: Duration,
}

#[derive(Debug)]
struct Port {
    number: u16,
    /// When the next probe may be sent to it.
    next: Duration,
    /// Probes that were sent to it.
    sent: u32,
    /// Refusals that came back. A system may tell of several at once.
    refusals: u32,
}

impl SelfTest {
    /// Begins the test of a session through these ports of its bridge. `nonce` is random: who cannot see what this node
    /// sends to its router cannot make what is taken for a probe.
    ///
    /// # Panics
    /// If there are no ports.
    #[must_use]
    pub fn new(
        style: Style,
        session: &str,
        destination: AnyDestination,
        nonce: [u8; 16],
        ports: &[u16],
        now: Duration,
    ) -> Self {
        assert!(!ports.is_empty(), "a bridge has a UDP port");
        let payload = [PROBE, &nonce].concat();
        let ports =
            ports.iter().map(|number| Port { number: *number, next: now, sent: 0, refusals: 0 }).collect();
        Self {
            style,
            datagram: datagram::encode_to(session, &destination.to_base64(), &payload),
            destination,
            payload,
            ports,
            current: 0,
            round: 0,
            turn_ends: now + TURN,
            deadline: now + DEADLINE,
            refused_deadline: now + REFUSED_DEADLINE,
        }
    }

    /// The port whose turn it is: probes go there, and what comes back comes from there.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports[self.current].number
    }

    /// The next probe to send to [`SelfTest::port`], if one is due.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<&[u8]> {
        let port = &mut self.ports[self.current];
        if port.next > now {
            return None;
        }
        port.next = now + PROBE_INTERVAL;
        port.sent += 1;
        Some(&self.datagram)
    }

    /// What a probe says, for one that is sent in another way.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// When [`SelfTest::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.ports[self.current].next.min(self.turn_ends).min(self.deadline)
    }

    /// Passes on to the next port when it is its turn. False if the time for the test is over.
    pub fn handle_timeout(&mut self, now: Duration) -> bool {
        if now >= self.turn_ends {
            self.next_turn(now);
        }
        now < self.deadline && !(self.is_refused() && now >= self.refused_deadline)
    }

    /// Takes note that nothing takes datagrams at the port whose turn it is.
    pub fn handle_refusal(&mut self, now: Duration) {
        self.ports[self.current].refusals += 1;
        if self.ports.len() > 1 {
            self.next_turn(now);
        }
    }

    fn next_turn(&mut self, now: Duration) {
        self.current = (self.current + 1) % self.ports.len();
        if self.current == 0 {
            self.round += 1;
        }
        self.turn_ends = now + TURN * (self.round + 1);
    }

    /// Whether this is a probe of this test that has come back, as the bridge forwards it.
    #[must_use]
    pub fn handle_datagram(&self, forwarded: &[u8]) -> bool {
        match self.style {
            Style::Raw => forwarded == self.payload,
            Style::Datagram => datagram::decode_any(forwarded)
                .is_ok_and(|received| received.payload == self.payload && received.from == self.destination),
        }
    }

    /// Whether nothing takes datagrams at any of the ports, as far as that shows.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.ports.iter().all(Port::is_refused)
    }

    /// The first port at which something may take datagrams, once all have been probed.
    #[must_use]
    pub fn silent_port(&self) -> Option<u16> {
        let probed = self.ports.iter().all(|port| port.sent > 0);
        self.ports.iter().find(|port| probed && !port.is_refused()).map(|port| port.number)
    }
}

impl Port {
    fn is_refused(&self) -> bool {
        self.refusals > 0 && self.refusals * 2 >= self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Destination;

    const NONCE: [u8; 16] = [7; 16];

    fn destination() -> Destination {
        Destination { padding: [3; 32], signing_key: [4; 32] }
    }

    fn start(style: Style, ports: &[u16]) -> SelfTest {
        SelfTest::new(style, "s-1", destination().into(), NONCE, ports, Duration::ZERO)
    }

    fn payload(datagram: &[u8]) -> Vec<u8> {
        let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
        datagram[end + 1..].to_vec()
    }

    /// The ports that are probed, with the times in milliseconds, until the test is over.
    fn schedule(mut test: SelfTest) -> Vec<(u128, u16)> {
        let (mut now, mut probes) = (Duration::ZERO, Vec::new());
        loop {
            if test.poll_transmit(now).is_some() {
                probes.push((now.as_millis(), test.port()));
            }
            assert!(test.poll_timeout() > now, "time goes on");
            now = test.poll_timeout();
            if !test.handle_timeout(now) {
                return probes;
            }
        }
    }

    #[test]
    fn one_port_is_probed_every_second_until_the_deadline() {
        let probes = schedule(start(Style::Raw, &[7655]));
        let every_second = (0..DEADLINE.as_secs()).map(|second| (u128::from(second) * 1000, 7655));
        assert_eq!(probes, every_second.collect::<Vec<_>>());
    }

    #[test]
    fn ports_take_turns_which_grow() {
        let probes = schedule(start(Style::Raw, &[7655, 7665]));
        let turns = probes.chunk_by(|one, other| one.1 == other.1);
        let turns: Vec<_> = turns.map(|turn| (turn[0].1, turn.len())).collect();
        assert_eq!(turns[..6], [(7655, 2), (7665, 2), (7655, 4), (7665, 4), (7655, 6), (7665, 6)]);
    }

    #[test]
    fn a_closed_port_costs_no_time_and_no_storm() {
        let mut test = start(Style::Raw, &[7655, 7665]);
        let mut now = Duration::from_millis(1);
        assert!(test.poll_transmit(now).is_some());
        test.handle_refusal(now);
        assert_eq!(test.port(), 7665);
        assert!(test.poll_transmit(now).is_some() && !test.is_refused());
        // Both are closed: each is probed once a second all the same.
        let mut sent = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            test.handle_refusal(now);
            assert!(test.handle_timeout(now));
            sent += usize::from(test.poll_transmit(now).is_some());
        }
        assert!(sent <= 2 && test.is_refused(), "{sent}");
    }

    #[test]
    fn closed_ports_are_given_up_before_the_deadline() {
        for ports in [&[7655][..], &[7655, 7665]] {
            let mut test = start(Style::Raw, ports);
            let mut now = Duration::ZERO;
            loop {
                if test.poll_transmit(now).is_some() {
                    test.handle_refusal(now);
                }
                now += Duration::from_millis(100);
                if !test.handle_timeout(now) {
                    break;
                }
            }
            assert!(test.is_refused());
            assert_eq!(now, REFUSED_DEADLINE);
        }
    }

    #[test]
    fn one_refusal_is_no_closed_port() {
        let mut test = start(Style::Raw, &[7655]);
        for second in 0..DEADLINE.as_secs() {
            let now = Duration::from_secs(second);
            assert!(test.handle_timeout(now) && test.poll_transmit(now).is_some());
            if second == 0 {
                test.handle_refusal(now);
            }
        }
        assert!(!test.is_refused() && !test.handle_timeout(DEADLINE));
    }

    #[test]
    fn only_what_was_sent_has_come_back() {
        let mut test = start(Style::Raw, &[7655]);
        let probe = payload(test.poll_transmit(Duration::ZERO).unwrap());
        assert!(test.handle_datagram(&probe));
        for other in [&b""[..], PROBE, &probe[..probe.len() - 1], &[&probe[..], b"x"].concat()] {
            assert!(!test.handle_datagram(other));
        }
        let other = SelfTest::new(Style::Raw, "s-1", destination().into(), [8; 16], &[7655], Duration::ZERO);
        assert!(!other.handle_datagram(&probe));
    }

    #[test]
    fn what_another_destination_sends_has_not_come_back() {
        let mut test = start(Style::Datagram, &[7655]);
        let probe = payload(test.poll_transmit(Duration::ZERO).unwrap());
        let from = |destination: &Destination| {
            [format!("{} FROM_PORT=0 TO_PORT=0\n", destination.to_base64()).as_bytes(), &probe].concat()
        };
        assert!(test.handle_datagram(&from(&destination())));
        assert!(!test.handle_datagram(&from(&Destination { padding: [9; 32], signing_key: [4; 32] })));
        assert!(!test.handle_datagram(&probe));
    }
}
