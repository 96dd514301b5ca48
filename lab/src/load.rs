//! Traffic for a while over a tunnel: what sends, what counts how much arrives, and an echo. Each runs in a node's
//! namespace and prints JSON on standard output.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::probe::print;

/// How long a connection, or the first datagram, may take.
const CONNECT: Duration = Duration::from_secs(60);

/// How long the last answers to pings may take.
const LAST_ANSWERS: Duration = Duration::from_secs(8);

/// Length of a ping's UDP payload, bytes.
const PING_LEN: usize = 56;

/// What arrived between two moments.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Arrived {
    /// Payload, bytes.
    pub bytes: u64,
    /// How long it was counted.
    pub seconds: f64,
}

/// Counts the payload bytes of TCP connections, from `warm` to `end` after the first one; prints that it listens, and
/// then what arrived.
///
/// # Errors
/// If the socket cannot be made, or nothing comes.
pub fn tcp_sink(address: SocketAddr, warm: Duration, end: Duration) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)?;
    print(&"listening")?;
    let total = Arc::new(AtomicU64::new(0));
    let (connected, first) = std::sync::mpsc::channel();
    let counted = Arc::clone(&total);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let _ = connected.send(());
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(len @ 1..) = connection.read(&mut buffer) {
                    counted.fetch_add(len as u64, Ordering::Relaxed);
                }
            });
        }
    });
    first.recv_timeout(CONNECT).map_err(|_| Failure::new("no connection over the tunnel"))?;
    count(warm, end, || total.load(Ordering::Relaxed))
}

/// The same for UDP.
///
/// # Errors
/// As [`tcp_sink`].
pub fn udp_count(address: SocketAddr, warm: Duration, end: Duration) -> Result<(), Failure> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(CONNECT))?;
    print(&"listening")?;
    let mut buffer = vec![0; 65_536];
    let len = socket.recv(&mut buffer).map_err(|_| Failure::new("no datagram over the tunnel"))?;
    let total = Arc::new(AtomicU64::new(len as u64));
    let counted = Arc::clone(&total);
    std::thread::spawn(move || {
        loop {
            if let Ok(len) = socket.recv(&mut buffer) {
                counted.fetch_add(len as u64, Ordering::Relaxed);
            }
        }
    });
    count(warm, end, || total.load(Ordering::Relaxed))
}

fn count(warm: Duration, end: Duration, total: impl Fn() -> u64) -> Result<(), Failure> {
    std::thread::sleep(warm);
    let (before, since) = (total(), Instant::now());
    std::thread::sleep(end.saturating_sub(warm));
    print(&Arrived { bytes: total() - before, seconds: since.elapsed().as_secs_f64() })
}

/// Sends over TCP connections with a congestion control of the kernel, for so long.
///
/// # Errors
/// If the kernel does not have it, or no connection can be made.
pub fn tcp_source(
    address: SocketAddr,
    flows: usize,
    congestion: &str,
    duration: Duration,
) -> Result<(), Failure> {
    let end = Instant::now() + duration;
    let mut threads = Vec::new();
    for _ in 0..flows {
        let mut connection = TcpStream::connect_timeout(&address, CONNECT)?;
        rustix::net::sockopt::set_tcp_congestion(&connection, congestion)
            .map_err(|error| Failure::new(format!("TCP_CONGESTION {congestion}: {error}")))?;
        connection.set_write_timeout(Some(Duration::from_secs(1)))?;
        threads.push(std::thread::spawn(move || {
            let buffer = vec![0x5a; 16 * 1024];
            while Instant::now() < end {
                match connection.write(&buffer) {
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => return,
                }
            }
            // What is not sent by now is not wanted.
            let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| Failure::new("a flow panicked"))?;
    }
    Ok(())
}

/// Whether this kernel has a congestion control, and lets it be used here.
///
/// # Errors
/// If no socket can be made.
pub fn has_congestion_control(name: &str) -> Result<(), Failure> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)
        .map_err(std::io::Error::from)?;
    print(&rustix::net::sockopt::set_tcp_congestion(&socket, name).is_ok())
}

/// Sends every UDP datagram back, until it is killed.
///
/// # Errors
/// If the socket cannot be made.
pub fn udp_echo(address: SocketAddr) -> Result<(), Failure> {
    let socket = UdpSocket::bind(address)?;
    print(&"listening")?;
    let mut buffer = vec![0; 65_536];
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

/// Sends small datagrams to an [`udp_echo`] at an interval, for so long, and prints the round-trip times in
/// milliseconds, none for those without an answer.
///
/// # Errors
/// If the socket cannot be made.
pub fn udp_ping(address: SocketAddr, every: Duration, duration: Duration) -> Result<(), Failure> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    let (started, mut sent, mut times) = (Instant::now(), Vec::new(), Vec::new());
    let mut buffer = [0; PING_LEN];
    loop {
        let now = started.elapsed();
        if now > duration + LAST_ANSWERS || now > duration && times.iter().all(Option::is_some) {
            return print(&times);
        }
        let due = every * u32::try_from(sent.len()).unwrap_or(u32::MAX);
        if now >= due && now < duration {
            let mut datagram = [0; PING_LEN];
            datagram[..8].copy_from_slice(&(sent.len() as u64).to_be_bytes());
            // A full queue loses it like any other.
            let _ = socket.send(&datagram);
            sent.push(now);
            times.push(None);
            continue;
        }
        let wait = if now < duration { due - now } else { LAST_ANSWERS };
        socket.set_read_timeout(Some(wait.clamp(Duration::from_micros(100), LAST_ANSWERS)))?;
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let number = buffer[..len].first_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if let (Some(at), Some(time)) = (sent.get(number), times.get_mut(number)) {
            time.get_or_insert((started.elapsed() - *at).as_secs_f64() * 1000.0);
        }
    }
}
