//! Follows the node, and tells pages that something has changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use i2plan_ipc::node::{EventStream, Notice};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::history::History;
use super::http::Web;

/// How often the traffic is read.
const TRAFFIC: Duration = Duration::from_secs(5);

/// How long a page waits after it was told something.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a page is told that the connection still stands.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long a page is told things over one connection; browsers open the next by themselves.
const LIFETIME: Duration = Duration::from_secs(600);

/// What a page is told.
const CHANGED: &[u8] = b"data: changed\n\n";

/// What pages follow.
#[derive(Debug)]
pub struct Live {
    history: Mutex<History>,
    version: watch::Sender<u64>,
}

impl Default for Live {
    fn default() -> Self {
        Self { history: Mutex::default(), version: watch::Sender::new(0) }
    }
}

impl Live {
    /// What happened lately.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is to be shown that was not.
    pub fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

/// Follows the node for as long as the process lives.
pub async fn follow(web: Arc<Web>) {
    let mut stream = EventStream::at(web.meshd().clone()).with_past().with_traffic(TRAFFIC);
    loop {
        let notice = stream.next().await;
        let live = web.live();
        match notice {
            Notice::Event(event) => live.history().push(event),
            Notice::Traffic(traffic) => live.history().note(&traffic),
            Notice::Resync | Notice::Lost(_) => {}
        }
        live.changed();
    }
}

/// Waits until a session has ended.
pub async fn ended(web: &Web, session: &str) {
    let mut version = web.live().version.subscribe();
    while web.sessions().is_open(session, web.now()) {
        // Nothing wakes this task when a session expires.
        let _ = timeout(KEEPALIVE, version.changed()).await;
    }
}

/// Tells a page that something has changed, as server-sent events, while its session is open and it listens.
pub fn tell(web: Arc<Web>, session: String) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut version = web.live().version.subscribe();
        let ends = Instant::now() + LIFETIME;
        while Instant::now() < ends && web.sessions().is_open(&session, web.now()) {
            let text: &[u8] = match timeout(KEEPALIVE, version.changed()).await {
                Ok(Ok(())) => CHANGED,
                Ok(Err(_)) => return,
                Err(_) => b":\n\n",
            };
            if sender.send(Bytes::from_static(text)).await.is_err() {
                return;
            }
            sleep(PAUSE).await;
        }
        // It asks, and is told that its session has ended. That may have happened in the pause.
        let _ = sender.send(Bytes::from_static(CHANGED)).await;
    });
    receiver
}
