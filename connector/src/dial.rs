//! Makes a connection to the bridge.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use i2plan_ipc::api::keyd::DialError;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// How long the bridge may take to accept a connection, at all its addresses together.
const DEADLINE: Duration = Duration::from_secs(5);

/// The TCP connection to the first of these addresses that takes one, and a UDP socket that is connected to this port
/// there.
///
/// # Errors
/// [`DialError`], the one of the first address.
pub async fn dial(addresses: &[SocketAddr], udp_port: u16) -> Result<[OwnedFd; 2], DialError> {
    let mut failed = None;
    let started = Instant::now();
    for address in addresses {
        match timeout_at(started + DEADLINE, dial_one(*address, udp_port)).await {
            Ok(Ok(sockets)) => return Ok(sockets),
            Ok(Err(error)) => {
                debug!(%address, %error, "cannot connect");
                failed.get_or_insert(error.raw_os_error().map_or(DialError::TimedOut, DialError::System));
            }
            Err(_) => {
                failed.get_or_insert(DialError::TimedOut);
            }
        }
    }
    Err(failed.unwrap_or(DialError::Unresolved))
}

async fn dial_one(address: SocketAddr, udp_port: u16) -> io::Result<[OwnedFd; 2]> {
    let stream = TcpStream::connect(address).await?;
    // Those who use it may not set this.
    stream.set_nodelay(true)?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let datagrams = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    connect(&datagrams, &SocketAddr::new(address.ip(), udp_port))?;
    Ok([stream.into_std()?.into(), datagrams])
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd as _;

    use i2plan_ipc::bridge::Bridge;

    use super::*;

    #[tokio::test]
    async fn what_is_made_leads_to_the_bridge() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (Ok(listener), Ok(datagrams)) = (TcpListener::bind(host), UdpSocket::bind(host)) else {
                // A machine without IPv6.
                continue;
            };
            let (address, forwards) = (listener.local_addr().unwrap(), datagrams.local_addr().unwrap());
            let bridge = Bridge { address: address.into(), udp_port: Some(forwards.port()) };
            let [stream, udp] = dial(&[address], forwards.port()).await.unwrap();
            assert_eq!(bridge.check_connection(stream.as_fd()), Ok(address));
            assert_eq!(bridge.check_datagrams(udp.as_fd(), Some(address.ip())), Ok(forwards));
            // Where the bridge shall forward to.
            let local = UdpSocket::from(udp).local_addr().unwrap();
            assert_eq!(local.ip(), address.ip());
            assert_ne!(local.port(), 0);
        }
    }

    #[tokio::test]
    async fn a_bridge_that_is_not_there_is_an_error_of_the_system() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = dial(&[address], 1).await.unwrap_err();
        assert!(matches!(error, DialError::System(_)), "{error:?}");
        assert_eq!(dial(&[], 1).await.unwrap_err(), DialError::Unresolved);
    }

    #[tokio::test]
    async fn a_host_is_tried_at_all_its_addresses() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let [stream, _] = dial(&[closed, open], 1).await.unwrap();
        assert_eq!(std::net::TcpStream::from(stream).peer_addr().unwrap(), open);
    }
}
