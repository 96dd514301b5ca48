//! What runs in a node's namespace to measure it. Every probe prints JSON on standard output.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Failure;
use crate::i2p::sam::{Session, Style};
use crate::stats::{Pings, Times};

/// How long a sink waits for more before it reports what has come.
const IDLE: Duration = Duration::from_millis(1500);

/// What a transfer showed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes.
    pub bytes: u64,
    /// From the first byte sent to the receiver's hash of the last.
    pub seconds: f64,
    /// The receiver's hash is the sender's.
    pub intact: bool,
}

/// What a sink has received of one step of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The step.
    pub step: u32,
    /// Datagrams.
    pub datagrams: u64,
}

/// What was sent in one step of a load.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Prints a result for the process that has started this one.
///
/// # Errors
/// If nobody reads it.
pub fn print(result: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(result).map_err(|error| Failure::new(error.to_string()))?;
    println!("{text}");
    std::io::stdout().flush()?;
    Ok(())
}

/// Bytes that no compression makes smaller, the same for every sender.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Takes one connection after the other and answers each with the hash of what it has sent.
///
/// # Errors
/// If the socket cannot be made.
pub fn serve_tcp(address: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)?;
    print(&"listening")?;
    for connection in listener.incoming() {
        let mut connection = connection?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match connection.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hash.update(&buffer[..count]),
                Err(_) => break,
            }
        }
        let _ = connection.write_all(&hash.finalize());
    }
    Ok(())
}

/// Sends so many bytes over TCP and compares hashes; with `rate`, not more than so many a second.
///
/// # Errors
/// If the connection cannot be made or breaks.
pub fn send_tcp(address: SocketAddr, bytes: u64, rate: Option<u32>) -> Result<(), Failure> {
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(30))?;
    let started = Instant::now();
    let mut noise = Noise(1);
    let mut hash = Sha256::new();
    // At a rate, in ten pieces a second.
    let piece = rate.and_then(|rate| usize::try_from(rate / 10).ok()).unwrap_or(64 * 1024);
    let mut buffer = vec![0; piece.max(1)];
    let mut left = bytes;
    while left > 0 {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64((bytes - left) as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        noise.fill(&mut buffer[..count]);
        hash.update(&buffer[..count]);
        connection.write_all(&buffer[..count])?;
        left -= count as u64;
    }
    connection.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let intact = answer == hash.finalize().as_slice();
    print(&Transfer { bytes, seconds: started.elapsed().as_secs_f64(), intact })
}

/// Calls `send` at a steady rate for a while.
async fn at_rate(
    rate: u32,
    duration: Duration,
    mut send: impl AsyncFnMut(u64) -> Result<(), Failure>,
) -> Result<Sent, Failure> {
    let started = Instant::now();
    let mut datagrams = 0;
    loop {
        let elapsed = started.elapsed();
        if elapsed >= duration {
            return Ok(Sent { datagrams, seconds: elapsed.as_secs_f64() });
        }
        let due = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(u64::from(rate))
            / 1_000_000;
        while datagrams < due {
            send(datagrams).await?;
            datagrams += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Counts the datagrams of each step, and prints the count when no more come.
struct Counter(Option<Received>);

impl Counter {
    fn count(&mut self, step: u32) -> Result<(), Failure> {
        match &mut self.0 {
            Some(received) if received.step == step => received.datagrams += 1,
            // What comes late of a step that has been reported does not count.
            Some(received) if received.step > step => {}
            _ => {
                self.report()?;
                self.0 = Some(Received { step, datagrams: 1 });
            }
        }
        Ok(())
    }

    fn report(&mut self) -> Result<(), Failure> {
        self.0.take().map_or(Ok(()), |received| print(&received))
    }
}

/// Stands for the number of a step in the datagram by which a source greets a sink.
const GREETING: u32 = u32::MAX;

/// How often a source greets, once a second, before it gives up.
const GREETINGS: usize = 60;

/// Opens a session without senders, prints its destination and counts what comes.
///
/// # Errors
/// If the session cannot be opened or ends.
pub async fn raw_sink() -> Result<(), Failure> {
    let session = Session::open(Style::Raw).await?;
    print(&session.destination)?;
    let mut buffer = vec![0; 4096];
    let mut counter = Counter(None);
    loop {
        match tokio::time::timeout(IDLE, session.receive(&mut buffer)).await {
            Ok(len) => match buffer[..len?].split_first_chunk() {
                Some((step, destination)) if u32::from_be_bytes(*step) == GREETING => {
                    let header = session.header(&String::from_utf8_lossy(destination));
                    session.send(&[&header[..], b"welcome"].concat()).await?;
                }
                Some((step, _)) => counter.count(u32::from_be_bytes(*step))?,
                None => {}
            },
            Err(_) => counter.report()?,
        }
    }
}

/// Exchanges a datagram with a sink. The routers have then found each other's tunnels and agreed on keys, as
/// they have for programs that talk with each other; a router that never hears back goes on encrypting every
/// datagram as if it were the first, which takes several times the work.
async fn greet(session: &Session, header: &[u8]) -> Result<(), Failure> {
    let greeting = [header, &GREETING.to_be_bytes(), session.destination.as_bytes()].concat();
    let mut buffer = [0; 64];
    for _ in 0..GREETINGS {
        session.send(&greeting).await?;
        if let Ok(len) = tokio::time::timeout(Duration::from_secs(1), session.receive(&mut buffer)).await {
            len?;
            return Ok(());
        }
    }
    Err(Failure::new("no datagram crosses the private I2P network and back"))
}

/// Sends datagrams to a destination, in steps of growing rate as they are read from the arguments.
///
/// # Errors
/// If the session cannot be opened or ends, or the sink does not answer.
pub async fn raw_source(
    destination: &str,
    len: usize,
    rates: &[u32],
    duration: Duration,
) -> Result<(), Failure> {
    let session = Session::open(Style::Raw).await?;
    let header = session.header(destination);
    greet(&session, &header).await?;
    let mut noise = Noise(2);
    for (step, rate) in rates.iter().enumerate() {
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        let mut datagram = header.clone();
        datagram.resize(header.len() + len, 0);
        noise.fill(&mut datagram[header.len()..]);
        datagram[header.len()..header.len() + 4].copy_from_slice(&step.to_be_bytes());
        let sent = at_rate(*rate, duration, async |_| session.send(&datagram).await).await?;
        // So that the sink sees the end of the step.
        tokio::time::sleep(IDLE * 2).await;
        print(&sent)?;
    }
    Ok(())
}

/// Between the datagrams of [`raw_ping`], and how long the answer to one may take: as `i2planctl ping` does it here.
const PING_INTERVAL: Duration = Duration::from_millis(200);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Exchanges datagrams with a sink. Each line that it reads is how many, and answered with how long they took.
///
/// # Errors
/// If the session cannot be opened or ends, or the sink does not answer at first.
pub async fn raw_ping(destination: &str) -> Result<(), Failure> {
    let session = Session::open(Style::Raw).await?;
    let header = session.header(destination);
    greet(&session, &header).await?;
    print(&"ready")?;
    let greeting = [&header[..], &GREETING.to_be_bytes(), session.destination.as_bytes()].concat();
    let mut buffer = [0; 64];
    for line in std::io::stdin().lines() {
        let line = line?;
        let count: u32 = line.parse().map_err(|_| Failure::new(format!("{line:?} is no number")))?;
        let mut times = Vec::new();
        for _ in 0..count {
            // What has come too late for an earlier one.
            while session.socket().try_recv(&mut buffer).is_ok() {}
            let sent = tokio::time::Instant::now();
            session.send(&greeting).await?;
            if let Ok(len) = tokio::time::timeout(PING_TIMEOUT, session.receive(&mut buffer)).await {
                len?;
                times.push(sent.elapsed());
            }
            tokio::time::sleep_until(sent + PING_INTERVAL).await;
        }
        let received = u32::try_from(times.len()).unwrap_or(u32::MAX);
        print(&Pings { sent: count, received, times: Times::of(times) })?;
    }
    Ok(())
}

/// Counts UDP datagrams.
///
/// # Errors
/// If the socket cannot be made or fails.
pub fn udp_sink(address: SocketAddr) -> Result<(), Failure> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(IDLE))?;
    print(&"listening")?;
    let mut buffer = vec![0; 4096];
    let mut counter = Counter(None);
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => {
                if let Some(step) = buffer[..len].first_chunk() {
                    counter.count(u32::from_be_bytes(*step))?;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                counter.report()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends UDP datagrams in steps.
///
/// # Errors
/// If the socket cannot be made.
pub async fn udp_source(
    address: SocketAddr,
    len: usize,
    rates: &[u32],
    duration: Duration,
) -> Result<(), Failure> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = tokio::net::UdpSocket::bind(any).await?;
    let mut datagram = vec![0; len];
    for (step, rate) in rates.iter().enumerate() {
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        Noise(3).fill(&mut datagram);
        datagram[..4].copy_from_slice(&step.to_be_bytes());
        let sent = at_rate(*rate, duration, async |_| {
            // A full queue of the interface is a loss like any other.
            let _ = socket.try_send_to(&datagram, address);
            Ok(())
        });
        let sent = sent.await?;
        tokio::time::sleep(IDLE * 2).await;
        print(&sent)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_for_all() {
        let (mut one, mut two) = ([0; 100], [0; 100]);
        Noise(1).fill(&mut one);
        Noise(1).fill(&mut two);
        assert_eq!(one, two);
        assert_ne!(one[..8], one[8..16]);
    }
}
