//! A program that follows a node, which answers as `meshd` does.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::meshd::{Cursor, Event, EventKind, Events, MeshdApi, Reply, Request, Traffic};
use i2plan_ipc::node::{EventStream, Node, Notice};
use i2plan_ipc::server::{Answer, ConnectionLimits, Service, serve};
use i2plan_ipc::{ApiError, Role};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The events of one run, of which the first so many are gone.
#[derive(Debug, Clone, Default)]
struct FakeLog {
    run: u64,
    gone: u64,
    length: u64,
}

#[derive(Debug)]
struct FakeMeshd(watch::Receiver<FakeLog>);

fn event(number: u64) -> Event {
    Event { number, at: 0, kind: EventKind::KeyRotated { epoch: 1 } }
}

impl Service for FakeMeshd {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        let Request::Events { after, wait, traffic } = request else {
            return Err(ApiError::conflict("not now"));
        };
        let mut log = self.0.clone();
        let begin = after.map_or(log.borrow().length, |cursor| cursor.number);
        let news =
            log.wait_for(|log| log.length > begin || after.is_some_and(|cursor| cursor.run != log.run));
        let _ = tokio::time::timeout(Duration::from_millis(wait), news).await;
        let log = log.borrow().clone();
        let lost = after.is_some_and(|cursor| cursor.run != log.run || cursor.number < log.gone);
        let from = if lost { log.gone } else { begin };
        let traffic = traffic.then(|| Traffic { at: 0, peers: Vec::new() });
        let next = Cursor { run: log.run, number: log.length };
        Ok(Reply::Events(Box::new(Events {
            events: (from..log.length).map(event).collect(),
            next,
            lost,
            traffic,
        }))
        .into())
    }
}

struct Fake {
    path: PathBuf,
    log: watch::Sender<FakeLog>,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Fake {
    fn start(limits: ConnectionLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let log = watch::Sender::new(FakeLog { run: 1, gone: 0, length: 5 });
        let server = Self::serve(&path, &log, limits);
        Self { path, log, server, _dir: dir }
    }

    fn serve(path: &PathBuf, log: &watch::Sender<FakeLog>, limits: ConnectionLimits) -> JoinHandle<()> {
        let service = Arc::new(FakeMeshd(log.subscribe()));
        let access = Access::new([(Role::Client, Who::Anyone)]);
        tokio::spawn(serve(UnixListener::bind(path).unwrap(), service, access, limits))
    }

    fn happen(&self, count: u64) {
        self.log.send_modify(|log| log.length += count);
    }
}

#[tokio::test]
async fn it_begins_now_and_tells_everything_once() {
    let fake = Fake::start(ConnectionLimits::default());
    let mut events = EventStream::new(&fake.path);
    assert_eq!(events.next().await, Notice::Resync);
    fake.happen(2);
    assert_eq!(events.next().await, Notice::Event(event(5)));
    fake.happen(1);
    assert_eq!(events.next().await, Notice::Event(event(6)));
    assert_eq!(events.next().await, Notice::Event(event(7)));
}

#[tokio::test]
async fn giving_up_loses_nothing_and_costs_no_connection() {
    // Room for one connection only.
    let fake = Fake::start(ConnectionLimits { shared: 1, reserved: 0, ..ConnectionLimits::default() });
    let mut events = EventStream::new(&fake.path);
    assert_eq!(events.next().await, Notice::Resync);
    for number in 5..50 {
        let given_up = tokio::time::timeout(Duration::from_millis(1), events.next()).await;
        assert!(given_up.is_err(), "{given_up:?}");
        fake.happen(1);
        assert_eq!(events.next().await, Notice::Event(event(number)));
    }
}

#[tokio::test]
async fn what_was_missed_is_said() {
    let fake = Fake::start(ConnectionLimits::default());
    let mut events = EventStream::new(&fake.path);
    assert_eq!(events.next().await, Notice::Resync);
    // More has happened than is kept.
    fake.log.send_modify(|log| *log = FakeLog { gone: 100, length: 101, ..*log });
    assert_eq!(events.next().await, Notice::Resync);
    assert_eq!(events.next().await, Notice::Event(event(100)));
    // Another run, in which the same cursor means something else.
    fake.log.send_modify(|log| *log = FakeLog { run: 2, gone: 0, length: 102 });
    assert_eq!(events.next().await, Notice::Resync);
    assert_eq!(events.next().await, Notice::Event(event(0)));
}

#[tokio::test]
async fn a_node_that_was_away_is_found_again() {
    let mut fake = Fake::start(ConnectionLimits::default());
    let mut events = Node::connect(&fake.path).await.unwrap().events();
    assert_eq!(events.next().await, Notice::Resync);
    // The connection that is answered, and the one that waits to be accepted.
    fake.server.abort();
    std::fs::remove_file(&fake.path).unwrap();
    let mut early = EventStream::new(&fake.path);
    let Notice::Lost(why) = early.next().await else { panic!("there is no node") };
    assert!(why.contains("meshd.sock"), "{why}");
    fake.server = Fake::serve(&fake.path, &fake.log, ConnectionLimits::default());
    // It does not say a second time that the node is away.
    assert_eq!(early.next().await, Notice::Resync);
    fake.happen(1);
    assert_eq!(early.next().await, Notice::Event(event(5)));
    assert_eq!(events.next().await, Notice::Event(event(5)));
}

#[tokio::test]
async fn traffic_comes_in_its_interval() {
    let fake = Fake::start(ConnectionLimits::default());
    let mut events = EventStream::new(&fake.path).with_traffic(Duration::from_millis(100));
    assert_eq!(events.next().await, Notice::Resync);
    let began = std::time::Instant::now();
    for _ in 0..4 {
        assert!(matches!(events.next().await, Notice::Traffic(_)));
    }
    // The first comes at once.
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn who_has_gone_does_not_keep_its_place() {
    let fake = Fake::start(ConnectionLimits { shared: 2, reserved: 0, ..ConnectionLimits::default() });
    let mut events = EventStream::new(&fake.path);
    assert_eq!(events.next().await, Notice::Resync);
    // It waits for the next event, which does not come.
    assert!(tokio::time::timeout(Duration::from_millis(20), events.next()).await.is_err());
    drop(events);
    let freed = async {
        while Node::connect(&fake.path).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("its permit is not free");
}
