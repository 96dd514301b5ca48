//! A stand-in for tund that only copies: packets between an interface and a SAM session, by the same system calls and
//! with the same offloads, in batches as long, with the same line before each datagram and as many bytes around each packet, but without
//! cryptography and queues. What a tunnel over the bridge costs beyond this is tund's own.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};

use i2plan_ipc::api::tund::Interface;
use i2plan_proto::destination::{Destination, base64};
use i2plan_proto::identity::NetworkId;
use i2plan_tund::batch::Batch;
use i2plan_tund::device::{self, Device};
use i2plan_tund::io::BATCH;
use i2plan_tund::offload::{Coalescer, ReadBuffer};
use i2plan_tund::tunnel::MAX_MESSAGE;
use tokio::io::unix::AsyncFd;

use crate::Failure;
use crate::i2p::sam::{Session, Style, UDP};
use crate::probe::print;

/// What WireGuard has before a packet, and behind it, bytes (WireGuard, section 5.4.6).
const AROUND: usize = 16;

/// Prefix of the addresses of both ends.
const PREFIX: u8 = 24;

/// Runs an interface whose packets go to the destination that the first line of standard input names. Prints its own
/// destination before, and that it is ready then.
///
/// # Errors
/// If there can be no session or no interface, or that is gone.
pub async fn run(name: String, address: Ipv4Addr, mtu: u16) -> Result<(), Failure> {
    let destination = Destination { padding: rand::random(), signing_key: rand::random() };
    // The bridge does not look at the private keys.
    let key = base64().encode(&[&destination.to_i2p()[..], &[0; 64]].concat());
    let session = Session::open_under(Style::Raw, &key).await?;
    print(&session.destination)?;
    let mut peer = String::new();
    std::io::stdin().read_line(&mut peer)?;
    let interface = Interface {
        name,
        network: NetworkId([0; 32]),
        ipv4: address,
        ipv4_prefix: PREFIX,
        ipv6: Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(address.to_bits())),
        ipv6_prefix: 64,
        mtu,
    };
    let device = device::create(&interface).await.map_err(|error| Failure::new(error.to_string()))?;
    let device = i2plan_tund::readiness::register(device)?;
    print(&"ready")?;
    copy(&device, &session, &session.header(peer.trim())).await
}

async fn copy(device: &AsyncFd<Device>, session: &Session, header: &[u8]) -> Result<(), Failure> {
    let mut outgoing = header.to_vec();
    let mut incoming = vec![0; MAX_MESSAGE];
    let (mut read, mut batch, mut pending) = (ReadBuffer::default(), Batch::default(), Coalescer::default());
    let start = header.len() + AROUND;
    let socket = session.socket();
    // What the socket or the interface does not take is lost.
    let send =
        |batch: &mut Batch| batch.send(socket, UDP, |datagram| socket.try_send_to(datagram, UDP).map(drop));
    loop {
        tokio::select! {
            ready = device.readable() => {
                let mut ready = ready?;
                let mut packets = 0;
                while packets < BATCH {
                    let read = ready.try_io(|device| device.get_ref().recv(&mut read, |packet| {
                        packets += 1;
                        outgoing.resize(start, 0);
                        outgoing.extend_from_slice(packet);
                        outgoing.resize(start + packet.len() + AROUND, 0);
                        if !batch.takes(&outgoing) {
                            send(&mut batch);
                        }
                        batch.push(&outgoing);
                    }));
                    match read {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                        Ok(Err(error)) => return Err(error.into()),
                        Err(_would_block) => break,
                    }
                }
                send(&mut batch);
            }
            ready = socket.readable() => {
                ready?;
                let device = device.get_ref();
                for _ in 0..BATCH {
                    match socket.try_recv_from(&mut incoming) {
                        Ok((len, _)) => {
                            // What is too short is no packet.
                            let packet = incoming.get(AROUND..len.saturating_sub(AROUND));
                            packet.map(|packet| device.send_soon(packet, &mut pending));
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(_) => {}
                    }
                }
                device.flush(&mut pending);
            }
        }
    }
}
