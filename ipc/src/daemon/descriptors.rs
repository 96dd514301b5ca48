//! Refusing descriptors that are passed to a daemon.

#![allow(unsafe_code, reason = "setting an option that no library has")]

use std::os::fd::AsFd;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;

/// `SO_PASSRIGHTS` of Linux 6.16.
#[cfg(target_os = "linux")]
const PASS_RIGHTS: libc::c_int = 83;

/// Has the system refuse to pass descriptors to the connections of a listener. Closing a file can take as long as its file
/// system likes, which a sender can choose (FUSE), and stops the process meanwhile. A system that cannot refuse is left
/// as it is.
pub fn refuse(listener: impl AsFd) {
    #[cfg(target_os = "linux")]
    {
        let (listener, no) = (listener.as_fd().as_raw_fd(), 0 as libc::c_int);
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the value is there for the call and as long as it says.
        let _ = unsafe {
            libc::setsockopt(listener, libc::SOL_SOCKET, PASS_RIGHTS, (&raw const no).cast(), length)
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{IoSlice, Read as _, Write as _};
    use std::mem::MaybeUninit;
    use std::os::unix::net::{UnixListener, UnixStream};

    use rustix::io::Errno;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    fn pass(stream: &UnixStream) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [stream.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(stream, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL)
    }

    #[test]
    fn bytes_are_taken_and_descriptors_are_not_before_and_after_a_connection_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        refuse(&listener);
        let mut stream = UnixStream::connect(&path).unwrap();
        let before = pass(&stream);
        if before == Ok(1) {
            return; // an older kernel
        }
        let (mut accepted, _) = listener.accept().unwrap();
        assert_eq!((before, pass(&stream)), (Err(Errno::PERM), Err(Errno::PERM)));
        stream.write_all(b"y").unwrap();
        let mut byte = [0];
        accepted.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"y");
    }
}
