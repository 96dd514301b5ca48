//! Which sizes of repliable datagrams, the kind that control messages travel in, I2P carries well: how many arrive, and
//! how long they take, alone and beside the traffic of a busy tunnel.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::{interval, timeout, timeout_at};

use crate::Failure;
use crate::i2p::sam::{Session, Style};
use crate::node::{Lab, Node};
use crate::probe::print;
use crate::progress::Progress;
use crate::stats::Times;

/// Payloads, bytes. Those of control messages are at most 4096.
const SIZES: [usize; 9] = [200, 500, 900, 1400, 1900, 2400, 2900, 4000, 8000];

/// Datagrams of each size.
const COUNT: usize = 100;

/// Between two datagrams, of whatever size.
const PACE: Duration = Duration::from_millis(20);

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Other datagrams a second at the same time, raw and as long as full WireGuard packets.
const LOADS: [u32; 4] = [0, 1000, 2000, 3000];

/// Length of these, bytes.
const LOAD_LEN: usize = 1300;

/// What became of the datagrams of one size.
#[derive(Debug, Serialize, Deserialize)]
struct Size {
    /// Payload, bytes.
    len: usize,
    sent: usize,
    /// Of these answered.
    answered: usize,
    /// From sending to the answer, which is short.
    times: Option<Times>,
}

#[derive(Debug, Serialize)]
struct Condition {
    /// Other datagrams a second.
    load: u32,
    sizes: Vec<Size>,
}

/// Runs the measurement in the sandbox.
///
/// # Errors
/// If anything does not work.
pub async fn run(json: bool) -> Result<(), Failure> {
    let progress = Progress::new();
    progress.step("starting a private I2P network and two nodes");
    let lab = Lab::with_nodes(2).await?;
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    let mut conditions = Vec::new();
    for load in LOADS {
        progress.step(format!("datagrams of each size beside {load} others a second"));
        conditions.push(Condition { load, sizes: measure(one, two, load).await? });
    }
    progress.done();
    if json {
        print(&conditions)?;
    } else {
        table(&conditions);
    }
    lab.stop().await
}

async fn measure(from: &Node, to: &Node, load: u32) -> Result<Vec<Size>, Failure> {
    let mut echo = to.start_probe(&["__datagram-echo".to_owned()])?;
    let destination: String = echo.next_json().await?;
    let mut others = Vec::new();
    if load > 0 {
        let mut sink = to.start_probe(&["__raw-sink".to_owned()])?;
        let target: String = sink.next_json().await?;
        let time = SIZES.len() * COUNT * usize::try_from(PACE.as_millis()).unwrap_or(0) / 1000 + 60;
        let arguments =
            [target, LOAD_LEN.to_string(), time.to_string(), "--rate".to_owned(), load.to_string()];
        let source = ["__raw-source".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>();
        others.extend([from.start_probe(&source)?, sink]);
    }
    let sizes = from.probe(&["__datagram-source".to_owned(), destination]).await;
    for other in others.iter_mut().chain([&mut echo]) {
        other.kill().await?;
    }
    sizes
}

/// Answers every datagram with its first bytes, until it is killed. Prints its destination.
///
/// # Errors
/// If there is no session to be had.
pub async fn echo() -> Result<(), Failure> {
    let session = Session::open(Style::Datagram).await?;
    print(&session.destination)?;
    let mut buffer = vec![0; 65_536];
    loop {
        let len = session.receive(&mut buffer).await?;
        // "<sender> FROM_PORT=..\n", then the payload (SAM v3).
        let Some(line) = buffer[..len].iter().position(|byte| *byte == b'\n') else { continue };
        let sender = buffer[..line].split(|byte| *byte == b' ').next().unwrap_or_default();
        let mut answer = session.header(&String::from_utf8_lossy(sender));
        answer.extend(buffer[line + 1..len].iter().take(NUMBER));
        session.send(&answer).await?;
    }
}

/// Bytes of a datagram's number.
const NUMBER: usize = 8;

/// Sends datagrams of all sizes in turn to an [`echo`], and prints what became of them.
///
/// # Errors
/// If there is no session to be had, or nothing is answered at all.
pub async fn source(destination: &str) -> Result<(), Failure> {
    let session = Session::open(Style::Datagram).await?;
    let send = async |number: u64, len: usize| {
        let mut datagram = session.header(destination);
        datagram.extend_from_slice(&number.to_be_bytes());
        datagram.resize(datagram.len() - NUMBER + len, 0x5a);
        session.send(&datagram).await
    };
    let mut buffer = vec![0; 65_536];
    // Until the routers know each other's destinations.
    let began = Instant::now();
    loop {
        send(u64::MAX, NUMBER).await?;
        if let Ok(received) = timeout(Duration::from_millis(500), session.receive(&mut buffer)).await {
            received?;
            break;
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err(Failure::new("no datagram was answered within a minute"));
        }
    }
    let total = SIZES.len() * COUNT;
    let mut sent_at = Vec::with_capacity(total);
    let mut took = vec![None; total];
    let mut pace = interval(PACE);
    let mut until = None;
    loop {
        let received = async {
            match until {
                Some(until) => timeout_at(until, session.receive(&mut buffer)).await.ok(),
                None => Some(session.receive(&mut buffer).await),
            }
        };
        tokio::select! {
            received = received => {
                let Some(received) = received else { break };
                let len = received?;
                let line = buffer[..len].iter().position(|byte| *byte == b'\n').unwrap_or(len);
                let number = buffer[..len].get(line + 1..).and_then(|payload| payload.first_chunk());
                let number = number.map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                if let (Some(at), Some(took)) = (sent_at.get(place), took.get_mut(place)) {
                    let at: &Instant = at;
                    took.get_or_insert(at.elapsed());
                }
            }
            _ = pace.tick(), if until.is_none() => {
                let number = sent_at.len();
                sent_at.push(Instant::now());
                send(number as u64, SIZES[number % SIZES.len()]).await?;
                if sent_at.len() == total {
                    until = Some(tokio::time::Instant::now() + TIMEOUT);
                }
            }
        }
    }
    let sizes = SIZES.iter().enumerate().map(|(index, len)| {
        let times: Vec<Duration> = took.iter().skip(index).step_by(SIZES.len()).copied().flatten().collect();
        Size { len: *len, sent: COUNT, answered: times.len(), times: Times::of(times) }
    });
    print(&sizes.collect::<Vec<_>>())
}

fn table(conditions: &[Condition]) {
    println!("{:>8} {:>8} {:>10} {:>36}", "others/s", "bytes", "answered", "min/median/p90/max ms");
    for Condition { load, sizes } in conditions {
        for Size { len, sent, answered, times } in sizes {
            let times = times.map_or("-".to_owned(), |times| {
                format!("{:.1}/{:.1}/{:.1}/{:.1}", times.min, times.median, times.p90, times.max)
            });
            println!("{load:>8} {len:>8} {:>10} {times:>36}", format!("{answered}/{sent}"));
        }
    }
}
