//! The UDP socket between a session and its bridge.

use std::io;

use tokio::net::UdpSocket;

/// Largest datagram that a bridge forwards, bytes.
pub const MAX_DATAGRAM: usize = 32 * 1024;

/// Sends a datagram to the bridge. An error of an earlier one is reported in the place of this one's sending, once.
///
/// # Errors
/// If the socket does not take it.
pub fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<()> {
    match socket.try_send(datagram) {
        Err(error) if is_of_an_earlier_datagram(&error) => socket.try_send(datagram),
        result => result,
    }
    .map(drop)
}

/// Receives what the bridge forwards next. The socket is to be connected to the bridge, so that the kernel drops what
/// others send.
///
/// # Errors
/// If the socket fails.
pub async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(buffer).await {
            Err(error) if is_of_an_earlier_datagram(&error) => {}
            result => return result,
        }
    }
}

/// Whether an error says that an earlier datagram did not reach the bridge (ICMP), as while the router restarts. The
/// session's end shows on its connection.
#[must_use]
pub fn is_of_an_earlier_datagram(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn bound() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    async fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 10];
        let len = receive(socket, &mut buffer).await.unwrap();
        buffer[..len].to_vec()
    }

    #[tokio::test]
    async fn what_comes_from_another_port_than_the_bridges_is_not_heard() {
        let (socket, bridge, other) = (bound().await, bound().await, bound().await);
        socket.connect(bridge.local_addr().unwrap()).await.unwrap();
        let here = socket.local_addr().unwrap();
        other.send_to(b"forged", here).await.unwrap();
        bridge.send_to(b"right", here).await.unwrap();
        assert_eq!(received(&socket).await, b"right");
    }

    #[tokio::test]
    async fn a_bridge_that_is_away_for_a_moment_costs_the_datagrams_of_that_moment() {
        let (socket, bridge) = (bound().await, bound().await);
        let (here, there) = (socket.local_addr().unwrap(), bridge.local_addr().unwrap());
        socket.connect(there).await.unwrap();
        socket.writable().await.unwrap();
        drop(bridge);
        send(&socket, b"lost").unwrap();
        let bridge = UdpSocket::bind(there).await.unwrap();
        // The error of the first is there by now: loopback is synchronous.
        send(&socket, b"sent").unwrap();
        assert_eq!(received(&bridge).await, b"sent");

        drop(bridge);
        send(&socket, b"lost").unwrap();
        let bridge = UdpSocket::bind(there).await.unwrap();
        bridge.send_to(b"heard", here).await.unwrap();
        assert_eq!(received(&socket).await, b"heard");
    }
}
