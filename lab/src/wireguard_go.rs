//! Another WireGuard over I2P: wireguard-go of Debian, and a program that carries its UDP through a SAM session of its own.
//!
//! The program speaks SAM as one that knows nothing of i2plan does: it takes whatever destination the router makes for
//! it, addresses datagrams by SAM 3.1, and reads nothing of the line before one but the sender. To wireguard-go each
//! destination is a UDP port on loopback, so that it follows its peer from one destination to another.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::i2p::sam::{Session, Style};
use crate::wireguard::{Implementation, Interface, PORT};
use crate::{Failure, netns};

/// Its interface.
const INTERFACE: &str = "wg1";

/// What a router makes a destination for that was not told of what kind: i2pd one with a DSA key and a null certificate,
/// 387 bytes.
const ANY_DESTINATION: &str = "TRANSIENT";

/// What its datagrams' headers begin with.
const SAM_VERSION: &[u8; 3] = b"3.1";

/// Longest datagram, with the line before it.
const MAX_DATAGRAM: usize = 1 << 16;

/// wireguard-go in a network namespace that has a router.
#[derive(Debug)]
pub struct WireguardGo {
    interface: Interface,
    carrier: mpsc::Sender<Order>,
}

/// What the carrier is told.
#[derive(Debug)]
enum Order {
    /// Give wireguard-go a place to send to this destination.
    Address(String, oneshot::Sender<Result<SocketAddr, Failure>>),
    /// Go on under another destination. Answered with its base64.
    Move(oneshot::Sender<Result<String, Failure>>),
}

impl WireguardGo {
    /// What is missing to run it.
    #[must_use]
    pub fn missing() -> Option<String> {
        Implementation::Go.missing().map(|install| format!("something is missing: `{install}`"))
    }

    /// Starts it in a namespace, with these addresses and MTU, and the carrier under a destination that the router makes.
    /// Also returns that, in base64.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(namespace: &str, addresses: &[&str], mtu: u16) -> Result<(Self, String), Failure> {
        let session = open(namespace).await?;
        let destination = session.destination.clone();
        let (carrier, orders) = mpsc::channel(4);
        let carrier_task = Carrier {
            namespace: namespace.to_owned(),
            session: watch::Sender::new(Arc::new(session)),
            places: HashMap::new(),
            tasks: JoinSet::new(),
        };
        tokio::spawn(carrier_task.run(orders));
        let interface = Interface::start(Implementation::Go, namespace, INTERFACE, addresses, mtu).await?;
        Ok((Self { interface, carrier }, destination))
    }

    /// Has it take this for its configuration, as `wg setconf` reads it, but for what is the carrier's: the peer is at
    /// this destination in base64, or where it calls from.
    ///
    /// # Errors
    /// If `wg` refuses it.
    pub async fn configure(&self, text: &str, peer: Option<&str>) -> Result<(), Failure> {
        let Some(destination) = peer else { return self.interface.configure(text).await };
        let (answer, address) = oneshot::channel();
        self.order(Order::Address(destination.to_owned(), answer)).await?;
        let address = address.await.map_err(|_| Failure::new("the carrier has ended"))??;
        self.interface.configure(&format!("{text}\nEndpoint = {address}")).await
    }

    /// Has networks go through the interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn route(&self, networks: &[&str]) -> Result<(), Failure> {
        self.interface.route(networks).await
    }

    /// Goes on under another destination, in base64.
    ///
    /// # Errors
    /// If the bridge opens no session.
    pub async fn change_destination(&self) -> Result<String, Failure> {
        let (answer, destination) = oneshot::channel();
        self.order(Order::Move(answer)).await?;
        destination.await.map_err(|_| Failure::new("the carrier has ended"))?
    }

    async fn order(&self, order: Order) -> Result<(), Failure> {
        self.carrier.send(order).await.map_err(|_| Failure::new("the carrier has ended"))
    }

    /// When it last shook hands with its peer, Unix time in seconds; 0 if it never has.
    ///
    /// # Errors
    /// If `wg` fails.
    pub async fn last_handshake(&self) -> Result<u64, Failure> {
        self.interface.last_handshake().await
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.interface.namespace()
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub async fn stop(self) -> Result<(), Failure> {
        self.interface.stop().await
    }
}

async fn open(namespace: &str) -> Result<Session, Failure> {
    Session::open_within(namespace, Style::Datagram, ANY_DESTINATION).await
}

/// Carries datagrams between wireguard-go and a session.
struct Carrier {
    namespace: String,
    session: watch::Sender<Arc<Session>>,
    /// For each destination a port of loopback. What wireguard-go sends there goes to the destination.
    places: HashMap<String, Arc<UdpSocket>>,
    tasks: JoinSet<()>,
}

impl Carrier {
    /// Runs until it is not told anything any more.
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let session = Arc::clone(&self.session.borrow());
            tokio::select! {
                Ok(len) = session.receive(&mut buffer) => self.carry_from(&buffer[..len]).await,
                order = orders.recv() => match order {
                    None => return,
                    Some(Order::Address(destination, answer)) => {
                        let place = self.place(&destination).and_then(|place| Ok(place.local_addr()?));
                        let _ = answer.send(place);
                    }
                    Some(Order::Move(answer)) => {
                        let moved = open(&self.namespace).await.map(|session| {
                            let destination = session.destination.clone();
                            self.session.send_replace(Arc::new(session));
                            destination
                        });
                        let _ = answer.send(moved);
                    }
                },
            }
        }
    }

    /// Hands a datagram from the bridge to wireguard-go. What is lost is sent again by who needs it.
    async fn carry_from(&mut self, datagram: &[u8]) {
        let Some(end) = datagram.iter().position(|byte| *byte == b'\n') else { return };
        let Ok(line) = str::from_utf8(&datagram[..end]) else { return };
        let sender = line.split(' ').next().unwrap_or_default();
        if let Ok(place) = self.place(sender) {
            let _ = place.send_to(&datagram[end + 1..], (Ipv4Addr::LOCALHOST, PORT)).await;
        }
    }

    /// Where wireguard-go finds a destination.
    fn place(&mut self, destination: &str) -> Result<Arc<UdpSocket>, Failure> {
        if let Some(place) = self.places.get(destination) {
            return Ok(Arc::clone(place));
        }
        let place = netns::within(&self.namespace, || {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let place = Arc::new(UdpSocket::from_std(place)?);
        self.places.insert(destination.to_owned(), Arc::clone(&place));
        self.tasks.spawn(carry_to(destination.to_owned(), self.session.subscribe(), Arc::clone(&place)));
        Ok(place)
    }
}

/// Sends what comes to a place to its destination.
async fn carry_to(destination: String, session: watch::Receiver<Arc<Session>>, place: Arc<UdpSocket>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while let Ok(len) = place.recv(&mut buffer).await {
        let session = Arc::clone(&session.borrow());
        let mut datagram = session.header(&destination);
        datagram[..SAM_VERSION.len()].copy_from_slice(SAM_VERSION);
        datagram.extend_from_slice(&buffer[..len]);
        let _ = session.send(&datagram).await;
    }
}
