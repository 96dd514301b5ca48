//! Another WireGuard over I2P: wireguard-go of Debian, and a program that carries its UDP through a SAM session of its own.
//!
//! The program speaks SAM as one that knows nothing of i2plan does: it takes whatever destination the router makes for
//! it, addresses datagrams by SAM 3.1, and reads nothing of the line before one but the sender. To wireguard-go each
//! destination is a UDP port on loopback, so that it follows its peer from one destination to another.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::i2p::sam::{Session, Style};
use crate::process::{Child, Output, Spawn};
use crate::sandbox::DIRECTORY;
use crate::{Failure, netns};

/// The program, and the package that has it.
const PROGRAM: (&str, &str) = ("/usr/bin/wireguard-go", "wireguard-go");

/// Its interface.
const INTERFACE: &str = "wg1";

/// The UDP port that it listens on.
const PORT: u16 = 51820;

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
    namespace: String,
    program: Child,
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
        let (program, package) = PROGRAM;
        let missing = [(program, package), ("/usr/bin/wg", "wireguard-tools"), ("/usr/bin/ip", "iproute2")]
            .into_iter()
            .find(|(program, _)| !Path::new(program).exists());
        missing.map(|(program, package)| format!("there is no {program}: `apt-get install {package}`"))
    }

    /// Starts it in a namespace, with these addresses and MTU, and the carrier under a destination that the router makes.
    /// Also returns that, in base64.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(namespace: &str, addresses: &[&str], mtu: u16) -> Result<(Self, String), Failure> {
        std::fs::create_dir_all("/run/wireguard")?;
        let log = Path::new(DIRECTORY).join(format!("wireguard-go-{namespace}.log"));
        let args = ["--foreground", INTERFACE].map(OsString::from);
        let program = Spawn::new(Path::new(PROGRAM.0), args).namespace(Some(namespace)).log(&log).start()?;
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
        let node = Self { namespace: namespace.to_owned(), program, carrier };
        node.until_there().await?;
        for address in addresses {
            node.run("ip", &["address", "add", address, "dev", INTERFACE]).await?;
        }
        let mtu = mtu.to_string();
        node.run("ip", &["link", "set", INTERFACE, "mtu", &mtu, "up"]).await?;
        Ok((node, destination))
    }

    /// Waits until it answers `wg`.
    async fn until_there(&self) -> Result<(), Failure> {
        let there = async || Ok(self.spawn("wg", &["show", INTERFACE]).await?.status.success());
        crate::wait::until("wireguard-go answers", Duration::from_secs(10), there).await
    }

    /// Has it take this for its configuration, as `wg setconf` reads it, but for what is the carrier's: the peer is at
    /// this destination in base64, or where it calls from.
    ///
    /// # Errors
    /// If `wg` refuses it.
    pub async fn configure(&self, text: &str, peer: Option<&str>) -> Result<(), Failure> {
        let mut text = format!("[Interface]\nListenPort = {PORT}\n{text}\n");
        if let Some(destination) = peer {
            let (answer, address) = oneshot::channel();
            self.order(Order::Address(destination.to_owned(), answer)).await?;
            let address = address.await.map_err(|_| Failure::new("the carrier has ended"))??;
            text.push_str(&format!("Endpoint = {address}\n"));
        }
        let file = self.file();
        std::fs::write(&file, text)?;
        let file = file.to_string_lossy().into_owned();
        self.run("wg", &["setconf", INTERFACE, &file]).await.map(drop)
    }

    fn file(&self) -> PathBuf {
        Path::new(DIRECTORY).join(format!("wireguard-go-{}.conf", self.namespace))
    }

    /// Has networks go through the interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn route(&self, networks: &[&str]) -> Result<(), Failure> {
        for network in networks {
            self.run("ip", &["route", "add", network, "dev", INTERFACE]).await?;
        }
        Ok(())
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
        let shown = self.run("wg", &["show", INTERFACE, "latest-handshakes"]).await?;
        let time = shown.stdout.split_whitespace().nth(1).and_then(|time| time.parse().ok());
        time.ok_or_else(|| Failure::new(format!("wg shows {:?}", shown.stdout)))
    }

    /// Runs a program where it is.
    ///
    /// # Errors
    /// If it fails.
    pub async fn run(&self, program: &str, args: &[&str]) -> Result<Output, Failure> {
        let output = self.spawn(program, args).await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Failure::new(format!("{program} {args:?}: {}{}", output.stdout, output.stderr)))
    }

    /// The same; that it fails is for the caller to see.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn spawn(&self, program: &str, args: &[&str]) -> Result<Output, Failure> {
        let path =
            ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|directory| Path::new(directory).join(program));
        let path = path.into_iter().find(|path| path.exists());
        let path = path.ok_or_else(|| Failure::new(format!("there is no {program}")))?;
        Spawn::new(&path, args.iter().map(OsString::from)).namespace(Some(&self.namespace)).output("").await
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.program.kill().await
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
