//! Connections to the SAM bridge, which the connector makes in `keyd`'s place.
//!
//! The connector asks for dial requests, carries one out at a time and passes what comes of it. One stays in the queue
//! until it has been answered, so that a connector that has started again gets it again.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use i2plan_ipc::api::keyd::{Connector, DialError, NotConnected, ORDER_WAIT};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::{ApiError, ErrorKind};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

/// Dial requests that may wait for the connector.
const MAX_REQUESTS: usize = 8;

/// How long a connector that is not there is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connector that is there may take, with the dial requests before.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a connector counts as being there after it was last answered.
const PRESENT: Duration = Duration::from_secs(10);

/// A connection to the bridge on which nothing has been said.
#[derive(Debug)]
pub struct Connection {
    /// The TCP connection.
    pub stream: OwnedFd,
    /// The UDP socket, connected to the bridge.
    pub datagrams: OwnedFd,
}

/// The dial requests, and whom they go to.
#[derive(Debug)]
pub struct Dialing {
    bridge: Bridge,
    state: Mutex<State>,
    requested: Notify,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<DialRequest>,
    last: u64,
    connector: Option<Connector>,
    /// Calls of a connector that wait for a dial request.
    waiting: usize,
    /// When one was last answered.
    answered: Option<Instant>,
}

#[derive(Debug)]
struct DialRequest {
    number: u64,
    answer: oneshot::Sender<Result<Connection, ApiError>>,
}

impl State {
    /// The dial request that is to be carried out next. Those that nobody waits for any more are dropped.
    fn next(&mut self) -> Option<u64> {
        self.requests.retain(|request| !request.answer.is_closed());
        self.requests.front().map(|request| request.number)
    }

    fn take(&mut self, number: u64) -> Option<DialRequest> {
        self.answered = Some(Instant::now());
        let at = self.requests.iter().position(|request| request.number == number)?;
        self.requests.remove(at)
    }

    fn is_connected(&self) -> bool {
        self.waiting > 0 || self.answered.is_some_and(|at| at.elapsed() < PRESENT)
    }
}

/// A connector's call waits for a dial request.
struct Waiting<'a>(&'a Dialing);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl Dialing {
    /// Has connections made to this bridge alone.
    #[must_use]
    pub fn new(bridge: Bridge) -> Self {
        Self { bridge, state: Mutex::new(State::default()), requested: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connector connect to the bridge.
    ///
    /// # Errors
    /// If it is not there, cannot, or passes something else.
    pub async fn dial(&self) -> Result<Connection, ApiError> {
        let (answer, mut answered) = oneshot::channel();
        {
            let mut state = self.state();
            state.next();
            if state.requests.len() >= MAX_REQUESTS {
                return Err(ApiError::unavailable(
                    "too many sessions wait for a connection to the SAM bridge",
                ));
            }
            state.last += 1;
            let number = state.last;
            state.requests.push_back(DialRequest { number, answer });
        }
        self.requested.notify_waiters();
        let gone = |_| ApiError::internal("the dial request to the connector is lost");
        if let Ok(answer) = timeout(TIMEOUT, &mut answered).await {
            return answer.map_err(gone)?;
        }
        if !self.state().is_connected() {
            return Err(ApiError::unavailable(
                "the connector, which connects to the SAM bridge, is not connected to keyd",
            )
            .with_hint("see that i2plan-connector runs, and its log"));
        }
        match timeout(DEADLINE.saturating_sub(TIMEOUT), answered).await {
            Ok(answer) => answer.map_err(gone)?,
            Err(_) => Err(ApiError::timeout("the connector took too long to connect to the SAM bridge")),
        }
    }

    /// The next dial request for a connector; none if there is none for a while.
    pub async fn next_request(&self, connector: Connector) -> Option<u64> {
        {
            let mut state = self.state();
            state.waiting += 1;
            state.connector = Some(connector);
        }
        let waiting = Waiting(self);
        let request = timeout(ORDER_WAIT, async {
            loop {
                // Before the look, so that no dial request comes in between unnoticed.
                let requested = self.requested.notified();
                tokio::pin!(requested);
                requested.as_mut().enable();
                if let Some(request) = self.state().next() {
                    return request;
                }
                requested.await;
            }
        });
        let request = request.await.ok();
        self.state().answered = Some(Instant::now());
        drop(waiting);
        request
    }

    /// Takes what a connector has connected.
    ///
    /// # Errors
    /// If it is not what was requested.
    pub fn connected(&self, number: u64, [stream, datagrams]: [OwnedFd; 2]) -> Result<(), ApiError> {
        let request = self.state().take(number);
        let checked = self
            .bridge
            .check_connection(stream.as_fd())
            .and_then(|bridge| self.bridge.check_datagrams(datagrams.as_fd(), Some(bridge.ip())).map(drop))
            .map_err(|found| {
                ApiError::denied(format!("the connector passed {found}")).with_hint(
                    "start keyd and the connector with the same SAM address: set i2p.sam_address, or \
                     I2PLAN_SAM_ADDRESS for both",
                )
            });
        if let Some(request) = request {
            // Who has requested it may have given up.
            let _ = request.answer.send(checked.clone().map(|()| Connection { stream, datagrams }));
        }
        checked
    }

    /// Notes that a connector cannot connect.
    pub fn not_connected(&self, NotConnected { order: number, reason }: NotConnected) {
        let Some(request) = self.state().take(number) else { return };
        let address = &self.bridge.address;
        let error = match reason {
            DialError::System(errno) => ApiError::new(
                ErrorKind::NotFound,
                format!("no SAM bridge at {address}: {}", std::io::Error::from_raw_os_error(errno)),
            )
            .with_hint("start the I2P router or set i2p.sam_address"),
            DialError::TimedOut => {
                ApiError::new(ErrorKind::Timeout, format!("the SAM bridge at {address} does not answer"))
            }
            DialError::Unresolved => ApiError::unavailable(format!(
                "the host name of the SAM bridge at {address} cannot be resolved; correct i2p.sam_address, or see that \
                 i2plan-connector reaches the host's name servers"
            )),
        };
        let _ = request.answer.send(Err(error));
    }

    /// What the connector says of itself, if it is there.
    #[must_use]
    pub fn connector(&self) -> Option<Connector> {
        let state = self.state();
        state.connector.clone().filter(|_| state.is_connected())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use i2plan_ipc::hello::Landlock;
    use i2plan_ipc::version::Version;

    use super::*;

    fn connector() -> Connector {
        Connector { pid: 7, version: Version::current(), landlock: Landlock::Full }
    }

    struct Fixture {
        listener: TcpListener,
        datagrams: UdpSocket,
        dialing: Dialing,
    }

    impl Fixture {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
            let bridge = Bridge {
                address: listener.local_addr().unwrap().into(),
                udp_port: Some(datagrams.local_addr().unwrap().port()),
            };
            Self { listener, datagrams, dialing: Dialing::new(bridge) }
        }

        fn connect(&self) -> [OwnedFd; 2] {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            udp.connect(self.datagrams.local_addr().unwrap()).unwrap();
            [TcpStream::connect(self.listener.local_addr().unwrap()).unwrap().into(), udp.into()]
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_carried_out_also_by_a_connector_that_comes_later_or_starts_again() {
        let fixture = Fixture::new();
        let work = async {
            // The first is gone before it has answered.
            let number = fixture.dialing.next_request(connector()).await.unwrap();
            assert_eq!(fixture.dialing.next_request(connector()).await, Some(number));
            fixture.dialing.connected(number, fixture.connect()).unwrap();
        };
        let (dialed, ()) = tokio::join!(fixture.dialing.dial(), work);
        dialed.unwrap();
        assert_eq!(fixture.dialing.connector(), Some(connector()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_connector_the_error_names_it() {
        let fixture = Fixture::new();
        let error = fixture.dialing.dial().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.starts_with("the connector"), "{error}");
        assert_eq!(fixture.dialing.connector(), None);
        // Nothing is left for one that comes now.
        assert_eq!(fixture.dialing.next_request(connector()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connector_that_has_hung_up_is_not_there() {
        let fixture = Fixture::new();
        {
            let waiting = fixture.dialing.next_request(connector());
            tokio::pin!(waiting);
            assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
            assert!(fixture.dialing.connector().is_some());
        }
        assert_eq!(fixture.dialing.connector(), None);
    }

    #[tokio::test]
    async fn what_was_not_ordered_is_refused_and_told() {
        let fixture = Fixture::new();
        let elsewhere = Fixture::new();
        let work = async {
            let number = fixture.dialing.next_request(connector()).await.unwrap();
            fixture.dialing.connected(number, elsewhere.connect()).unwrap_err()
        };
        let (dialed, told) = tokio::join!(fixture.dialing.dial(), work);
        let error = dialed.unwrap_err();
        assert_eq!((error.kind, &error), (ErrorKind::Denied, &told));
    }

    #[tokio::test]
    async fn why_there_is_no_connection_is_told() {
        let fixture = Fixture::new();
        for (reason, expected) in [
            (DialError::System(111), "no SAM bridge at 127.0.0.1"),
            (DialError::TimedOut, "does not answer"),
            (DialError::Unresolved, "cannot be resolved"),
        ] {
            let work = async {
                let number = fixture.dialing.next_request(connector()).await.unwrap();
                fixture.dialing.not_connected(NotConnected { order: number, reason });
            };
            let (dialed, ()) = tokio::join!(fixture.dialing.dial(), work);
            let error = dialed.unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dial_requests_are_bounded() {
        let fixture = Fixture::new();
        let mut dials: Vec<_> = (0..=MAX_REQUESTS).map(|_| Box::pin(fixture.dialing.dial())).collect();
        for dial in &mut dials[..MAX_REQUESTS] {
            assert!(timeout(Duration::ZERO, dial).await.is_err());
        }
        let error = dials.pop().unwrap().await.unwrap_err();
        assert!(error.message.starts_with("too many"), "{error}");
        // Those that are given up make room.
        dials.pop();
        let error = fixture.dialing.dial().await.unwrap_err();
        assert!(error.message.starts_with("the connector"), "{error}");
    }
}
