//! What a daemon tells its supervisor (sd_notify(3)), and the descriptors that it has it keep.
//!
//! The socket is the daemon's user's alone, and only the daemon's main process is heard. What it stores is bounded, is
//! given to its next process as it is, and is never looked into here.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use i2plan_ipc::notification::{MAX_LEN, Notification, Store};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::layout::NotifySocket;

/// Descriptors that are kept for one daemon. `tund` has seven, and for a moment ten.
const MAX_STORED: usize = 16;

/// Most descriptors that the kernel lets travel with one message (`SCM_MAX_FD` of Linux). There is room for all of
/// them, so that each can be closed with care.
const MAX_PASSED: usize = 253;

/// Receives what one daemon tells.
#[derive(Debug)]
pub(crate) struct NotifyReceiver {
    socket: NotifySocket,
    stored: Vec<Stored>,
}

/// A descriptor in the fd store.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its name.
    pub(crate) name: String,
    /// The descriptor.
    pub(crate) fd: OwnedFd,
}

/// Why what a daemon asks is not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// There are too many descriptors.
    #[error("the fd store has no room for {name}: it holds {MAX_STORED}")]
    Full {
        /// The name of the one that was not taken.
        name: String,
    },
    /// It came from another process than the daemon's.
    #[error("what process {pid} said in its name is not heard")]
    Stranger {
        /// Its id.
        pid: i32,
    },
}

impl NotifyReceiver {
    /// Receives at this socket; nothing is stored yet.
    pub(crate) fn new(socket: NotifySocket) -> Self {
        Self { socket, stored: Vec::new() }
    }

    /// Where the daemon speaks.
    pub(crate) fn path(&self) -> &Path {
        &self.socket.path
    }

    /// What is in the fd store.
    pub(crate) fn stored(&self) -> &[Stored] {
        &self.stored
    }

    /// Waits for the next thing that the process with this id says, and does what it says about descriptors.
    ///
    /// # Errors
    /// [`Refusal`] if it is not done.
    pub(crate) async fn receive(&mut self, pid: u32) -> Result<Notification, Refusal> {
        loop {
            if self.socket.socket.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(received) = self.try_receive(pid) {
                return received;
            }
        }
    }

    /// The next thing that has been said already.
    pub(crate) fn try_receive(&mut self, pid: u32) -> Option<Result<Notification, Refusal>> {
        let message = receive(&self.socket.socket).ok()?;
        if u32::try_from(message.pid) != Ok(pid) {
            return Some(Err(Refusal::Stranger { pid: message.pid }));
        }
        // A message that was cut short, or of whose descriptors some are missing, is not what was meant.
        let notification =
            if message.complete { Notification::parse(&message.bytes) } else { Notification::default() };
        match &notification.store {
            Some(Store::Keep { name, .. }) => {
                for fd in message.fds {
                    if self.stored.len() >= MAX_STORED {
                        return Some(Err(Refusal::Full { name: name.clone() }));
                    }
                    self.stored.push(Stored { name: name.clone(), fd });
                }
            }
            Some(Store::Forget { name }) => self.stored.retain(|stored| stored.name != *name),
            None => {}
        }
        Some(Ok(notification))
    }
}

/// A datagram with who sent it.
struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    pid: i32,
    complete: bool,
}

fn receive(socket: &UnixDatagram) -> io::Result<Message> {
    socket.try_io(Interest::READABLE, || {
        let mut bytes = vec![0; MAX_LEN];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let (mut fds, mut pid) = (Vec::new(), 0);
        for message in control.drain() {
            match message {
                // The last close of a socket that lingers would wait for the other end.
                RecvAncillaryMessage::ScmRights(passed) => fds.extend(passed.inspect(|fd| {
                    let _ = sockopt::set_socket_linger(fd, None);
                })),
                RecvAncillaryMessage::ScmCredentials(credentials) => pid = credentials.pid.as_raw_pid(),
                _ => {}
            }
        }
        let complete = !received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC);
        bytes.truncate(received.bytes);
        Ok(Message { bytes, fds, pid, complete })
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;
    use crate::users::Account;

    struct Fixture {
        receiver: NotifyReceiver,
        daemon: std::os::unix::net::UnixDatagram,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let own =
            Account { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let socket = NotifySocket::bind(dir.path().join("notify"), own).unwrap();
        let daemon = std::os::unix::net::UnixDatagram::unbound().unwrap();
        daemon.connect(&socket.path).unwrap();
        Fixture { receiver: NotifyReceiver::new(socket), daemon, _dir: dir }
    }

    impl Fixture {
        fn send(&self, message: &str, fds: usize) {
            let file = std::fs::File::open("/dev/null").unwrap();
            let fds = vec![file.as_fd(); fds];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            }
            let parts = [io::IoSlice::new(message.as_bytes())];
            sendmsg(&self.daemon, &parts, &mut control, SendFlags::empty()).unwrap();
        }

        fn names(&self) -> Vec<&str> {
            self.receiver.stored().iter().map(|stored| stored.name.as_str()).collect()
        }
    }

    #[tokio::test]
    async fn descriptors_are_kept_until_they_are_forgotten() {
        let mut fixture = fixture();
        fixture.send("FDSTORE=1\nFDNAME=a", 1);
        fixture.send("FDSTORE=1\nFDNAME=b", 2);
        // Without a name, or without descriptors, there is nothing to keep.
        fixture.send("FDSTORE=1", 1);
        fixture.send("FDSTORE=1\nFDNAME=c", 0);
        fixture.send("READY=1", 3);
        for ready in [false, false, false, false, true] {
            let received = fixture.receiver.receive(std::process::id()).await.unwrap();
            assert_eq!(received.ready, ready);
        }
        assert_eq!(fixture.names(), ["a", "b", "b"]);
        fixture.send("FDSTOREREMOVE=1\nFDNAME=b", 0);
        fixture.receiver.receive(std::process::id()).await.unwrap();
        assert_eq!(fixture.names(), ["a"]);
        assert!(fixture.receiver.try_receive(std::process::id()).is_none());
    }

    #[tokio::test]
    async fn no_more_are_kept_than_the_limit() {
        let mut fixture = fixture();
        fixture.send("FDSTORE=1\nFDNAME=many", 40);
        let refused = fixture.receiver.receive(std::process::id()).await.unwrap_err();
        assert_eq!(refused, Refusal::Full { name: "many".to_owned() });
        assert_eq!(fixture.names().len(), MAX_STORED);
    }

    #[tokio::test]
    async fn only_the_daemons_process_is_heard() {
        let mut fixture = fixture();
        fixture.send("READY=1\nFDSTORE=1\nFDNAME=a", 1);
        let refused = fixture.receiver.receive(1).await.unwrap_err();
        assert_eq!(refused, Refusal::Stranger { pid: std::process::id().cast_signed() });
        assert!(fixture.names().is_empty());
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_not_heard() {
        let mut fixture = fixture();
        fixture.send(&format!("READY=1\nX={}", "x".repeat(MAX_LEN)), 0);
        let received = fixture.receiver.receive(std::process::id()).await.unwrap();
        assert_eq!(received, Notification::default());
    }
}
