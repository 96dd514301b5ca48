//! Moves packets between the interface, the tunnel and the session's socket.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use boringtun::x25519::StaticSecret;
use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{Drops, Handshakes, PeerStats, StaticPeerReport};
use i2plan_ipc::daemon::panics::{Panicked, Throttle, contain};
use i2plan_ipc::secret::SecretKey;
use i2plan_proto::identity::NodeId;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{debug, error, info};

use crate::batch::Batch;
use crate::device::Device;
use crate::fd_store::PeerPlace;
use crate::offload::{Coalescer, ReadBuffer};
use crate::readiness;
use crate::roster::Changes;
use crate::session::{Session, Shared};
use crate::tunnel::{MAX_FORWARDED_LINE, MAX_MESSAGE, Tunnel};
use crate::uapi::codec::PeerStatus;

/// Packets read from one side before the other has its turn.
pub const BATCH: usize = 32;

/// Packets that the queue of an interface may hold: Linux's has 500 by default.
const MAX_LEFT: usize = 1024;

/// How long the session before the present one is still heard: until members have learned of the new destination and what
/// they sent to the one before has come.
const LINGER: Duration = Duration::from_secs(60);

/// The datagram of a test, bytes.
const TEST_LEN: usize = 32;

/// Without the second, the end of an interface that is deleted goes unnoticed.
const DEVICE_READY: Interest = Interest::READABLE.add(Interest::ERROR);

/// What the data path is asked to do between packets. Each answers when it is done.
#[derive(Debug)]
pub enum DataPathCommand {
    /// Go through this session.
    Attach(Session, oneshot::Sender<Result<(), ApiError>>),
    /// Share the session, if there is one.
    Take(oneshot::Sender<Option<io::Result<Shared>>>),
    /// Use this WireGuard key from now on.
    Rotate(SecretKey, oneshot::Sender<()>),
    /// Have other peers.
    ChangePeers(Changes, oneshot::Sender<()>),
    /// Keep so many tunnels.
    SetLimit(u32, oneshot::Sender<()>),
    /// Know that these members have given a sign of life.
    NoteAlive(Vec<NodeId>, oneshot::Sender<()>),
    /// Take no more from the interface than is there, and send what waits. The answer is whether that is done, in this
    /// time at the latest.
    Drain(Duration, oneshot::Sender<bool>),
    /// Look whether the session's socket still leads to the bridge.
    CheckSession(oneshot::Sender<()>),
    /// Send a datagram to the session's own destination, and begin handshakes with these members. Answered when the
    /// datagram has come back.
    Test(Vec<NodeId>, oneshot::Sender<()>),
    /// Count.
    Stats(oneshot::Sender<Counted>),
    /// Tell all peers.
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    /// Tell where static peers are.
    StaticPlaces(oneshot::Sender<Vec<PeerPlace>>),
    /// Tell of all static peers.
    StaticPeers(oneshot::Sender<Vec<StaticPeerReport>>),
}

/// What the data path has counted.
#[derive(Debug, Default)]
pub struct Counted {
    /// The session's id.
    pub session: Option<String>,
    /// How long ago a peer was last heard through it.
    pub heard: Option<Duration>,
    /// How long ago the first message was sent after that which calls for an answer.
    pub unanswered: Option<Duration>,
    /// Each peer.
    pub peers: Vec<PeerStats>,
    /// What belongs to none.
    pub drops: Drops,
    /// The handshakes with all peers.
    pub handshakes: Handshakes,
    /// What was found of the session's socket, if the session was given up for that.
    pub diverted: Option<String>,
}

/// The data path with its descriptors.
pub struct DataPath {
    device: AsyncFd<Device>,
    tunnel: Tunnel,
    session: Option<Attached>,
    /// The session before, which members may still send to, until the time.
    previous: Option<(Attached, tokio::time::Instant)>,
    /// The test that is under way.
    test: Option<Test>,
    /// Why there is no session any more.
    diverted: Option<String>,
    commands: mpsc::Receiver<DataPathCommand>,
    /// A datagram.
    packet: Box<[u8]>,
    batch: Batch,
    read: ReadBuffer,
    pending: Coalescer,
    draining: Option<Draining>,
    turns: Turns,
    /// Told when a static peer has moved.
    moved: Arc<Notify>,
    panics: Panics,
}

/// The datagrams that made the tunnel panic.
struct Panics {
    started: Instant,
    throttle: Throttle,
}

impl Panics {
    fn note(&mut self, panicked: &Panicked, now: Instant) {
        if let Some(suppressed) = self.throttle.admit(now.saturating_duration_since(self.started)) {
            let Panicked { location, message } = panicked;
            error!(%location, error = %message, suppressed, "a datagram made the tunnel panic");
        }
    }
}

/// The process is to stop.
struct Draining {
    until: Instant,
    /// Taken when it has been answered.
    done: Option<oneshot::Sender<bool>>,
}

/// How often a data path has looked for what there is to do: the sign that it works.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<AtomicU64>);

impl Turns {
    /// The number, which wraps around.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A datagram to the session's own destination. It begins like no message of WireGuard.
struct Test {
    datagram: [u8; TEST_LEN],
    done: oneshot::Sender<()>,
}

/// A datagram that has come.
struct Incoming {
    len: usize,
    /// The kernel keeps others' from a connected socket, as long as it is connected to the bridge.
    from_bridge: bool,
    /// It has come through the session before the present one.
    late: bool,
}

struct Attached {
    session: Session,
    /// A duplicate of the session's UDP socket, to wait for datagrams with.
    incoming: UdpSocket,
}

/// What there is to do.
enum Wakeup<'a> {
    Packets(AsyncFdReadyGuard<'a, Device>),
    Datagrams,
    Time,
    Command(Option<DataPathCommand>),
}

impl DataPath {
    /// A data path over a device that does not block. `moved` is told whenever a static peer is elsewhere.
    ///
    /// # Errors
    /// If the device cannot be waited for.
    pub fn new(
        device: Device,
        tunnel: Tunnel,
        commands: mpsc::Receiver<DataPathCommand>,
        moved: Arc<Notify>,
    ) -> io::Result<Self> {
        Ok(Self {
            device: readiness::register(device)?,
            tunnel,
            session: None,
            previous: None,
            test: None,
            diverted: None,
            commands,
            // A byte more than may be, so that what is too long is seen to be.
            packet: vec![0; MAX_MESSAGE + MAX_FORWARDED_LINE + 1].into(),
            batch: Batch::default(),
            read: ReadBuffer::default(),
            pending: Coalescer::default(),
            draining: None,
            turns: Turns::default(),
            moved,
            panics: Panics { started: Instant::now(), throttle: Throttle::default() },
        })
    }

    /// Counts its turns, of which there are some in every second.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// Runs until nobody can command it any more.
    ///
    /// # Errors
    /// If the interface is gone.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            self.turns.0.fetch_add(1, Ordering::Relaxed);
            self.send();
            if self.tunnel.take_moved() {
                self.moved.notify_one();
            }
            let deadline = self.drain(self.tunnel.poll_timeout(Instant::now()));
            let deadline = self.end_previous(deadline);
            // Of an interface that goes away with this process nothing more is taken.
            let device = self.draining.is_none().then_some(&self.device);
            let previous = self.previous.as_ref().map(|(attached, _)| attached);
            match next_event(device, self.session.as_ref(), previous, &mut self.commands, deadline).await? {
                Wakeup::Packets(ready) => read_interface(ready, &mut self.tunnel, &mut self.read)?,
                Wakeup::Datagrams => self.read_socket(),
                Wakeup::Time => self.tunnel.handle_timeout(Instant::now()),
                Wakeup::Command(Some(command)) => self.command(command),
                Wakeup::Command(None) => return Ok(()),
            }
        }
    }

    fn read_socket(&mut self) {
        let (mut strange, mut lost) = (false, 0);
        let now = Instant::now();
        for _ in 0..BATCH {
            let Some(Incoming { len, from_bridge, late }) = self.receive() else { break };
            if !from_bridge {
                strange = true;
                continue;
            }
            let message = &self.packet[..len];
            // A static interface may have its own destination before it.
            if self.test.as_ref().is_some_and(|test| message.ends_with(&test.datagram))
                && let Some(test) = self.test.take()
            {
                let _ = test.done.send(());
                continue;
            }
            let tunnel = &mut self.tunnel;
            let packet = contain(move || {
                if late {
                    tunnel.handle_late_datagram(message, now)
                } else {
                    tunnel.handle_datagram(message, now)
                }
            });
            let packet = packet.unwrap_or_else(|panicked| {
                self.panics.note(&panicked, now);
                None
            });
            if let Some(packet) = packet {
                lost += self.device.get_ref().send_soon(packet, &mut self.pending);
            }
        }
        lost += self.device.get_ref().flush(&mut self.pending);
        self.tunnel.note_interface_full(lost);
        if strange {
            self.check_session();
        }
    }

    /// Takes a datagram of the session, or else of the one before.
    fn receive(&mut self) -> Option<Incoming> {
        let previous = self.previous.as_ref().map(|(attached, _)| (attached, true));
        let present = self.session.as_ref().map(|attached| (attached, false));
        for (Attached { session, incoming }, late) in present.into_iter().chain(previous) {
            match incoming.try_recv_from(&mut self.packet) {
                Ok((len, from)) => return Some(Incoming { len, from_bridge: session.is_bridge(from), late }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What is left of an earlier datagram, such as an ICMP error, says nothing about the socket.
                Err(error) => debug!(%error, "the session's socket reports an error"),
            }
        }
        None
    }

    /// Ends the session before the present one when its time has come. Returns when to look again, by `deadline` at the
    /// latest.
    fn end_previous(&mut self, deadline: Instant) -> Instant {
        match self.previous {
            Some((_, until)) if until > tokio::time::Instant::now() => deadline.min(until.into_std()),
            _ => {
                self.quit_previous();
                deadline
            }
        }
    }

    fn quit_previous(&mut self) {
        if let Some((before, _)) = self.previous.take() {
            before.session.quit();
        }
    }

    /// Sends a datagram to the session's own destination.
    fn begin_test(&mut self, nodes: &[NodeId], done: oneshot::Sender<()>) {
        let mut datagram = [0; TEST_LEN];
        let Some(Attached { session, .. }) = &self.session else { return };
        // The first byte stays 0. Others cannot know the rest.
        rand::fill(&mut datagram[1..]);
        if let Err(error) = session.send_to_itself(&datagram) {
            debug!(%error, "the session's socket does not take a datagram");
        }
        self.test = Some(Test { datagram, done });
        self.tunnel.test(nodes, Instant::now());
    }

    /// Gives the session up if its socket does not lead to the bridge any more. Whoever else holds a duplicate can connect
    /// it elsewhere; then nothing comes in any more, or what others send.
    fn check_session(&mut self) {
        let Some(Attached { session, .. }) = &self.session else { return };
        if let Err(found) = session.check_socket() {
            error!(
                session = session.id.as_str(),
                error = found,
                "gave up a session that another process led astray"
            );
            self.diverted = Some(found);
            self.session = None;
            self.tunnel.end_session();
        }
    }

    /// Sends what may go now. Never waits: the pacer, not the socket, holds packets back.
    fn send(&mut self) {
        let Some(Attached { session, .. }) = &self.session else { return };
        let mut lost = 0;
        let now = Instant::now();
        while let Some(datagram) = self.tunnel.poll_datagram(now) {
            if !self.batch.takes(datagram) {
                lost += session.send_all(&mut self.batch);
            }
            self.batch.push(datagram);
        }
        lost += session.send_all(&mut self.batch);
        if lost > 0 {
            self.tunnel.note_send_failed(lost);
            self.check_session();
        }
    }

    /// Answers whoever waits for all to be sent, once that is so or its time is over. Returns when to look again, by
    /// `deadline` at the latest.
    fn drain(&mut self, deadline: Instant) -> Instant {
        let Some(draining) = &mut self.draining else { return deadline };
        if draining.done.is_none() {
            return deadline;
        }
        let drained = self.tunnel.is_drained() || self.session.is_none();
        if (drained || draining.until <= Instant::now())
            && let Some(done) = draining.done.take()
        {
            let _ = done.send(drained);
        }
        deadline.min(draining.until)
    }

    /// Takes what programs have sent already.
    fn empty_interface(&mut self) {
        for _ in 0..MAX_LEFT {
            let (tunnel, now) = (&mut self.tunnel, Instant::now());
            let read = self.device.get_ref().recv(&mut self.read, |packet| {
                // Nobody waits for the answer that something cannot be reached any more.
                tunnel.handle_packet(packet, now);
            });
            if read.is_err() {
                return;
            }
        }
    }

    fn command(&mut self, command: DataPathCommand) {
        // Whoever asked may have gone; that is theirs to know.
        match command {
            DataPathCommand::Attach(session, done) => drop(done.send(self.attach(session))),
            DataPathCommand::Take(done) => {
                let shared = self.session.as_ref().map(|attached| attached.session.share());
                drop(done.send(shared));
            }
            DataPathCommand::Rotate(key, done) => {
                self.tunnel.rotate(StaticSecret::from(key.0), Instant::now());
                let _ = done.send(());
            }
            DataPathCommand::SetLimit(tunnels, done) => {
                self.tunnel.set_limit(usize::try_from(tunnels).unwrap_or(usize::MAX), Instant::now());
                let _ = done.send(());
            }
            DataPathCommand::NoteAlive(nodes, done) => {
                self.tunnel.note_alive(&nodes, Instant::now());
                let _ = done.send(());
            }
            DataPathCommand::Drain(time, done) => {
                self.empty_interface();
                self.draining = Some(Draining { until: Instant::now() + time, done: Some(done) });
            }
            DataPathCommand::ChangePeers(Changes { set, removed }, done) => {
                self.tunnel.change_peers(set, &removed, Instant::now());
                let _ = done.send(());
            }
            DataPathCommand::CheckSession(done) => {
                self.check_session();
                let _ = done.send(());
            }
            DataPathCommand::Test(nodes, done) => self.begin_test(&nodes, done),
            DataPathCommand::StaticPlaces(done) => drop(done.send(self.tunnel.static_places())),
            DataPathCommand::StaticPeers(done) => {
                drop(done.send(self.tunnel.static_reports(Instant::now())));
            }
            DataPathCommand::Peers(done) => drop(done.send(self.tunnel.peers(Instant::now()))),
            DataPathCommand::Stats(done) => drop(done.send(Counted {
                heard: self.tunnel.heard(Instant::now()),
                unanswered: self.tunnel.unanswered(Instant::now()),
                session: self.session.as_ref().map(|attached| attached.session.id.as_str().to_owned()),
                peers: self.tunnel.peer_stats(Instant::now()),
                drops: self.tunnel.drops(),
                handshakes: self.tunnel.handshakes(),
                diverted: self.diverted.clone(),
            })),
        }
    }

    fn attach(&mut self, session: Session) -> Result<(), ApiError> {
        let incoming = session.udp.try_clone().and_then(UdpSocket::from_std);
        let incoming = incoming
            .map_err(|error| ApiError::internal(format!("cannot wait for the session's socket: {error}")))?;
        info!(session = session.id.as_str(), "attached");
        self.tunnel.set_session(session.id.clone(), Instant::now());
        let before = self.session.replace(Attached { session, incoming });
        self.quit_previous();
        // One that the router has ended is of no use.
        self.previous = before
            .filter(|before| before.session.check_alive().is_ok())
            .map(|before| (before, tokio::time::Instant::now() + LINGER));
        self.test = None;
        self.diverted = None;
        Ok(())
    }
}

async fn next_event<'a>(
    device: Option<&'a AsyncFd<Device>>,
    session: Option<&Attached>,
    previous: Option<&Attached>,
    commands: &mut mpsc::Receiver<DataPathCommand>,
    deadline: Instant,
) -> io::Result<Wakeup<'a>> {
    let readable = async |session: Option<&Attached>| match session {
        Some(attached) => attached.incoming.readable().await,
        None => std::future::pending().await,
    };
    let datagrams = async {
        tokio::select! {
            ready = readable(session) => ready,
            ready = readable(previous) => ready,
        }
    };
    let packets = async {
        match device {
            Some(device) => device.ready(DEVICE_READY).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ready = packets => ready.map(Wakeup::Packets),
        ready = datagrams => ready.map(|()| Wakeup::Datagrams),
        () = sleep_until(deadline.into()) => Ok(Wakeup::Time),
        command = commands.recv() => Ok(Wakeup::Command(command)),
    }
}

fn read_interface(
    mut ready: AsyncFdReadyGuard<'_, Device>,
    tunnel: &mut Tunnel,
    buffer: &mut ReadBuffer,
) -> io::Result<()> {
    let mut packets = 0;
    for _ in 0..BATCH {
        let read = ready.try_io(|device| {
            let (device, now) = (device.get_ref(), Instant::now());
            device.recv(buffer, |packet| {
                packets += 1;
                if let Some(answer) = tunnel.handle_packet(packet, now)
                    && let Err(error) = device.send(answer)
                {
                    debug!(%error, "the interface does not take an answer");
                }
            })
        });
        match read {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => break,
        }
        if packets >= BATCH {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixDatagram;

    use boringtun::x25519::{PublicKey, StaticSecret};
    use i2plan_ipc::api::tund;
    use i2plan_ipc::bridge::Bridge;
    use i2plan_proto::destination::Destination;
    use i2plan_proto::identity::NetworkId;

    use super::*;
    use crate::interface::Subnets;
    use crate::offload;
    use crate::tunnel::{AllowedIps, PeerConfig};

    fn interface() -> tund::Interface {
        tund::Interface {
            name: "i2plan0".to_owned(),
            network: NetworkId([0; 32]),
            ipv4: [10, 42, 0, 1].into(),
            ipv4_prefix: 16,
            ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
            ipv6_prefix: 64,
            mtu: 1280,
        }
    }

    fn destination() -> Destination {
        Destination { padding: [2; 32], signing_key: [2; 32] }
    }

    fn peer() -> PeerConfig {
        PeerConfig {
            node: NodeId([2; 32]),
            public_key: PublicKey::from(&StaticSecret::from([2; 32])).to_bytes(),
            preshared_key: None,
            endpoint: Some(destination().into()),
            allowed_ips: AllowedIps::Member([10, 42, 0, 2].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
            keepalive: 25,
            takes_reports: false,
        }
    }

    fn only_peer() -> Changes {
        Changes { set: vec![peer()], removed: Vec::new() }
    }

    /// A data path whose interface is a socket pair and whose bridge is the test.
    struct Fixture {
        host: tokio::net::UnixDatagram,
        commands: mpsc::Sender<DataPathCommand>,
        bridge: UdpSocket,
        listener: TcpListener,
    }

    impl Fixture {
        async fn new() -> Self {
            Self::with_device(|device| Device::from_socket(device, false)).await
        }

        async fn with_device(device_of: impl FnOnce(UnixDatagram) -> Device) -> Self {
            let (host, device) = UnixDatagram::pair().unwrap();
            host.set_nonblocking(true).unwrap();
            device.set_nonblocking(true).unwrap();
            let device = device_of(device);
            let tunnel =
                Tunnel::new(StaticSecret::from([1; 32]), Some(Subnets::of(&interface())), Instant::now());
            let (commands, receiver) = mpsc::channel(4);
            tokio::spawn(DataPath::new(device, tunnel, receiver, Arc::default()).unwrap().run());
            Self {
                host: tokio::net::UnixDatagram::from_std(host).unwrap(),
                commands,
                bridge: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
                listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            }
        }

        async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> DataPathCommand) -> T {
            let (done, answer) = oneshot::channel();
            self.commands.send(command(done)).await.unwrap();
            answer.await.unwrap()
        }

        /// Attaches a session; the addresses of its UDP socket and, as its other end, its control connection.
        async fn attach(&self, id: &str) -> (std::net::SocketAddr, TcpStream) {
            let (address, router, _) = self.attach_shared(id).await;
            (address, router)
        }

        /// The same with a duplicate of the UDP socket.
        async fn attach_shared(&self, id: &str) -> (std::net::SocketAddr, TcpStream, std::net::UdpSocket) {
            let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            udp.connect(self.bridge.local_addr().unwrap()).unwrap();
            let address = udp.local_addr().unwrap();
            let control = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (router, _) = self.listener.accept().unwrap();
            let session = tund::Session { id: id.to_owned(), destination: destination() };
            let duplicate = udp.try_clone().unwrap();
            let session = Session::adopt(session, vec![udp.into(), control.into()], &self.at()).unwrap();
            self.ask(|done| DataPathCommand::Attach(session, done)).await.unwrap();
            (address, router, duplicate)
        }

        /// Where its bridge is.
        fn at(&self) -> Bridge {
            let address = self.listener.local_addr().unwrap();
            Bridge { address: address.into(), udp_port: Some(self.bridge.local_addr().unwrap().port()) }
        }

        async fn stats(&self) -> Counted {
            self.ask(DataPathCommand::Stats).await
        }
    }

    #[tokio::test]
    async fn handshakes_go_to_the_bridge_under_the_session() {
        let fixture = Fixture::new().await;
        let (from, _router) = fixture.attach("data-1").await;
        fixture.ask(|done| DataPathCommand::ChangePeers(only_peer(), done)).await;
        let mut datagram = [0; 2000];
        let (len, sender) = fixture.bridge.recv_from(&mut datagram).await.unwrap();
        assert_eq!(sender, from);
        let line = format!("3.0 data-1 {}\n", destination().to_base64());
        assert!(datagram.starts_with(line.as_bytes()));
        assert_eq!((datagram[line.len()], len), (1, line.len() + 148));
        assert_eq!(fixture.stats().await.peers[0].tx_packets, 1);
    }

    #[tokio::test]
    async fn datagrams_that_are_for_nobody_are_counted_and_those_of_strangers_not_even_heard() {
        let fixture = Fixture::new().await;
        let (to, _router) = fixture.attach("data-1").await;
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(&[4; 100], to).await.unwrap();
        fixture.bridge.send_to(&[4; 100], to).await.unwrap();
        while fixture.stats().await.drops.unknown < 1 {
            tokio::task::yield_now().await;
        }
        // What was sent first would have been counted first.
        assert_eq!(fixture.stats().await.drops.unknown, 1);
    }

    #[tokio::test]
    async fn packets_to_nobody_are_answered() {
        let fixture = Fixture::new().await;
        let packet = packet();
        fixture.host.send(&packet).await.unwrap();
        let mut answer = [0; 2000];
        let len = fixture.host.recv(&mut answer).await.unwrap();
        assert!(answer[..len].ends_with(&packet));
        assert_eq!(fixture.stats().await.drops.no_route, 1);
        fixture.ask(|done| DataPathCommand::ChangePeers(only_peer(), done)).await;
        fixture.host.send(&packet).await.unwrap();
        fixture.host.recv(&mut answer).await.unwrap();
        assert_eq!(fixture.stats().await.drops.no_session, 1);
    }

    #[tokio::test]
    async fn a_socket_that_another_process_leads_elsewhere_carries_nothing_there() {
        let fixture = Fixture::new().await;
        let (_, _router, duplicate) = fixture.attach_shared("data-1").await;
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        duplicate.connect(elsewhere.local_addr().unwrap()).unwrap();
        fixture.ask(|done| DataPathCommand::ChangePeers(only_peer(), done)).await;
        assert_eq!(next_message(&fixture.bridge).await.len(), 148);
        assert!(elsewhere.try_recv(&mut [0; 10]).is_err());

        fixture.ask(DataPathCommand::CheckSession).await;
        let counted = fixture.stats().await;
        assert_eq!(counted.session, None);
        let found = format!("the session's UDP socket is one to {}", elsewhere.local_addr().unwrap());
        assert!(counted.diverted.is_some_and(|diverted| diverted.starts_with(&found)));
        assert!(fixture.ask(DataPathCommand::Take).await.is_none());
        fixture.host.send(&packet()).await.unwrap();
        fixture.host.recv(&mut [0; 2000]).await.unwrap();
        assert_eq!(fixture.stats().await.drops.no_session, 1);

        let _attached = fixture.attach("data-2").await;
        let counted = fixture.stats().await;
        assert_eq!((counted.session.as_deref(), counted.diverted), (Some("data-2"), None));
    }

    #[tokio::test]
    async fn what_comes_from_elsewhere_ends_the_session_and_is_not_looked_at() {
        let fixture = Fixture::new().await;
        let (to, _router, duplicate) = fixture.attach_shared("data-1").await;
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        duplicate.connect(elsewhere.local_addr().unwrap()).unwrap();
        elsewhere.send_to(&[4; 100], to).await.unwrap();
        while fixture.stats().await.diverted.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(fixture.stats().await.drops, Drops::default());
    }

    /// From this node to the peer.
    fn packet() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 42, 0, 1, 10, 42, 0, 2];
        packet.resize(28, 0);
        packet
    }

    /// A node at the other end of the bridge, which knows the one under test.
    fn other() -> Tunnel {
        let now = Instant::now();
        let AllowedIps::Member(ipv4, ipv6) = peer().allowed_ips else { unreachable!("a member") };
        let own = tund::Interface { ipv4, ipv6, ..interface() };
        let mut other = Tunnel::new(StaticSecret::from([2; 32]), Some(Subnets::of(&own)), now);
        let known = PeerConfig {
            node: NodeId([1; 32]),
            public_key: PublicKey::from(&StaticSecret::from([1; 32])).to_bytes(),
            allowed_ips: AllowedIps::Member(interface().ipv4, interface().ipv6),
            ..peer()
        };
        other.set_peers(vec![known], now).unwrap();
        other.set_session(crate::session::SessionId::new("other".to_owned()).unwrap(), now);
        other
    }

    /// The next datagram that comes to the bridge, without the line before it.
    async fn next_message(bridge: &UdpSocket) -> Vec<u8> {
        let mut datagram = vec![0; 3000];
        let len = bridge.recv(&mut datagram).await.unwrap();
        let line = datagram.iter().position(|byte| *byte == b'\n').unwrap();
        datagram[line + 1..len].to_vec()
    }

    /// The next datagram that a node at the other end of the bridge sends, without the line before it.
    fn poll_message(other: &mut Tunnel) -> Vec<u8> {
        let datagram = other.poll_datagram(Instant::now()).unwrap();
        let line = datagram.iter().position(|byte| *byte == b'\n').unwrap();
        datagram[line + 1..].to_vec()
    }

    /// A node at the other end of the bridge that has a session with the one under test, whose socket is bound to `to`.
    async fn connect(fixture: &Fixture, to: std::net::SocketAddr) -> Tunnel {
        fixture.ask(|done| DataPathCommand::ChangePeers(only_peer(), done)).await;
        let mut other = other();
        other.handle_datagram(&next_message(&fixture.bridge).await, Instant::now());
        fixture.bridge.send_to(&poll_message(&mut other), to).await.unwrap();
        other.handle_datagram(&next_message(&fixture.bridge).await, Instant::now());
        other
    }

    #[tokio::test]
    async fn a_packet_to_be_cut_goes_in_segments_and_those_that_come_are_put_together() {
        let fixture = Fixture::with_device(|device| Device::from_socket(device, true)).await;
        let (to, _router) = fixture.attach("data-1").await;
        let mut other = connect(&fixture, to).await;

        let whole = offload::tests::tcp(true, 0, 0x10, &[7; 3_000]);
        fixture.host.send(&[&offload::tests::segments_of(1_200)[..], &whole].concat()).await.unwrap();
        let mut segments = Vec::new();
        for _ in 0..3 {
            let message = next_message(&fixture.bridge).await;
            segments.push(other.handle_datagram(&message, Instant::now()).unwrap().to_vec());
        }
        assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1_252, 1_252, 652]);

        for segment in &mut segments {
            // From the other node: the checksums stay right.
            let (source, destination) = segment[12..20].split_at_mut(4);
            source.swap_with_slice(destination);
            other.handle_packet(segment, Instant::now());
        }
        // All of them are there before the data path looks.
        for _ in 0..3 {
            fixture.bridge.try_send_to(&poll_message(&mut other), to).unwrap();
        }
        let mut read = vec![0; 4_000];
        let len = fixture.host.recv(&mut read).await.unwrap();
        assert_eq!(read[..10], offload::tests::segments_of(1_200));
        assert_eq!((len, &read[10 + 52..len]), (10 + whole.len(), &[7; 3_000][..]));
    }

    #[tokio::test]
    async fn what_waits_is_sent_before_the_end_and_nothing_more_is_taken() {
        let fixture = Fixture::new().await;
        let (to, _router) = fixture.attach("data-1").await;
        let mut other = connect(&fixture, to).await;
        let packet = packet();
        // More than may go at once, and some that the data path has not seen when it is told.
        for _ in 0..100 {
            fixture.host.send(&packet).await.unwrap();
        }
        assert!(fixture.ask(|done| DataPathCommand::Drain(Duration::from_secs(10), done)).await);
        for _ in 0..100 {
            let message = next_message(&fixture.bridge).await;
            assert_eq!(other.handle_datagram(&message, Instant::now()), Some(&packet[..]));
        }
        fixture.host.send(&packet).await.unwrap();
        let more = tokio::time::timeout(Duration::from_millis(200), next_message(&fixture.bridge));
        assert!(more.await.is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_sent_does_not_hold_up_the_end_for_longer_than_is_allowed() {
        let fixture = Fixture::new().await;
        let (_to, _router) = fixture.attach("data-1").await;
        fixture.ask(|done| DataPathCommand::ChangePeers(only_peer(), done)).await;
        let packet = packet();
        fixture.host.send(&packet).await.unwrap();
        assert!(!fixture.ask(|done| DataPathCommand::Drain(Duration::from_millis(50), done)).await);
    }

    #[tokio::test]
    async fn a_new_session_closes_the_old_one_after_a_while() {
        let fixture = Fixture::new().await;
        let said = |mut router: TcpStream| {
            tokio::task::spawn_blocking(move || io::read_to_string(&mut router).unwrap())
        };
        let (_, first) = fixture.attach("data-0").await;
        let (_, second) = fixture.attach("data-1").await;
        let (to, _third) = fixture.attach("data-2").await;
        // What lingers is one session, for as long as members may not know of the next one.
        assert_eq!(said(first).await.unwrap(), "QUIT\n");
        let mut byte = [0];
        second.set_nonblocking(true).unwrap();
        let open = io::Read::read(&mut &second, &mut byte).unwrap_err();
        assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
        second.set_nonblocking(false).unwrap();
        tokio::time::pause();
        tokio::time::advance(LINGER).await;
        tokio::time::resume();
        assert_eq!(said(second).await.unwrap(), "QUIT\n");

        let Shared { session, fds } = fixture.ask(DataPathCommand::Take).await.unwrap().unwrap();
        assert_eq!(session.id, "data-2");
        let again = Session::adopt(session, fds, &fixture.at()).unwrap();
        assert_eq!(again.udp.local_addr().unwrap(), to);
    }

    #[tokio::test]
    async fn without_a_session_there_is_none_to_take() {
        let fixture = Fixture::new().await;
        assert!(fixture.ask(DataPathCommand::Take).await.is_none());
        assert_eq!(fixture.stats().await.session, None);
    }
}
