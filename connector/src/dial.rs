//! Makes a connection to the bridge.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use i2plan_ipc::bridge::Bridge;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the bridge may take to accept a connection.
const DEADLINE: Duration = Duration::from_secs(5);

/// The TCP connection, and the UDP socket that is connected to the bridge.
///
/// # Errors
/// The system's; [`io::ErrorKind::TimedOut`] without a number if the bridge does not answer.
pub async fn dial(bridge: &Bridge) -> io::Result<[OwnedFd; 2]> {
    let stream = timeout(DEADLINE, TcpStream::connect(bridge.address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // Those who use it may not set this.
    stream.set_nodelay(true)?;
    let family = if bridge.datagrams.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let datagrams = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    connect(&datagrams, &bridge.datagrams)?;
    Ok([stream.into_std()?.into(), datagrams])
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn what_is_made_leads_to_the_bridge() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (Ok(listener), Ok(datagrams)) = (TcpListener::bind(host), UdpSocket::bind(host)) else {
                // A machine without IPv6.
                continue;
            };
            let bridge = Bridge {
                address: listener.local_addr().unwrap(),
                datagrams: datagrams.local_addr().unwrap(),
            };
            let [stream, udp] = dial(&bridge).await.unwrap();
            assert_eq!(bridge.check_connection(stream.as_fd()), Ok(()));
            assert_eq!(bridge.check_datagrams(udp.as_fd()), Ok(()));
            // Where the bridge shall forward to.
            let local = UdpSocket::from(udp).local_addr().unwrap();
            assert_eq!(local.ip(), bridge.address.ip());
            assert_ne!(local.port(), 0);
        }
    }

    #[tokio::test]
    async fn a_bridge_that_is_not_there_is_an_error_of_the_system() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = dial(&Bridge::new(address)).await.unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
