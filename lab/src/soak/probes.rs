//! Probes between all nodes: UDP datagrams over the tunnel that the laboratory itself sends, echoes and counts.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval};

use super::outage::{Gap, InjectedFault};
use super::schedule::Cause;
use crate::{Failure, netns};

/// UDP port of the probes, on every node.
const PORT: u16 = 5002;

/// How often each node sends one to each other.
const EVERY: Duration = Duration::from_millis(250);

/// A probe without an answer after this is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// An answer after this is late.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// Traffic flows if one that was sent this long ago or later has been answered.
const FLOWING: Duration = Duration::from_secs(3);

/// If no probe was sent for this long, the laboratory itself had no processor.
const STALL: Duration = Duration::from_secs(2);

/// Most gaps that are kept; those after them count as lost probes only.
const MAX_GAPS: usize = 200_000;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// A probe that has not been counted yet.
#[derive(Debug)]
struct Sent {
    at: Duration,
    answered: Option<Duration>,
}

/// The probes from one node to another.
#[derive(Debug)]
pub struct Flow {
    from: usize,
    to: usize,
    target: SocketAddr,
    /// The number of the first one in `waiting`.
    first: u64,
    waiting: VecDeque<Sent>,
    /// The gap that has not ended.
    gap: Option<Gap>,
    /// When the last one was sent that has been answered.
    last_answered: Duration,
    /// How many were counted.
    pub sent: u64,
    /// How many of them were lost.
    pub lost: u64,
    /// How many of the others came late.
    pub late: u64,
}

impl Flow {
    fn new(from: usize, to: usize, target: SocketAddr) -> Self {
        let (waiting, gap) = (VecDeque::new(), None);
        Self {
            from,
            to,
            target,
            first: 0,
            waiting,
            gap,
            last_answered: Duration::ZERO,
            sent: 0,
            lost: 0,
            late: 0,
        }
    }

    /// The number of the probe that is sent now.
    fn send(&mut self, now: Duration) -> u64 {
        self.waiting.push_back(Sent { at: now, answered: None });
        self.first + self.waiting.len() as u64 - 1
    }

    fn handle_reply(&mut self, number: u64, now: Duration) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(sent) = index.and_then(|index| self.waiting.get_mut(index)) {
            sent.answered.get_or_insert(now);
            self.last_answered = self.last_answered.max(sent.at);
        }
    }

    /// Counts the probes whose fate is known, in the order in which they were sent. Returns the gaps that have ended.
    fn settle(&mut self, now: Duration) -> Vec<Gap> {
        let mut ended = Vec::new();
        while let Some(sent) = self.waiting.front() {
            let at = sent.at;
            match sent.answered {
                Some(answered) => {
                    self.late += u64::from(answered - at > LATE_AFTER);
                    ended.extend(self.gap.take().map(|gap| Gap { ends: at, ..gap }));
                }
                None if now < at + LOST_AFTER => break,
                None => {
                    self.lost += 1;
                    let new = Gap { from: self.from, to: self.to, begins: at, ends: at, lost: 0 };
                    self.gap.get_or_insert(new).lost += 1;
                }
            }
            self.sent += 1;
            self.first += 1;
            self.waiting.pop_front();
        }
        ended
    }
}

/// The probes between all nodes.
#[derive(Debug)]
pub struct Probes {
    started: Instant,
    sockets: Vec<UdpSocket>,
    /// One for each node and each other.
    flows: RefCell<Vec<Flow>>,
    gaps: RefCell<Vec<Gap>>,
}

impl Probes {
    /// Opens the sockets, in the nodes' namespaces.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn open(nodes: &[(String, Ipv4Addr)], started: Instant) -> Result<Self, Failure> {
        let mut sockets = Vec::new();
        for (name, _) in nodes {
            // Bound to no address: the interface comes and goes.
            let socket = netns::within(name, || {
                let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?;
            sockets.push(UdpSocket::from_std(socket)?);
        }
        let mut flows = Vec::new();
        for from in 0..nodes.len() {
            for (to, (_, address)) in nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                flows.push(Flow::new(from, to, SocketAddr::new(IpAddr::V4(*address), PORT)));
            }
        }
        Ok(Self { started, sockets, flows: RefCell::new(flows), gaps: RefCell::default() })
    }

    /// Sends, echoes and counts, until this is dropped. Stalls of the laboratory go to `faults`.
    ///
    /// # Errors
    /// If a socket fails.
    pub async fn run(&self, faults: &RefCell<Vec<InjectedFault>>) -> Result<(), Failure> {
        let receivers = try_join_all((0..self.sockets.len()).map(|node| self.receive(node)));
        tokio::select! {
            result = receivers => result.map(drop),
            () = self.send(faults) => Ok(()),
        }
    }

    async fn send(&self, faults: &RefCell<Vec<InjectedFault>>) {
        let flows = self.flows.borrow().len();
        // One flow after the other, so that there are no bursts.
        let mut ticks = interval(EVERY / u32::try_from(flows.max(1)).unwrap_or(u32::MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.started.elapsed();
        for index in (0..flows).cycle() {
            ticks.tick().await;
            let now = self.started.elapsed();
            if now > last + STALL {
                faults.borrow_mut().push(InjectedFault {
                    cause: Cause::Stall,
                    nodes: (0..self.sockets.len()).collect(),
                    begins: last,
                    over: Some(now),
                    bridge: None,
                    join: None,
                    failure: None,
                });
            }
            last = now;
            let (from, target, number) = {
                let flow = &mut self.flows.borrow_mut()[index];
                self.keep(flow.settle(now));
                (flow.from, flow.target, flow.send(now))
            };
            // Without an interface there is no way: the probe is lost like any other.
            let _ = self.sockets[from].try_send_to(&encode(REQUEST, index, number), target);
        }
    }

    async fn receive(&self, node: usize) -> Result<(), Failure> {
        let socket = &self.sockets[node];
        let mut buffer = [0; 64];
        loop {
            let Ok((len, sender)) = socket.recv_from(&mut buffer).await else {
                // What a probe of before has met on its way, for one.
                tokio::time::sleep(EVERY).await;
                continue;
            };
            match decode(&buffer[..len]) {
                Some((REQUEST, flow, number)) => {
                    let _ = socket.try_send_to(&encode(REPLY, flow, number), sender);
                }
                Some((REPLY, flow, number)) => {
                    let now = self.started.elapsed();
                    let mut flows = self.flows.borrow_mut();
                    if let Some(flow) = flows.get_mut(flow).filter(|flow| flow.from == node) {
                        flow.handle_reply(number, now);
                    }
                }
                _ => {}
            }
        }
    }

    fn keep(&self, ended: Vec<Gap>) {
        let mut gaps = self.gaps.borrow_mut();
        let room = MAX_GAPS - gaps.len();
        gaps.extend(ended.into_iter().take(room));
    }

    /// Whether traffic flows from every node to every other.
    #[must_use]
    pub fn all_flow(&self) -> bool {
        let now = self.started.elapsed();
        self.flows.borrow().iter().all(|flow| now < flow.last_answered + FLOWING)
    }

    /// How many probes were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.flows.borrow().iter().map(|flow| flow.lost).sum()
    }

    /// The gaps that have ended from number `first` on, in the order in which they ended.
    #[must_use]
    pub fn gaps_from(&self, first: usize) -> Vec<Gap> {
        self.gaps.borrow().get(first..).unwrap_or_default().to_vec()
    }

    /// Ends all gaps, and returns them with what was counted. Probes that are on their way do not count.
    #[must_use]
    pub fn finish(self) -> (Vec<Gap>, Vec<Flow>) {
        let now = self.started.elapsed();
        let (mut gaps, mut flows) = (self.gaps.into_inner(), self.flows.into_inner());
        for flow in &mut flows {
            gaps.extend(flow.settle(now));
            gaps.extend(flow.gap.take().map(|gap| Gap { ends: now, ..gap }));
        }
        (gaps, flows)
    }
}

fn encode(kind: u8, flow: usize, number: u64) -> [u8; 11] {
    let mut datagram = [kind; 11];
    datagram[1..3].copy_from_slice(&u16::try_from(flow).unwrap_or(u16::MAX).to_be_bytes());
    datagram[3..].copy_from_slice(&number.to_be_bytes());
    datagram
}

fn decode(datagram: &[u8]) -> Option<(u8, usize, u64)> {
    let (kind, rest) = datagram.split_first()?;
    let (flow, number) = rest.split_first_chunk()?;
    Some((*kind, u16::from_be_bytes(*flow).into(), u64::from_be_bytes(number.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_probes_make_gaps_in_the_order_in_which_they_were_sent() {
        let mut flow = Flow::new(0, 1, ([10, 9, 0, 1], PORT).into());
        let at = Duration::from_secs;
        for second in 0..6 {
            assert_eq!(flow.send(at(second)), second);
        }
        // The second and third are never answered; the fourth is, before the first, and that late.
        flow.handle_reply(3, at(4));
        flow.handle_reply(0, at(8));
        assert_eq!(flow.settle(at(9)), []);
        let gap = Gap { from: 0, to: 1, begins: at(1), ends: at(3), lost: 2 };
        assert_eq!(flow.settle(at(12)), [gap]);
        assert_eq!((flow.sent, flow.lost, flow.late), (4, 2, 1));
        // An answer to one that has been counted, and one to none.
        flow.handle_reply(1, at(12));
        flow.handle_reply(99, at(12));
        assert_eq!(flow.last_answered, at(3));
    }

    #[test]
    fn probes_are_decoded_as_they_were_encoded() {
        assert_eq!(decode(&encode(REPLY, 300, 1 << 40)), Some((REPLY, 300, 1 << 40)));
        assert_eq!(decode(&encode(REPLY, 1, 1)[..10]), None);
    }
}
