//! The signals that ask a daemon to end.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, or more.
#[derive(Debug)]
pub struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    /// Takes SIGTERM and SIGINT. Within a runtime, and before the sandbox closes, which lets no pipe be made.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> io::Result<Self> {
        Self::and(&[])
    }

    /// As [`Signals::new`], and takes these too.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn and(more: &[SignalKind]) -> io::Result<Self> {
        let kinds =
            [SignalKind::terminate(), SignalKind::interrupt()].into_iter().chain(more.iter().copied());
        kinds.map(|kind| Ok((kind, signal(kind)?))).collect::<io::Result<_>>().map(Self)
    }

    /// Waits until one comes. Cancel safe.
    pub async fn next(&mut self) -> SignalKind {
        poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            let came =
                signals.find_map(|(kind, signal)| signal.poll_recv(context).is_ready().then_some(*kind));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn the_signal_that_came_is_told() {
        let mut signals = Signals::and(&[SignalKind::user_defined1()]).unwrap();
        for (sent, kind) in
            [(Signal::USR1, SignalKind::user_defined1()), (Signal::TERM, SignalKind::terminate())]
        {
            kill_process(getpid(), sent).unwrap();
            assert_eq!(signals.next().await, kind);
        }
    }
}
