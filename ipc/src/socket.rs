//! Frames and file descriptors over a unix stream socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recv, recvmsg, send, sendmsg, shutdown, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::frame::{Body, FrameError, HEADER_LEN, Header, MAX_FDS, decode_body, encode_body};

/// How long a frame may take from its first byte to its last, in either direction.
const FRAME_DEADLINE: Duration = Duration::from_secs(10);

/// Most descriptors that the kernel lets travel with one message (`SCM_MAX_FD` of Linux). There is room for all
/// of them: those for which there is none are closed by the kernel, with no chance to make that harmless.
const MAX_PASSED: usize = 253;

/// Why a connection is of no use any more.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    #[error("the connection was closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a frame did not arrive whole within {} s", FRAME_DEADLINE.as_secs())]
    Stalled,
    #[error("a frame announced {announced} file descriptors and brought {brought}")]
    Fds { announced: usize, brought: usize },
}

/// A connection.
#[derive(Debug)]
pub(crate) struct FrameSocket {
    stream: UnixStream,
    /// Descriptors that have arrived and belong to the frame that is being read.
    fds: VecDeque<OwnedFd>,
}

impl FrameSocket {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, fds: VecDeque::new() }
    }

    /// The next frame. Waits for its first byte as long as it takes.
    ///
    /// Not cancel-safe: a caller that gives up must drop the connection.
    pub(crate) async fn recv<T: DeserializeOwned>(
        &mut self,
        max: usize,
    ) -> Result<(T, Vec<OwnedFd>), SocketError> {
        // The first byte by reading it: that a socket was readable once does not say that it is.
        let mut header = [0; HEADER_LEN];
        let filled = self.read_some(&mut header).await?;
        let frame = self.read_frame(header, filled, max);
        let (body, fds) = timeout(FRAME_DEADLINE, frame).await.map_err(|_| SocketError::Stalled)??;
        Ok((decode_body(&body)?, fds))
    }

    pub(crate) async fn send<T: Serialize>(
        &mut self,
        message: &T,
        fds: &[BorrowedFd<'_>],
        max: usize,
    ) -> Result<(), SocketError> {
        let body = encode_body(message)?;
        let header = Header { len: body.len(), fds: fds.len() }.encode(max)?;
        timeout(FRAME_DEADLINE, self.write_frame(header, &body, fds))
            .await
            .map_err(|_| SocketError::Stalled)?
    }

    /// Completes when the other end has closed the connection. Never if it has sent something before, which nobody
    /// does who waits for an answer.
    pub(crate) async fn closed(&self) {
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            // That the socket was readable once does not say that it is.
            let look = || Ok(recv(&self.stream, &mut [0; 1][..], RecvFlags::PEEK)?.0);
            match self.stream.try_io(Interest::READABLE, look) {
                Ok(0) => return,
                Ok(_) => std::future::pending().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// The rest of a frame of whose header so many bytes have come.
    async fn read_frame(
        &mut self,
        mut header: [u8; HEADER_LEN],
        filled: usize,
        max: usize,
    ) -> Result<(Body, Vec<OwnedFd>), SocketError> {
        self.read_exact(&mut header[filled..]).await?;
        let header = Header::decode(header, max)?;
        let mut body = Zeroizing::new(vec![0; header.len]);
        self.read_exact(&mut body).await?;
        let fds: Vec<_> = self.fds.drain(..).collect();
        if fds.len() != header.fds {
            return Err(SocketError::Fds { announced: header.fds, brought: fds.len() });
        }
        Ok((body, fds))
    }

    async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), SocketError> {
        let mut filled = 0;
        while filled < buffer.len() {
            filled += self.read_some(&mut buffer[filled..]).await?;
        }
        Ok(())
    }

    /// At least one byte.
    async fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, SocketError> {
        loop {
            self.stream.readable().await?;
            let (stream, fds) = (&self.stream, &mut self.fds);
            match stream.try_io(Interest::READABLE, || receive(stream, buffer, fds)) {
                Ok(0) => return Err(SocketError::Closed),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn write_frame(
        &mut self,
        header: [u8; HEADER_LEN],
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SocketError> {
        let mut sent = 0;
        while sent < HEADER_LEN + body.len() {
            self.stream.writable().await?;
            // The descriptors ride on the first byte; sendmsg sends them once.
            let fds = if sent == 0 { fds } else { &[] };
            let parts = if sent < HEADER_LEN {
                [IoSlice::new(&header[sent..]), IoSlice::new(body)]
            } else {
                [IoSlice::new(&body[sent - HEADER_LEN..]), IoSlice::new(&[])]
            };
            match self.stream.try_io(Interest::WRITABLE, || transmit(&self.stream, &parts, fds)) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for FrameSocket {
    fn drop(&mut self) {
        self.fds.iter().for_each(do_not_linger);
        close(&self.stream);
    }
}

/// A connection that carries bytes and no descriptors: those that come along are closed, which nothing waits for.
#[derive(Debug)]
pub struct ByteSocket(UnixStream);

impl ByteSocket {
    /// On this connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Waits until the peer has hung up. One that only says no more may still wait for an answer.
    pub async fn hung_up(&self) {
        const PAUSE: Duration = Duration::from_secs(1);
        // A connection that can be written to is so all the time: there is nothing to be woken by.
        while self.0.ready(Interest::WRITABLE).await.is_ok_and(|ready| !ready.is_write_closed()) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends as much of these as needs no waiting.
    pub fn write_at_once(&self, bytes: &[u8]) {
        let _ = send(&self.0, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// One task at a time may wait to read, and one to write.
impl AsyncRead for &ByteSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut fds = VecDeque::new();
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let bytes = buffer.initialize_unfilled();
            match self.0.try_io(Interest::READABLE, || Ok(take_in(&self.0, bytes, &mut fds)?.0)) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for &ByteSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            let sending = || Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?);
            match self.0.try_io(Interest::WRITABLE, sending) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(&self.0, Shutdown::Write)?))
    }
}

impl Drop for ByteSocket {
    fn drop(&mut self) {
        close(&self.0);
    }
}

fn receive(stream: &UnixStream, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let (count, complete) = take_in(stream, buffer, fds)?;
    // A peer that sends descriptors without end must not collect them here.
    if fds.len() > MAX_FDS {
        return refuse("more file descriptors than a frame may carry");
    }
    if !complete {
        return refuse("more file descriptors than this process can take");
    }
    Ok(count)
}

/// Bytes and descriptors that have come, and whether those are all descriptors that were sent.
fn take_in(stream: &UnixStream, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<(usize, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed.inspect(do_not_linger));
        }
    }
    Ok((received.bytes, !received.flags.contains(ReturnFlags::CTRUNC)))
}

/// The last close of a socket that lingers (`SO_LINGER`) waits for the other end, on whose pleasure no daemon shall
/// depend. On other descriptors this does nothing.
fn do_not_linger(fd: &OwnedFd) {
    let _ = sockopt::set_socket_linger(fd, None);
}

/// Ends a connection, without waiting for anything: descriptors that are still on their way to this process are
/// taken in first, because otherwise the kernel closes them as they are.
pub(crate) fn close(stream: &UnixStream) {
    // From here on nothing can be added.
    let _ = shutdown(stream, Shutdown::Read);
    let mut buffer = [0; 4096];
    let mut fds = VecDeque::new();
    while let Ok((count, _)) = take_in(stream, &mut buffer, &mut fds) {
        if count == 0 && fds.is_empty() {
            break;
        }
        fds.clear();
    }
}

/// Sends a frame if that needs no waiting.
pub(crate) fn send_at_once<T: Serialize>(
    stream: &UnixStream,
    message: &T,
    max: usize,
) -> Result<(), SocketError> {
    let body = encode_body(message)?;
    let header = Header { len: body.len(), fds: 0 }.encode(max)?;
    let frame = Zeroizing::new([&header, &body[..]].concat());
    send(stream, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map_err(io::Error::from)?;
    Ok(())
}

fn transmit(stream: &UnixStream, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more file descriptors than a frame may carry",
        ));
    }
    Ok(sendmsg(stream.as_fd(), parts, &mut control, SendFlags::NOSIGNAL)?)
}
