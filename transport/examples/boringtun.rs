//! WireGuard between two processes: `boringtun repliable|raw [PINGS]`, on two machines with an I2P router each, or twice
//! on one. Each prints a line, which is to be given to the other on standard input. With a number it sends a packet
//! of 1280 bytes every second until so many are answered; without one it answers. A real program has a TUN device in the
//! place of these packets, and keeps its keys.

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use data_encoding::BASE64;
use i2plan_transport::{Config, Endpoint, Keys, Style, Transport};
use tokio::time::interval;

/// The first byte of WireGuard's cookie reply, the one message that does not prove who has sent it.
const COOKIE: u8 = 3;
/// How long packets are not answered before the session is renewed: longer than WireGuard needs to shake hands again.
const SILENCE: Duration = Duration::from_secs(20);
const PING: u8 = 1;
const PONG: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let style = match arguments.next().as_deref() {
        Some("repliable") => Style::Datagram,
        Some("raw") => Style::Raw,
        _ => return Err("usage: boringtun repliable|raw [PINGS]".into()),
    };
    let pings: u32 = arguments.next().map_or(Ok(0), |pings| pings.parse())?;
    let mut transport = Transport::start(Config::new(Keys::generate(), style))?;
    let secret = StaticSecret::from(rand::random::<[u8; 32]>());
    let (public, destination) = (PublicKey::from(&secret), transport.destination());
    println!("{} {}", BASE64.encode(public.as_bytes()), destination.hash().b32());
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?.ok_or("no input")??;
    let (key, endpoint) = line.trim().split_once(' ').ok_or("a public key and an endpoint are expected")?;
    let key: [u8; 32] = BASE64.decode(key.as_bytes())?.try_into().map_err(|_| "no WireGuard key")?;
    let mut endpoint: Endpoint = endpoint.parse()?;
    let mut tunnel = Tunn::new(secret, PublicKey::from(key), None, Some(25), 0, None);

    transport.up().await;
    let (mut second, mut timers) = (interval(Duration::from_secs(1)), interval(Duration::from_millis(100)));
    let (mut sent, mut answered, mut waiting) = (0, 0, HashMap::new());
    let (mut heard, mut buffer) = (Instant::now(), vec![0; 1 << 16]);
    while pings == 0 || answered < pings {
        tokio::select! {
            _ = second.tick(), if pings > 0 => {
                if heard.elapsed() > SILENCE {
                    transport.renew().await;
                    heard = Instant::now();
                    second.reset();
                }
                sent += 1;
                waiting.insert(sent, Instant::now());
                send(&transport, &endpoint, tunnel.encapsulate(&packet(PING, sent), &mut buffer));
            }
            _ = timers.tick() => send(&transport, &endpoint, tunnel.update_timers(&mut buffer)),
            Some(datagram) = transport.recv() => {
                let mut result = tunnel.decapsulate(None, &datagram.payload, &mut buffer);
                // WireGuard roams: who has proved to be the peer is answered where that came from.
                if !matches!(result, TunnResult::Err(_)) && datagram.payload[0] != COOKIE {
                    endpoint = datagram.from.map_or(endpoint, Endpoint::Destination);
                    heard = Instant::now();
                }
                // What waited for the handshake comes of further calls without a datagram.
                while let TunnResult::WriteToNetwork(message) = result {
                    send(&transport, &endpoint, TunnResult::WriteToNetwork(message));
                    result = tunnel.decapsulate(None, &[], &mut buffer);
                }
                let TunnResult::WriteToTunnelV4(inner, _) = result else { continue };
                let Some(&[.., kind, a, b, c, d]) = inner.first_chunk::<25>() else { continue };
                let number = u32::from_be_bytes([a, b, c, d]);
                if kind == PING {
                    send(&transport, &endpoint, tunnel.encapsulate(&packet(PONG, number), &mut buffer));
                } else if let Some(at) = waiting.remove(&number) {
                    println!("packet {number} answered after {:.1} ms", at.elapsed().as_secs_f64() * 1e3);
                    answered += 1;
                }
            }
        }
    }
    transport.close().await;
    Ok(())
}

/// Sends what WireGuard has for the peer. What is lost is sent again by who needs it, as everywhere.
fn send(transport: &Transport, to: &Endpoint, result: TunnResult<'_>) {
    if let TunnResult::WriteToNetwork(message) = result {
        transport.send(to, message).unwrap_or_else(|error| eprintln!("not sent: {error}"));
    }
}

/// An IPv4 packet of 1280 bytes between two addresses.
fn packet(kind: u8, number: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 5, 0, 0, 0, 0, 0, 64, 253, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, kind];
    packet.extend(number.to_be_bytes());
    packet.resize(1280, 0);
    packet
}
