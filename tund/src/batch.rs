//! Datagrams that go to the bridge together.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use tracing::debug;

/// Longest datagram of UDP over IPv6, which is shorter than that over IPv4, less room for extension headers, bytes.
const MAX_BYTES: usize = 65_000;

/// Most datagrams of a system call (Linux before 6.9, `UDP_MAX_SEGMENTS`).
const MAX_COUNT: usize = 64;

/// Datagrams that one system call can send: all as long as the first, but for the last, which may be shorter (udp(7),
/// `UDP_SEGMENT`).
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// The length of each but the last.
    len: usize,
    count: usize,
    /// The kernel or the way to the bridge does not bear it.
    refused: bool,
}

impl Batch {
    /// Whether this datagram can go with those that are there.
    #[must_use]
    pub fn takes(&self, datagram: &[u8]) -> bool {
        let after_equals = self.bytes.len() == self.len * self.count;
        self.count == 0
            || cfg!(target_os = "linux")
                && !self.refused
                && after_equals
                && (1..=self.len).contains(&datagram.len())
                && self.count < MAX_COUNT
                && self.bytes.len() + datagram.len() <= MAX_BYTES
    }

    /// Adds a datagram that it takes.
    pub fn push(&mut self, datagram: &[u8]) {
        if self.count == 0 {
            self.len = datagram.len();
        }
        self.count += 1;
        self.bytes.extend_from_slice(datagram);
    }

    /// Sends its datagrams, in one system call if it can, else each by `send_one`. Has none afterwards. Returns how many
    /// were lost.
    pub fn send(
        &mut self,
        socket: impl AsFd,
        to: SocketAddr,
        mut send_one: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> usize {
        let sent_together = self.count > 1 && self.send_together(&socket, to);
        let mut lost = 0;
        if !sent_together {
            for datagram in self.bytes.chunks(self.len.max(1)) {
                if let Err(error) = send_one(datagram) {
                    debug!(%error, "the session's socket does not take a datagram");
                    lost += 1;
                }
            }
        }
        self.bytes.clear();
        self.count = 0;
        lost
    }

    /// Whether all are sent. Where that cannot be, it takes one at a time from then on.
    #[cfg(target_os = "linux")]
    fn send_together(&mut self, socket: &impl AsFd, to: SocketAddr) -> bool {
        use std::os::fd::AsRawFd as _;

        use nix::errno::Errno;
        use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

        let Ok(len) = u16::try_from(self.len) else { return false };
        let (parts, control) = ([io::IoSlice::new(&self.bytes)], [ControlMessage::UdpGsoSegments(&len)]);
        let to = SockaddrStorage::from(to);
        match sendmsg(socket.as_fd().as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to)) {
            Ok(_) => true,
            Err(error) => {
                // No support by the kernel or the network interface, or datagrams that are longer than its MTU.
                if matches!(error, Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP) {
                    debug!(%error, "sending datagrams one by one from now on");
                    self.refused = true;
                }
                false
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn send_together(&mut self, _socket: &impl AsFd, _to: SocketAddr) -> bool {
        false
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::*;

    fn pushed(lens: &[usize]) -> Batch {
        let mut batch = Batch::default();
        for len in lens {
            assert!(batch.takes(&vec![1; *len]), "{len} of {lens:?}");
            batch.push(&vec![1; *len]);
        }
        batch
    }

    fn lens(batch: &Batch) -> Vec<usize> {
        batch.bytes.chunks(batch.len).map(<[u8]>::len).collect()
    }

    #[test]
    fn datagrams_go_together_until_one_is_shorter() {
        let batch = pushed(&[10, 10, 10]);
        assert!(batch.takes(&[1; 10]) && batch.takes(&[1; 3]));
        assert!(!batch.takes(&[1; 11]) && !batch.takes(&[]));
        let batch = pushed(&[10, 10, 3]);
        assert!(!batch.takes(&[1; 10]) && !batch.takes(&[1; 3]));
        assert_eq!(lens(&batch), [10, 10, 3]);
    }

    #[test]
    fn a_system_call_takes_no_more_than_the_kernel_does() {
        assert!(!pushed(&[10; MAX_COUNT]).takes(&[1; 10]));
        assert!(!pushed(&[9_000; 7]).takes(&[1; 9_000]));
        assert!(pushed(&[9_000; 7]).takes(&[1; 2_000]));
    }

    fn receiver() -> (UdpSocket, SocketAddr) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = receiver.local_addr().unwrap();
        (receiver, address)
    }

    fn receive(receiver: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 10_000];
        let len = receiver.recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    }

    #[test]
    fn one_system_call_sends_many_datagrams() {
        let (receiver, to) = receiver();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = Batch::default();
        let datagrams = [vec![1; 2_000], vec![2; 2_000], vec![3; 5]];
        for datagram in &datagrams {
            batch.push(datagram);
        }
        assert_eq!(batch.send(&sender, to, |_| panic!("the kernel knows UDP_SEGMENT")), 0);
        assert_eq!(datagrams.clone().map(|_| receive(&receiver)), datagrams);
        assert!(batch.takes(&[1; 3_000]), "it is empty");
    }

    #[test]
    fn what_the_kernel_does_not_send_together_goes_one_by_one_from_then_on() {
        let (receiver, to) = receiver();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        // One that knows no segments.
        let other = UnixDatagram::unbound().unwrap();
        let mut batch = pushed(&[10, 10]);
        assert_eq!(batch.send(&other, to, |datagram| sender.send_to(datagram, to).map(drop)), 0);
        assert_eq!([receive(&receiver), receive(&receiver)], [[1; 10], [1; 10]]);
        batch.push(&[1; 10]);
        assert!(!batch.takes(&[1; 10]));
        assert_eq!(batch.send(&other, to, |_| Err(io::ErrorKind::WouldBlock.into())), 1);
    }
}
