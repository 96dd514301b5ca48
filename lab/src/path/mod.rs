//! An emulated path between nodes: a program that is the SAM bridge of each of them, and carries their datagrams as a
//! path with a given rate, delay, jitter, loss and queue would. It is not I2P.
//!
//! * [`link`](mod@link): one direction of the path.
//! * [`sam`]: the bridge.
//! * here: both together, and the thread that has their sockets.
//!
//! Times are as precise as tokio's timer, which counts milliseconds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use i2plan_tund::path::emulation::Spec;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

use crate::Failure;
use crate::i2p::sam::bind_bridge;

pub mod link;
pub mod plot;
pub mod sam;

use link::{Link, LossesOf, Slice};
use sam::Bridge;

/// Longest line of a control connection, bytes.
const MAX_LINE: u64 = 8192;

/// A datagram on its way.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The end that it goes to.
    pub to: usize,
    /// Where the bridge there forwards it to.
    pub forward_to: SocketAddr,
    /// What the path carries, bytes.
    pub len: usize,
    /// Whether it is of a tunnel, and so counted.
    pub counts: bool,
    /// What is forwarded.
    pub bytes: Vec<u8>,
}

/// On which side of the path an end is. Ends on the same side reach each other without the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From here goes what is measured.
    Near,
    /// The other.
    Far,
}

/// The path and its bridges, without input, output or clock.
#[derive(Debug)]
pub struct Emulator {
    bridge: Bridge,
    sides: Vec<Side>,
    /// From near to far, and back.
    links: [Link<Datagram>; 2],
    /// Between ends of the same side, with the times of arrival.
    beside: VecDeque<(Duration, Datagram)>,
    half: Duration,
    spec: Spec,
    losses_of: LossesOf,
}

/// From near to far, and back.
fn links(spec: &Spec, losses_of: LossesOf, seed: u64) -> [Link<Datagram>; 2] {
    // The second far from the first one's numbers.
    [(true, 2 * seed), (false, !(2 * seed))]
        .map(|(forward, seed)| Link::new(spec.clone(), losses_of, forward, seed))
}

impl Emulator {
    /// A path without ends. All chance follows from the seed.
    #[must_use]
    pub fn new(spec: &Spec, losses_of: LossesOf, seed: u64) -> Self {
        Self {
            bridge: Bridge::default(),
            sides: Vec::new(),
            links: links(spec, losses_of, seed),
            beside: VecDeque::new(),
            half: Duration::from_secs_f64(spec.round_trip / 2.0),
            spec: spec.clone(),
            losses_of,
        }
    }

    /// Has all chance follow from another seed. What is under way is lost.
    fn reseed(&mut self, seed: u64) {
        self.links = links(&self.spec, self.losses_of, seed);
        self.beside.clear();
    }

    /// Adds an end, and returns its number.
    pub fn add_end(&mut self, side: Side) -> usize {
        self.sides.push(side);
        self.sides.len() - 1
    }

    /// Takes what the program of an end has handed to its bridge.
    pub fn handle_datagram(&mut self, end: usize, bytes: &[u8], now: Duration) {
        let Some(datagram) = self.bridge.handle_datagram(end, bytes) else { return };
        match (self.sides[end], self.sides[datagram.to]) {
            (one, other) if one == other => self.beside.push_back((now + self.half, datagram)),
            (Side::Near, _) => self.links[0].handle_datagram(datagram.len, datagram.counts, datagram, now),
            (Side::Far, _) => self.links[1].handle_datagram(datagram.len, datagram.counts, datagram, now),
        }
    }

    /// Moves what is under way.
    pub fn handle_timeout(&mut self, now: Duration) {
        for link in &mut self.links {
            link.handle_timeout(now);
        }
    }

    /// Returns the next datagram that has arrived.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Datagram> {
        if self.beside.front().is_some_and(|(due, _)| *due <= now) {
            return self.beside.pop_front().map(|(_, datagram)| datagram);
        }
        self.links.iter_mut().find_map(|link| link.poll_transmit(now))
    }

    /// When something happens next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let links = self.links.iter().filter_map(Link::poll_timeout);
        links.chain(self.beside.front().map(|(due, _)| *due)).min()
    }
}

/// What an emulated path is told.
enum Command {
    Attach(Side, std::net::TcpListener, std::net::UdpSocket),
    Begin(oneshot::Sender<()>),
    Reseed(u64, oneshot::Sender<()>),
    Slices(oneshot::Sender<[Vec<Slice>; 2]>),
}

/// An emulated path, which ends when this is dropped.
#[derive(Debug)]
pub struct Path {
    commands: mpsc::UnboundedSender<Command>,
}

impl Path {
    /// Starts one without ends, in a thread of its own.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(spec: &Spec, losses_of: LossesOf, seed: u64) -> Result<Self, Failure> {
        let (commands, received) = mpsc::unbounded_channel();
        let emulator = Emulator::new(spec, losses_of, seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || LocalSet::new().block_on(&runtime, Shell::new(emulator).run(received));
        std::thread::Builder::new().name("path".to_owned()).spawn(run)?;
        Ok(Self { commands })
    }

    /// Becomes the SAM bridge of a network namespace.
    ///
    /// # Errors
    /// If there is no such namespace, or it has a bridge.
    pub fn attach(&self, namespace: &str, side: Side) -> Result<(), Failure> {
        let (listener, socket) = bind_bridge(namespace)?;
        self.command(Command::Attach(side, listener, socket))
    }

    /// Has the path's time begin, by which its rate, delay and outages change. What was counted is forgotten.
    ///
    /// # Errors
    /// If the path has ended.
    pub async fn begin(&self) -> Result<(), Failure> {
        let (done, wait) = oneshot::channel();
        self.command(Command::Begin(done))?;
        wait.await.map_err(|_| ended())
    }

    /// Has all chance follow from another seed. What is under way is lost.
    ///
    /// # Errors
    /// If the path has ended.
    pub async fn reseed(&self, seed: u64) -> Result<(), Failure> {
        let (done, wait) = oneshot::channel();
        self.command(Command::Reseed(seed, done))?;
        wait.await.map_err(|_| ended())
    }

    /// What happened since the path's time began, from near to far and back.
    ///
    /// # Errors
    /// If the path has ended.
    pub async fn slices(&self) -> Result<[Vec<Slice>; 2], Failure> {
        let (answer, wait) = oneshot::channel();
        self.command(Command::Slices(answer))?;
        wait.await.map_err(|_| ended())
    }

    fn command(&self, command: Command) -> Result<(), Failure> {
        self.commands.send(command).map_err(|_| ended())
    }
}

fn ended() -> Failure {
    Failure::new("the emulated path has ended")
}

/// The emulator's sockets and clock.
struct Shell {
    emulator: RefCell<Emulator>,
    sockets: RefCell<Vec<Rc<UdpSocket>>>,
    started: Instant,
    /// Something has come, so that the next time may be an earlier one.
    changed: Notify,
}

impl Shell {
    fn new(emulator: Emulator) -> Rc<Self> {
        Rc::new(Self {
            emulator: RefCell::new(emulator),
            sockets: RefCell::default(),
            started: Instant::now(),
            changed: Notify::new(),
        })
    }

    async fn run(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut connections = 0..;
        let (accepted, mut accepts) = mpsc::channel(16);
        loop {
            let next = self.emulator.borrow().poll_timeout();
            let wait = next.map(|next| tokio::time::Instant::from_std(self.started + next));
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Attach(side, listener, socket)) => {
                        let attached = self.attach(side, listener, socket, accepted.clone());
                        attached.unwrap_or_else(|error| eprintln!("lab: the emulated path: {error}"));
                    }
                    Some(Command::Begin(done)) => {
                        let now = self.started.elapsed();
                        self.emulator.borrow_mut().links.iter_mut().for_each(|link| link.begin(now));
                        let _ = done.send(());
                    }
                    Some(Command::Reseed(seed, done)) => {
                        self.emulator.borrow_mut().reseed(seed);
                        let _ = done.send(());
                    }
                    Some(Command::Slices(answer)) => {
                        let slices = self.emulator.borrow().links.each_ref().map(|link| link.slices().to_vec());
                        let _ = answer.send(slices);
                    }
                },
                Some((end, stream)) = accepts.recv() => {
                    let connection = connections.next().unwrap_or(u64::MAX);
                    let shell = Rc::clone(&self);
                    spawn_local(async move {
                        let answer = |line: &str| shell.emulator.borrow_mut().bridge.handle_line(end, connection, line);
                        // A connection that breaks is one that ends.
                        let _ = serve(stream, answer).await;
                        shell.emulator.borrow_mut().bridge.handle_end(connection);
                    });
                }
                () = self.changed.notified() => {}
                () = async { match wait { Some(time) => tokio::time::sleep_until(time).await, None => std::future::pending().await } } => {}
            }
            let now = self.started.elapsed();
            self.emulator.borrow_mut().handle_timeout(now);
            loop {
                let datagram = self.emulator.borrow_mut().poll_transmit(now);
                let Some(datagram) = datagram else { break };
                let socket = self.sockets.borrow().get(datagram.to).cloned();
                if let Some(socket) = socket {
                    // A program that is gone, or does not read, loses datagrams.
                    let _ = socket.send_to(&datagram.bytes, datagram.forward_to).await;
                }
            }
        }
    }

    fn attach(
        self: &Rc<Self>,
        side: Side,
        listener: std::net::TcpListener,
        socket: std::net::UdpSocket,
        accepted: mpsc::Sender<(usize, TcpStream)>,
    ) -> Result<(), Failure> {
        let end = self.emulator.borrow_mut().add_end(side);
        let (listener, socket) = (TcpListener::from_std(listener)?, Rc::new(UdpSocket::from_std(socket)?));
        self.sockets.borrow_mut().push(Rc::clone(&socket));
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if accepted.send((end, stream)).await.is_err() {
                    return;
                }
            }
        });
        let shell = Rc::clone(self);
        spawn_local(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                // An error is that of a datagram before, which nobody took.
                if let Ok(len) = socket.recv(&mut buffer).await {
                    let now = shell.started.elapsed();
                    shell.emulator.borrow_mut().handle_datagram(end, &buffer[..len], now);
                    shell.changed.notify_one();
                }
            }
        });
        Ok(())
    }
}

/// Answers the lines of a control connection, until it ends.
pub(crate) async fn serve(
    stream: TcpStream,
    mut answer: impl FnMut(&str) -> Option<String>,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    loop {
        line.clear();
        let len = (&mut read).take(MAX_LINE).read_line(&mut line).await?;
        if len == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        if let Some(answer) = answer(line.trim_end()) {
            write.write_all(answer.as_bytes()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_proto::destination::{Destination, base64};
    use i2plan_proto::sam::datagram;
    use i2plan_tund::path::emulation::good;

    use super::*;

    #[test]
    fn datagrams_cross_the_path_and_nothing_else_of_it_is_shared() {
        let mut emulator = Emulator::new(&Spec { loss: 0.0, ..good() }, LossesOf::Datagrams, 1);
        let destination = |seed: u8| Destination { padding: [seed; 32], signing_key: [seed; 32] };
        for (seed, side) in [(1, Side::Near), (2, Side::Near), (3, Side::Far)] {
            let end = emulator.add_end(side);
            let key = base64().encode(&[&destination(seed).to_i2p()[..], &[0; 64]].concat());
            let create = format!("SESSION CREATE STYLE=RAW ID=s DESTINATION={key} HOST=127.0.0.1 PORT=9");
            let answer = emulator.bridge.handle_line(end, u64::from(seed), &create).unwrap();
            assert!(answer.contains("RESULT=OK"), "{answer}");
        }
        let ms = Duration::from_millis;
        for to in [2, 3] {
            // Over the bottleneck more than half of its queue.
            for _ in 0..300 {
                emulator.handle_datagram(0, &datagram::encode("s", &destination(to), &[0; 1250]), ms(0));
            }
        }
        let mut arrived = [0; 3];
        let (mut first, mut last) = ([None; 3], ms(0));
        while let Some(now) = emulator.poll_timeout() {
            emulator.handle_timeout(now);
            while let Some(datagram) = emulator.poll_transmit(now) {
                arrived[datagram.to] += 1;
                first[datagram.to].get_or_insert(now.as_millis());
                last = now;
            }
        }
        assert_eq!(arrived, [0, 300, 300]);
        assert_eq!(first, [None, Some(150), Some(152)], "beside, and over the bottleneck");
        assert_eq!(last.as_millis(), 900, "300 datagrams of 2.5 ms, and half a round trip");
    }
}
