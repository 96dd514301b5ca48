//! A client and a server on a real socket.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;

use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::tund::{
    AttachSession, EndSync, FindSubnet, GetStats, Reply, Request, Session, TakeSessions, TundApi,
};
use i2plan_ipc::client::{ClientError, DaemonLink};
use i2plan_ipc::server::{Answer, ConnectionLimits, Service, serve};
use i2plan_ipc::{ApiError, ByteSocket, Client, ErrorKind, Role};
use i2plan_proto::destination::Destination;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};

/// Writes a word into the first descriptor that it is handed, and hands out a socket of its own.
struct Echo;

impl Service for Echo {
    type Api = TundApi;

    async fn call(&self, _: Role, request: Request, fds: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        match request {
            Request::AttachSession(_) => {
                let mut socket = StdStream::from(fds.into_iter().next().unwrap());
                socket.write_all(b"taken").unwrap();
                Ok(Reply::Done.into())
            }
            Request::TakeSessions => {
                let (ours, theirs) = StdStream::pair().unwrap();
                (&ours).write_all(b"given").unwrap();
                let null = std::fs::File::open("/dev/null").unwrap();
                let reply = Reply::Sessions { data: Some(session()), control: None };
                Ok(Answer { reply, fds: vec![theirs.into(), null.into()] })
            }
            // Each with what belongs to another.
            Request::FindSubnet(_) => Ok(Reply::Done.into()),
            Request::EndSync => {
                let null = std::fs::File::open("/dev/null").unwrap();
                Ok(Answer { reply: Reply::Done, fds: vec![null.into()] })
            }
            _ => Err(ApiError::conflict("not now").with_hint("later")),
        }
    }
}

struct Server {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn start(access: Access, limits: ConnectionLimits) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tund.sock");
    tokio::spawn(serve(UnixListener::bind(&path).unwrap(), Arc::new(Echo), access, limits));
    Server { path, _dir: dir }
}

fn for_me() -> Access {
    Access::new([(Role::Meshd, Who::User(rustix::process::geteuid().as_raw()))])
}

fn session() -> Session {
    let destination = Destination { padding: [1; 32], signing_key: [2; 32] };
    Session { id: "x".to_owned(), destination }
}

#[tokio::test]
async fn descriptors_travel_both_ways() {
    let server = start(for_me(), ConnectionLimits::default());
    let mut client = Client::<TundApi>::connect(&server.path, Role::Meshd).await.unwrap();

    let (mut ours, theirs) = StdStream::pair().unwrap();
    let spare = std::fs::File::open("/dev/null").unwrap();
    client.call_with_fds(AttachSession(session()), &[theirs.as_fd(), spare.as_fd()]).await.unwrap();
    let mut word = [0; 5];
    ours.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"taken");

    let [data, _] = client.call(TakeSessions).await.unwrap();
    let (_, [given, _]) = data.unwrap();
    let mut given = StdStream::from(given);
    given.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"given");
}

#[tokio::test]
async fn errors_arrive_whole_and_the_connection_lives_on() {
    let server = start(for_me(), ConnectionLimits::default());
    let mut client = Client::<TundApi>::connect(&server.path, Role::Meshd).await.unwrap();
    for _ in 0..2 {
        let Err(ClientError::Api(error)) = client.call(GetStats).await else {
            panic!("an error was expected")
        };
        assert_eq!(error, ApiError::conflict("not now").with_hint("later"));
        assert!(!client.is_broken());
    }
}

#[tokio::test]
async fn the_reply_to_another_request_ends_the_connection() {
    let server = start(for_me(), ConnectionLimits::default());
    let connect = async || Client::<TundApi>::connect(&server.path, Role::Meshd).await.unwrap();
    let mut client = connect().await;
    let error = client.call(FindSubnet("10.42.0.0/16".parse().unwrap())).await.unwrap_err();
    assert_eq!(error.to_string(), "unexpected reply from tund");
    assert!(client.is_broken() && client.call(GetStats).await.is_err());
    // So do descriptors that do not belong to it.
    let mut client = connect().await;
    assert!(matches!(client.call(EndSync).await, Err(ClientError::Unexpected { .. })));
    assert!(client.is_broken());
}

#[tokio::test]
async fn a_wrong_number_of_descriptors_is_refused() {
    let server = start(for_me(), ConnectionLimits::default());
    let mut client = Client::<TundApi>::connect(&server.path, Role::Meshd).await.unwrap();
    let Err(ClientError::Api(error)) = client.call(AttachSession(session())).await else {
        panic!("an error was expected")
    };
    assert_eq!(error.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn strangers_and_false_roles_are_refused() {
    let server = start(for_me(), ConnectionLimits::default());
    let Err(ClientError::Api(error)) = Client::<TundApi>::connect(&server.path, Role::Client).await else {
        panic!("an error was expected")
    };
    assert_eq!(error.kind, ErrorKind::Denied);

    let nobody = start(Access::new([(Role::Meshd, Who::User(u32::MAX))]), ConnectionLimits::default());
    assert!(Client::<TundApi>::connect(&nobody.path, Role::Meshd).await.is_err());
}

#[tokio::test]
async fn connections_of_one_user_are_bounded_and_freed() {
    let server = start(for_me(), ConnectionLimits { shared: 4, reserved: 0, ..ConnectionLimits::default() });
    let first = Client::<TundApi>::connect(&server.path, Role::Meshd).await.unwrap();
    let _second = Client::<TundApi>::connect(&server.path, Role::Meshd).await.unwrap();
    assert!(Client::<TundApi>::connect(&server.path, Role::Meshd).await.is_err());
    drop(first);
    // The server notices the end of the first in its own time.
    while Client::<TundApi>::connect(&server.path, Role::Meshd).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = start(for_me(), ConnectionLimits { shared: 1, reserved: 0, ..ConnectionLimits::default() });
    let _first = Client::<TundApi>::connect(&server.path, Role::Meshd).await.unwrap();
    let Err(ClientError::Api(error)) = Client::<TundApi>::connect(&server.path, Role::Meshd).await else {
        panic!("an error was expected")
    };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("too many connections"), "{error}");
}

#[tokio::test]
async fn a_client_waits_while_the_backlog_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tund.sock");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let mut crowd = Vec::new();
    while let Ok(stream) = UnixStream::connect(&path).await {
        crowd.push(stream);
    }
    let connecting = tokio::spawn({
        let path = path.clone();
        async move { Client::<TundApi>::connect(&path, Role::Meshd).await.map(drop) }
    });
    // It finds no room at least once before there is any.
    tokio::task::yield_now().await;
    tokio::spawn(serve(listener, Arc::new(Echo), for_me(), ConnectionLimits::default()));
    connecting.await.unwrap().unwrap();
}

#[tokio::test]
async fn more_descriptors_than_a_frame_may_carry_end_the_connection() {
    let server = start(for_me(), ConnectionLimits::default());
    let path = server.path.clone();
    let sent = tokio::task::spawn_blocking(move || {
        let mut stream = StdStream::connect(path).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send_with_descriptors(&stream, &[null.as_fd(); 253]);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    assert!(sent.await.unwrap().is_empty());
    assert!(Client::<TundApi>::connect(&server.path, Role::Meshd).await.is_ok());
}

#[tokio::test]
async fn sockets_that_linger_are_kept_from_it() {
    // Closing them could take as long as whoever passed them likes.
    let server = start(for_me(), ConnectionLimits { shared: 2, reserved: 0, ..ConnectionLimits::default() });
    let lingering = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::from_secs(60))).unwrap();
        socket
    };
    // With a frame that is read, and on a connection that is refused unread because there are too many.
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (path, socket) = (server.path.clone(), lingering());
        let lingers = tokio::task::spawn_blocking(move || {
            // The refusal may be faster than the descriptors.
            while !StdStream::connect(&path).is_ok_and(|mut stream| {
                let sent = send_with_descriptors(&stream, &[socket.as_fd(); 100]);
                let _ = stream.read_to_end(&mut Vec::new());
                sent
            }) {}
            rustix::net::sockopt::socket_linger(&socket).unwrap()
        });
        assert_eq!(lingers.await.unwrap(), None);
        clients.push(Client::<TundApi>::connect(&server.path, Role::Meshd).await);
    }
    assert!(clients[1].is_err(), "the second was not crowded");
}

#[tokio::test]
async fn a_byte_socket_takes_the_bytes_and_closes_the_descriptors() {
    let (near, far) = UnixStream::pair().unwrap();
    let far = far.into_std().unwrap();
    let (passed, mut kept) = StdStream::pair().unwrap();
    assert!(send_with_descriptors(&far, &[passed.as_fd()]));
    drop(passed);
    let socket = ByteSocket::new(near);
    assert_eq!((&socket).read(&mut [9]).await.unwrap(), 1);
    kept.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    assert_eq!(kept.read(&mut [0]).unwrap(), 0, "it holds the other end");
}

/// Sends one byte of a frame and these descriptors, unless the other side has closed the connection already.
fn send_with_descriptors(stream: &StdStream, fds: &[std::os::fd::BorrowedFd<'_>]) -> bool {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(stream, &[std::io::IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL).is_ok()
}

#[tokio::test]
async fn nonsense_is_answered_and_ends_the_connection() {
    let server = start(for_me(), ConnectionLimits::default());
    for nonsense in [&[0xff, 0xff, 0xff, 0xff, 0][..], &[0, 0, 0, 3, 0, 1, 2, 3], &[0, 0, 0, 0, 9]] {
        let path = server.path.clone();
        let nonsense = nonsense.to_vec();
        let rest = tokio::task::spawn_blocking(move || {
            let mut stream = StdStream::connect(path).unwrap();
            stream.write_all(&nonsense).unwrap();
            let mut rest = Vec::new();
            // A reset is as good an end as any.
            let _ = stream.read_to_end(&mut rest);
            rest
        });
        assert!(rest.await.unwrap().is_empty());
    }
    assert!(Client::<TundApi>::connect(&server.path, Role::Meshd).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_waited_for() {
    // Longer than a frame may take on its way, shorter than the request may take to be answered.
    struct Slow;
    impl Service for Slow {
        type Api = i2plan_ipc::api::keyd::KeydApi;

        async fn call(
            &self,
            _: Role,
            _: i2plan_ipc::api::keyd::Request,
            _: Vec<OwnedFd>,
        ) -> Result<Answer<i2plan_ipc::api::keyd::Reply>, ApiError> {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            Err(ApiError::conflict("at last"))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keyd.sock");
    tokio::spawn(serve(
        UnixListener::bind(&path).unwrap(),
        Arc::new(Slow),
        for_me(),
        ConnectionLimits::default(),
    ));
    let mut client = Client::<i2plan_ipc::api::keyd::KeydApi>::connect(&path, Role::Meshd).await.unwrap();
    let open = i2plan_ipc::api::keyd::OpenSession {
        kind: i2plan_ipc::api::keyd::SessionKind::Data,
        id: "x".to_owned(),
        tunnel_length: 1,
        tunnel_length_variance: 0,
        tunnel_quantity: 1,
        tunnel_backup_quantity: 0,
        over_tcp: false,
    };
    let request = i2plan_ipc::api::keyd::Request::OpenSession(open);
    let Err(ClientError::Api(error)) = client.call(request).await else {
        panic!("the answer was not waited for")
    };
    assert_eq!(error.message, "at last");
}

#[tokio::test]
async fn a_link_connects_again() {
    let server = start(for_me(), ConnectionLimits::default());
    let link = DaemonLink::<TundApi>::new(&server.path, Role::Meshd);
    assert_eq!(link.daemon().await.unwrap().pid, std::process::id());
    std::fs::remove_file(&server.path).unwrap();
    tokio::spawn(serve(
        UnixListener::bind(&server.path).unwrap(),
        Arc::new(Echo),
        for_me(),
        ConnectionLimits::default(),
    ));
    assert!(matches!(link.call(GetStats).await, Err(ClientError::Api(_))));
}
