//! Traffic over the tunnels between nodes.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::Failure;
use crate::netns::within;
use crate::node::Node;
use crate::probe::Transfer;
use crate::process::Spawn;
use crate::sandbox::DIRECTORY;
use crate::stats::Pings;

/// TCP port of the transfers.
pub const PORT: u16 = 5001;

/// Waits for the first echo over the tunnel.
///
/// # Errors
/// If there is none within the time that [`ping`] waits for the first, or the other is in no network.
pub async fn reach(from: &Node, to: &Node) -> Result<(), Failure> {
    ping(from, to.address().await?, 1, true).await.map(drop)
}

/// Waits until packets go both ways between two nodes again, within this time each.
///
/// # Errors
/// If they do not.
pub async fn until_flowing(nodes: [&Node; 2], within: Duration) -> Result<(), Failure> {
    let [one, other] = nodes;
    for (from, to) in [(one, other), (other, one)] {
        let target = to.address().await?;
        let answers = async |node: &Node| Ok(ping(node, target, 1, false).await?.received == 1);
        from.until("traffic flows again", within, answers).await?;
    }
    Ok(())
}

/// Pings over the tunnel, five times a second. A reply may take three seconds.
///
/// # Errors
/// If `i2planctl ping` fails; with `first`, also if nothing answers within a minute, or [more](crate::i2p::kind::Routers::patience).
pub async fn ping(node: &Node, target: IpAddr, count: u32, first: bool) -> Result<Pings, Failure> {
    let (target, count) = (target.to_string(), count.to_string());
    let wait = (60 * node.routers().patience()).to_string();
    let mut args = vec!["--json", "ping", &target, "-i", "0.2", "-W", "3"];
    // With a deadline it goes on until there is a reply.
    if first {
        args.extend(["-c", "1", "-w", &wait]);
    } else {
        args.extend(["-c", &count]);
    }
    let output = node.ctl(&args, "").await?;
    let pings: Pings = serde_json::from_str(&output.stdout).map_err(|error| {
        node.failure(&format!("`i2planctl ping` printed {:?} {:?} ({error})", output.stdout, output.stderr))
    })?;
    if first && pings.received == 0 {
        return Err(node.failure(&format!("{target} did not answer within {wait} s")));
    }
    Ok(pings)
}

/// Sends UDP packets of this length, IP header included, from an address in a namespace to one in another until one has
/// arrived as it was sent: I2P may lose one.
///
/// # Errors
/// If none arrives within a minute.
pub async fn packet_passes(from: (&str, IpAddr), to: (&str, IpAddr), len: usize) -> Result<(), Failure> {
    let bind = |(namespace, address): (&str, IpAddr)| {
        let socket = within(namespace, move || {
            let socket = std::net::UdpSocket::bind((address, PORT))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        Ok::<_, Failure>(UdpSocket::from_std(socket)?)
    };
    let (near, far) = (bind(from)?, bind(to)?);
    let payload = vec![7; len - if to.1.is_ipv4() { 28 } else { 48 }];
    let mut buffer = vec![0; len];
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        near.send_to(&payload, (to.1, PORT)).await?;
        if let Ok(arrived) = timeout(Duration::from_secs(2), far.recv(&mut buffer)).await
            && buffer[..arrived?] == payload
        {
            return Ok(());
        }
    }
    Err(Failure::new(format!("no packet of {len} bytes arrives at {} from {}", to.1, from.0)))
}

/// Moves bytes over TCP from one node to another and checks their hash.
///
/// # Errors
/// If the transfer fails or the hash is not right.
pub async fn transfer(from: &Node, to: &Node, address: IpAddr, bytes: u64) -> Result<Transfer, Failure> {
    send(from, to, address, &[bytes.to_string()]).await
}

/// The same, at so many bytes a second.
///
/// # Errors
/// As [`transfer`].
pub async fn transfer_at(
    from: &Node,
    to: &Node,
    address: IpAddr,
    bytes: u64,
    rate: u32,
) -> Result<Transfer, Failure> {
    send(from, to, address, &[bytes.to_string(), "--rate".to_owned(), rate.to_string()]).await
}

async fn send(from: &Node, to: &Node, address: IpAddr, what: &[String]) -> Result<Transfer, Failure> {
    let transfer = between(&from.name, &to.name, SocketAddr::new(address, PORT), what).await?;
    if !transfer.intact {
        return Err(from.failure("the receiver's hash is not the sender's"));
    }
    Ok(transfer)
}

/// Has one namespace send over TCP to another, where the target's address is.
///
/// # Errors
/// If the transfer fails; not if the hash is wrong.
pub async fn between(from: &str, to: &str, target: SocketAddr, what: &[String]) -> Result<Transfer, Failure> {
    let target = target.to_string();
    let arguments = |probe: &str, more: &[String]| {
        let words = [probe.to_owned(), target.clone()].into_iter().chain(more.iter().cloned());
        words.map(OsString::from).collect::<Vec<_>>()
    };
    let log = Path::new(DIRECTORY).join("transfers.log");
    let serve = Spawn::this_program(arguments("__serve-tcp", &[])).namespace(Some(to)).log(&log);
    let mut server = serve.wait_for_line()?;
    server.first_line().await?;
    let sent = Spawn::this_program(arguments("__send-tcp", what)).namespace(Some(from)).output("").await?;
    server.kill().await?;
    if !sent.status.success() {
        return Err(Failure::new(format!("{from}: {}", sent.stderr.trim())));
    }
    serde_json::from_str(&sent.stdout)
        .map_err(|error| Failure::new(format!("the transfer printed no result: {error}")))
}
