use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use i2plan_config::WebAddress;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::meshd::{
    Ban, Cursor, Event, EventKind, Events, Invite as Made, MeshdApi, Peer, PeerTraffic, Reply,
    Request as Asked, Route, Setting, Source, Status, Traffic,
};
use i2plan_ipc::fixtures;
use i2plan_ipc::server::{Answer as Answered, ConnectionLimits, Service as Daemon, serve as serve_unix};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::sleep;

use super::*;
use crate::sessions::{MAX_CONNECTIONS, MAX_SESSIONS, SESSION_LIFETIME};
use crate::site::Tls;
use crate::site::tests::Files;

/// A member's name that would be a script.
const EVIL: &str = "<script>alert(1)</script>";

/// A node id, base32 of 32 bytes.
const MEMBER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbba";

const CODE: &str = "i2plan://not-a-real-code";

fn status() -> Status {
    Status { node_id: Some("a".repeat(52)), ..fixtures::status() }
}

fn peer() -> Peer {
    Peer { inviters: vec!["a".repeat(52)], ..fixtures::peer(MEMBER, EVIL) }
}

fn ban() -> Ban {
    Ban { description: EVIL.to_owned(), ..fixtures::ban(MEMBER, EVIL) }
}

/// Has one member, and notes what it is asked to change.
#[derive(Default)]
struct Meshd {
    changes: Mutex<Vec<String>>,
}

impl Daemon for Meshd {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Asked, _: Vec<OwnedFd>) -> Result<Answered<Reply>, ApiError> {
        if request.terms().kind == i2plan_ipc::api::RequestKind::Command {
            lock(&self.changes).push(format!("{request:?}"));
        }
        Ok(match request {
            Asked::Status => Reply::Status(Box::new(status())),
            Asked::Peers => Reply::Peers(vec![peer()]),
            Asked::ListBans => Reply::Bans(vec![ban()]),
            Asked::ListInvites => Reply::Invites(Vec::new()),
            Asked::Routes => Reply::Routes(vec![Route {
                ipv4: [10, 42, 0, 2].into(),
                ipv6: Ipv6Addr::LOCALHOST,
                ranges: Vec::new(),
                node_id: MEMBER.to_owned(),
                name: EVIL.to_owned(),
                hops: Some(1),
                via: None,
                last_seen: None,
                created: 0,
            }]),
            Asked::Config => Reply::Config(vec![Setting {
                key: "node.name".to_owned(),
                variable: "I2PLAN_NODE_NAME".to_owned(),
                value: Some(EVIL.to_owned()),
                source: Source::Default,
                live: true,
                pending: None,
            }]),
            Asked::Ping { node_id } if node_id == MEMBER => Reply::Pinged { milliseconds: 41 },
            Asked::Ping { .. } => return Err(ApiError::new(ErrorKind::Timeout, "it is silent")),
            Asked::SetConfig { .. } => Reply::ConfigChanged(Vec::new()),
            Asked::AddBan { .. } => Reply::BanAdded(ban()),
            Asked::RemoveBan { .. } => Reply::BanRemoved(ban()),
            Asked::CreateInvite { expires_in, max_uses, .. } => Reply::Invite(Made {
                invite: SecretText::new(CODE.to_owned()),
                id: "id".to_owned(),
                expires_at: expires_in,
                max_uses,
                addresses: 1,
                network: "net".to_owned(),
                founded: true,
            }),
            Asked::Events { after: None, .. } => events(Vec::new()),
            Asked::Events { after: Some(Cursor { run: 0, .. }), .. } => {
                let (node_id, name) = (MEMBER.to_owned(), EVIL.to_owned());
                events(vec![Event { number: 0, at: 0, kind: EventKind::MemberAdded { node_id, name } }])
            }
            Asked::Events { wait, .. } => {
                sleep(Duration::from_millis(wait)).await;
                events(Vec::new())
            }
            _ => return Err(ApiError::conflict("not now")),
        }
        .into())
    }
}

fn events(events: Vec<Event>) -> Reply {
    let next = Cursor { run: 1, number: 1 };
    Reply::Events(Box::new(Events { events, next, lost: false, traffic: None }))
}

struct Setup {
    web: Arc<Web>,
    meshd: Arc<Meshd>,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Setup {
    async fn new() -> Self {
        Self::with_token(None).await
    }

    async fn with_token(token: Option<Token>) -> Self {
        Self::with(token, None).await
    }

    async fn with(token: Option<Token>, tls: Option<Tls>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let meshd = Arc::new(Meshd::default());
        let access = Access::new([(Role::Client, Who::Anyone)]);
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(serve_unix(listener, Arc::clone(&meshd), access, ConnectionLimits::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let web = Web::new(&path, Site::new(WebAddress::Tcp(address), tls), token);
        tokio::spawn(serve(listener, Arc::clone(&web)));
        tokio::spawn(crate::live::follow(Arc::clone(&web)));
        Self { web, meshd, address, _dir: dir }
    }

    fn link(&self, control: bool) -> String {
        let token = self.web.sessions().create_link(control, random().unwrap(), self.web.now());
        format!("/login?token={}", *token)
    }

    /// A browser that has opened a link.
    async fn browser(&self, control: bool) -> Browser {
        let mut browser = Browser { address: self.address, cookie: String::new(), csrf: String::new() };
        let opened = browser.get(&self.link(control)).await;
        assert_eq!((opened.status, opened.header("location")), (303, Some("/")));
        let cookie = opened.header("set-cookie").unwrap();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
        browser.cookie = cookie.split(';').next().unwrap().to_owned();
        let page = browser.get("/").await;
        assert_eq!(page.status, 200, "{}", page.body);
        let (_, rest) = page.body.split_once("name=\"csrf\" value=\"").unwrap();
        browser.csrf = rest.split('"').next().unwrap().to_owned();
        browser
    }

    fn changes(&self) -> Vec<String> {
        lock(&self.meshd.changes).clone()
    }
}

/// What a browser sends, and nothing more.
#[derive(Clone)]
struct Browser {
    address: SocketAddr,
    cookie: String,
    csrf: String,
}

#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Browser {
    async fn raw(&self, text: &str) -> Got {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Got { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Got {
        self.get_as(path, &self.address.to_string()).await
    }

    async fn get_as(&self, path: &str, host: &str) -> Got {
        let cookie = &self.cookie;
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    async fn post(&self, path: &str, form: &str) -> Got {
        let form = format!("csrf={}&{form}", self.csrf);
        self.post_as(path, &form, &format!("Origin: http://{}\r\n", self.address)).await
    }

    async fn post_as(&self, path: &str, form: &str, headers: &str) -> Got {
        let (host, cookie, length) = (self.address, &self.cookie, form.len());
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
        ))
        .await
    }
}

const PAGES: [&str; 13] = [
    "/",
    "/peers",
    "/peers?q=script&sort=heard&page=999999999999999999999",
    "/tree",
    "/routes",
    "/invites",
    "/join",
    "/bans",
    "/events",
    "/events?show=events&level=info&q=member",
    "/doctor",
    "/settings",
    "/sessions",
];

#[tokio::test]
async fn every_page_shows_text_of_others_as_text_and_loads_nothing_from_elsewhere() {
    let setup = Setup::new().await;
    for control in [false, true] {
        let browser = setup.browser(control).await;
        let details = format!("/peers/{MEMBER}");
        for path in PAGES.into_iter().chain([details.as_str()]) {
            let page = browser.get(path).await;
            assert_eq!(page.status, 200, "{path}: {}", page.body);
            assert!(!page.body.contains("alert(1)<") && !page.body.contains(EVIL), "{path}: {}", page.body);
            assert_eq!(page.header("content-security-policy"), Some(POLICY));
            assert_eq!(page.header("cache-control"), Some("no-store"));
            // Nothing inline, and no address but this node's own.
            for attribute in ["href=\"", "src=\"", "action=\""] {
                for target in page.body.split(attribute).skip(1) {
                    assert!(target.starts_with('/') || target.starts_with('#'), "{path}: {target:.60}");
                    assert!(!target.starts_with("//"), "{path}: {target:.60}");
                }
            }
            assert_eq!(page.body.matches("<script").count(), 1, "{path}");
            let is_handler =
                |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).starts_with('=');
            assert!(
                !page.body.contains(" style=") && !page.body.split(" on").skip(1).any(is_handler),
                "{path}"
            );
            // What may change nothing has no form but that to log out, and to look for peers.
            if !control {
                let forms = page.body.matches("method=\"post\"").count();
                assert_eq!(forms, if path == "/sessions" { 2 } else { 1 }, "{path}: {}", page.body);
            }
        }
        assert_eq!(browser.get("/nothing").await.status, 404);
        assert_eq!(browser.get("/peers/x").await.status, 404);
    }
    let browser = setup.browser(false).await;
    assert!(browser.get("/peers").await.body.contains("&lt;script&gt;"));
    for (filter, shown) in [("show=log", false), ("level=warning", false), ("q=is+A+member", true)] {
        let page = browser.get(&format!("/events?{filter}")).await;
        assert_eq!(page.body.contains("&lt;script&gt;"), shown, "{filter}: {}", page.body);
    }
    assert!(browser.get("/events").await.body.contains("&lt;script&gt;"), "the past is told");
}

#[tokio::test]
async fn the_camera_is_for_one_page_and_the_decoder_reaches_nothing() {
    let setup = Setup::new().await;
    let browser = setup.browser(true).await;
    let devices = |page: &Got| page.header("permissions-policy").unwrap().to_owned();
    assert!(devices(&browser.get("/join").await).contains("camera=(self)"));
    for path in ["/", "/join/", "/qr/worker.js"] {
        assert!(devices(&browser.get(path).await).contains("camera=()"), "{path}");
    }
    let worker = browser.get("/qr/worker.js").await;
    assert_eq!((worker.status, worker.header("content-security-policy")), (200, Some(WORKER_POLICY)));
    assert!(!WORKER_POLICY.contains("connect-src"));
}

#[tokio::test]
async fn without_a_session_nothing_is_told_of_the_node() {
    let setup = Setup::new().await;
    let stranger = Browser { address: setup.address, cookie: String::new(), csrf: String::new() };
    for path in PAGES.into_iter().chain(["/live", "/nothing"]) {
        let page = stranger.get(path).await;
        assert_eq!(page.status, 401, "{path}");
        assert!(!page.body.contains("alpha"), "{path}: {}", page.body);
    }
    let guess = Browser { cookie: format!("i2plan-{}={}", setup.address.port(), "A".repeat(43)), ..stranger };
    assert_eq!(guess.get("/").await.status, 401);
    assert_eq!(guess.post("/settings", "key=a&value=b").await.status, 401);
    for path in ["/healthz", "/readyz", "/style.css", "/app.js", "/icon.svg"] {
        assert_eq!(guess.get(path).await.status, 200, "{path}");
    }
    assert!(setup.changes().is_empty());
}

#[tokio::test]
async fn dns_rebinding_and_forged_forms_change_nothing() {
    let setup = Setup::new().await;
    let browser = setup.browser(true).await;
    let port = setup.address.port();
    assert_eq!(browser.get_as("/", &format!("evil.example:{port}")).await.status, 403);
    let own = format!("Origin: http://{}\r\n", setup.address);
    let with_token = format!("csrf={}&key=node.name&value=x", browser.csrf);
    for (form, headers) in [
        (with_token.as_str(), ""),
        (&with_token, "Origin: http://evil.example\r\n"),
        (&with_token, "Origin: null\r\n"),
        (&with_token, "Origin: http://127.0.0.1:1\r\n"),
        (&with_token, &format!("{own}Sec-Fetch-Site: cross-site\r\n")),
        ("key=node.name&value=x", &own),
        ("csrf=&key=node.name&value=x", &own),
        (&format!("csrf={}&key=node.name&value=x", "A".repeat(22)), &own),
    ] {
        let refused = browser.post_as("/settings", form, headers).await;
        assert_eq!(refused.status, 403, "{form} {headers}");
    }
    // The token of one session is of no use in another.
    let other = setup.browser(true).await;
    let crossed = Browser { csrf: other.csrf, ..browser.clone() };
    assert_eq!(crossed.post("/settings", "key=node.name&value=x").await.status, 403);
    // Nor does a link change anything.
    assert_eq!(browser.get("/settings?key=node.name&value=x").await.status, 200);
    assert!(setup.changes().is_empty(), "{:?}", setup.changes());
    assert_eq!(browser.post("/settings", "key=node.name&value=x").await.status, 303);
    assert_eq!(setup.changes().len(), 1);
}

#[tokio::test]
async fn a_session_for_viewing_changes_nothing() {
    let setup = Setup::new().await;
    let browser = setup.browser(false).await;
    for (path, form) in [
        ("/settings", "key=node.name&value=x"),
        ("/invites", "expiry=1h&uses=1"),
        ("/invites/id/revoke", ""),
        (&format!("/peers/{MEMBER}/ban"), ""),
        (&format!("/bans/{MEMBER}/remove"), ""),
        ("/join", "code=x"),
        ("/sessions/0000/end", ""),
    ] {
        assert_eq!(browser.post(path, form).await.status, 403, "{path}");
    }
    assert!(setup.changes().is_empty());
    assert_eq!(browser.post("/logout", "").await.status, 200);
    assert_eq!(browser.get("/").await.status, 401);
}

#[tokio::test]
async fn a_session_for_control_does_what_its_forms_say() {
    let setup = Setup::new().await;
    let browser = setup.browser(true).await;
    let made = browser.post("/invites", "expiry=2h&uses=3&addresses=").await;
    assert!(made.body.contains(CODE) && made.body.contains("<details>"), "{}", made.body);
    assert!(!made.body.contains("data-live"), "what is shown once is not replaced");
    assert_eq!(
        browser.post(&format!("/peers/{MEMBER}/ban"), "description=noise&duration=1h").await.status,
        303
    );
    assert_eq!(browser.post(&format!("/bans/{MEMBER}/remove"), "").await.status, 303);
    let pinged = browser.post(&format!("/peers/{MEMBER}/ping"), "").await;
    assert!(pinged.body.contains("It answers, after 41 ms."), "{}", pinged.body);
    let changes = setup.changes();
    assert!(changes[0].contains("expires_in: 7200, max_uses: Some(3), addresses: None"), "{changes:?}");
    assert!(changes[1].contains("noise") && changes[1].contains("Some(3600)"), "{changes:?}");
    assert_eq!(changes.len(), 3);
    for (path, form, status) in [
        ("/invites", "expiry=never&uses=1", 400),
        ("/invites", "expiry=1h&uses=0", 400),
        ("/invites", "expiry=1h&uses=99999999999999999999", 400),
        ("/invites", "", 400),
        ("/join", "", 400),
        ("/bans", "member=10.42.0.9", 404),
        ("/bans", "member=10.42.0.2&duration=soon", 400),
        ("/join", "code=i2plan%3A%2F%2Fx", 400),
        ("/invites/%00/revoke", "", 409),
        ("/nothing", "", 404),
    ] {
        let refused = browser.post(path, form).await;
        assert_eq!(refused.status, status, "{path} {form}: {}", refused.body);
    }
    let long = "x".repeat(MAX_FORM);
    assert_eq!(browser.post("/join", &long).await.status, 413);
}

#[tokio::test]
async fn the_page_of_a_member_draws_its_round_trips() {
    let setup = Setup::new().await;
    let browser = setup.browser(false).await;
    let path = format!("/peers/{MEMBER}");
    assert!(browser.get(&path).await.body.contains("<p>no round trip was measured.</p>"));
    for (at, rtt) in [(1, None), (2, Some(30)), (3, Some(90)), (4, Some(60))] {
        let peer = |node_id: &str, rtt| PeerTraffic {
            node_id: node_id.to_owned(),
            tx_bytes: 0,
            rx_bytes: 0,
            last_handshake: None,
            rtt,
        };
        let peers = vec![peer(MEMBER, rtt), peer("another", Some(1000))];
        setup.web.live().history().note(&Traffic { at: at * 5000, peers });
    }
    let page = browser.get(&format!("{path}?minutes=1")).await.body;
    let words = "round trip 60 ms; at least 30 ms, at most 90 ms";
    assert!(page.contains(&format!("role=\"img\" aria-label=\"{words}\"")), "{page}");
    assert!(page.contains(&format!("<p>{words}.</p>")), "the same without the picture: {page}");
    // The last three of twelve columns, in a picture of 480 by 100.
    assert!(page.contains("d=\"M392,67L392,67L436,0L480,34\""), "{page}");
    assert!(page.contains("data-live"), "{page}");
    for (minutes, chosen) in [(1, true), (5, false), (30, false)] {
        let link = format!("<a href=\"{path}?minutes={minutes}\"");
        let marked = format!("{link} aria-current=\"true\"");
        assert!(page.contains(&link) && page.contains(&marked) == chosen, "{minutes}: {page}");
    }
}

#[tokio::test]
async fn a_link_is_good_once() {
    let setup = Setup::new().await;
    let link = setup.link(true);
    let stranger = Browser { address: setup.address, cookie: String::new(), csrf: String::new() };
    assert_eq!(stranger.get(&link).await.status, 303);
    let again = stranger.get(&link).await;
    assert_eq!((again.status, again.header("set-cookie")), (403, None));
    assert_eq!(stranger.get("/login").await.status, 403);
    assert_eq!(stranger.get("/login?token=%ff%00").await.status, 403);
}

#[tokio::test]
async fn what_other_pages_ask_for_reaches_no_session_and_costs_it_nothing() {
    let setup = Setup::new().await;
    let browser = setup.browser(true).await;
    let (host, cookie) = (browser.address, &browser.cookie);
    let from = |site: &str, path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n\
             Sec-Fetch-Site: {site}\r\n\r\n"
        )
    };
    for site in ["cross-site", "same-site"] {
        for path in ["/", "/peers", "/live", "/metrics", "/rpc", "/nothing"] {
            // More often than a session may ask at all.
            for _ in 0..20 {
                let refused = browser.raw(&from(site, path)).await;
                assert_eq!(refused.status, 403, "{site} {path}");
                assert!(!refused.body.contains("alpha"), "{}", refused.body);
            }
        }
        for path in ["/healthz", "/style.css"] {
            let open = browser.raw(&from(site, path)).await;
            assert_eq!(open.status, 200, "{path}");
        }
    }
    for site in ["none", "same-origin"] {
        let page = browser.raw(&from(site, "/peers")).await;
        assert_eq!(page.status, 200, "{site}");
    }
}

#[tokio::test]
async fn a_cookie_of_another_port_does_not_hide_that_of_the_session() {
    let setup = Setup::new().await;
    let browser = setup.browser(false).await;
    let cookie = format!("i2plan-{}=x; {}", setup.address.port(), browser.cookie);
    assert_eq!(Browser { cookie, ..browser }.get("/").await.status, 200);
}

#[tokio::test]
async fn a_link_on_another_page_opens_a_session() {
    let setup = Setup::new().await;
    let mut stranger = Browser { address: setup.address, cookie: String::new(), csrf: String::new() };
    let request = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nSec-Fetch-Site: same-site\r\n\
             Sec-Fetch-Mode: navigate\r\n\r\n",
            setup.address
        )
    };
    let opened = stranger.raw(&request(&setup.link(false))).await;
    assert_eq!((opened.status, opened.header("location")), (200, None));
    assert!(opened.body.contains("http-equiv=\"refresh\" content=\"0;url=/\""), "{}", opened.body);
    stranger.cookie = opened.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(stranger.get("/").await.status, 200);
}

#[tokio::test]
async fn a_flood_of_one_session_leaves_others_alone() {
    let setup = Setup::new().await;
    let (flood, other) = (setup.browser(true).await, setup.browser(true).await);
    // All at once, on one connection: how long the answers take makes no difference.
    let request =
        format!("GET /nothing HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n", flood.address, flood.cookie);
    let mut stream = TcpStream::connect(flood.address).await.unwrap();
    stream.write_all(request.repeat(100).as_bytes()).await.unwrap();
    let (mut answers, mut buffer) = (String::new(), [0; 4096]);
    while !answers.contains("HTTP/1.1 429") {
        let len = stream.read(&mut buffer).await.unwrap();
        assert_ne!(len, 0, "all were answered: {answers}");
        answers += &String::from_utf8_lossy(&buffer[..len]);
    }
    while !answers.to_lowercase().contains("retry-after: ") {
        let len = stream.read(&mut buffer).await.unwrap();
        assert_ne!(len, 0, "{answers}");
        answers += &String::from_utf8_lossy(&buffer[..len]);
    }
    assert_eq!(other.get("/").await.status, 200);
}

#[tokio::test]
async fn the_connections_of_a_session_are_bounded() {
    let setup = Setup::new().await;
    let browser = setup.browser(false).await;
    let mut held = Vec::new();
    for number in 0..=MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(browser.address).await.unwrap();
        let request =
            format!("GET /live HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n", browser.address, browser.cookie);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let expected: &[u8] = if number < MAX_CONNECTIONS { b"HTTP/1.1 200" } else { b"HTTP/1.1 503" };
        assert_eq!(&answer, expected, "{number}");
        held.push(stream);
    }
    drop(held);
}

#[tokio::test]
async fn pages_are_told_what_changes_until_their_session_ends() {
    let setup = Setup::new().await;
    let browser = setup.browser(false).await;
    let mut stream = TcpStream::connect(browser.address).await.unwrap();
    let request =
        format!("GET /live HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n", browser.address, browser.cookie);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut told = String::new();
    let mut chunk = [0; 1024];
    while !told.contains("data: changed") {
        setup.web.live().changed();
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "{told}");
        told.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    assert!(told.contains("text/event-stream"), "{told}");
    setup.web.sessions().end(None);
    setup.web.live().changed();
    while stream.read(&mut chunk).await.unwrap() > 0 {}
}

#[tokio::test]
async fn a_session_ends_after_a_day() {
    let setup = Setup::new().await;
    let token = setup.web.sessions().create_link(true, [1; 32], Duration::ZERO);
    let seed = [2; 56];
    let cookie = setup.web.sessions().redeem(&token, &seed, Duration::ZERO).unwrap();
    assert!(setup.web.sessions().enter(&cookie, SESSION_LIFETIME).is_err());
}

/// A call of a method without parameters.
fn call(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{}}}}"#)
}

impl Browser {
    /// Sends a call with the cookie, if there is one, and these headers.
    async fn rpc(&self, document: &str, headers: &str) -> Got {
        let (host, cookie, length) = (self.address, &self.cookie, document.len());
        self.raw(&format!(
            "POST /rpc HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{document}"
        ))
        .await
    }

    /// The headers of a page of the session.
    fn own(&self) -> String {
        format!(
            "Content-Type: application/json\r\nOrigin: http://{}\r\nX-CSRF-Token: {}\r\n",
            self.address, self.csrf
        )
    }
}

#[tokio::test]
async fn json_rpc_takes_a_session_and_the_token_of_its_forms() {
    let setup = Setup::new().await;
    let (viewer, controller) = (setup.browser(false).await, setup.browser(true).await);
    for browser in [&viewer, &controller] {
        let answer = browser.rpc(&call("peers.list"), &browser.own()).await;
        assert!(answer.status == 200 && answer.body.contains("\"total\":1"), "{}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    // Who may only look gets no code of an invite, nor changes anything.
    let refused = viewer.rpc(&call("invite.create"), &viewer.own()).await;
    assert!(refused.body.contains("-32001") && !refused.body.contains(CODE), "{}", refused.body);
    assert!(setup.changes().is_empty(), "{:?}", setup.changes());
    let made = controller.rpc(&call("invite.create"), &controller.own()).await;
    assert!(made.body.contains(CODE), "{}", made.body);
    // Orders are not for webd to give.
    let refused = controller.rpc(&call("network.leave"), &controller.own()).await;
    assert!(refused.body.contains("\"error\""), "{}", refused.body);

    let own = controller.own();
    let port = controller.address.port();
    let stranger = Browser { cookie: String::new(), ..controller.clone() };
    assert_eq!(stranger.rpc(&call("status"), &own).await.status, 401);
    for (headers, status) in [
        (own.replace("X-CSRF-Token", "X-Other"), 403),
        (own.replace(&controller.csrf, &viewer.csrf), 403),
        (own.replace("Origin", "X-Other"), 403),
        (own.replace("Origin: http://127.0.0.1", "Origin: http://evil.example"), 403),
        (format!("{own}Sec-Fetch-Site: same-site\r\n"), 403),
        (format!("{own}Host: evil.example:{port}\r\n"), 403),
        (own.replace("application/json", "text/plain"), 415),
        (format!("{own}Content-Encoding: gzip\r\n"), 415),
        // No token is one.
        (format!("{own}Authorization: Bearer \r\n"), 403),
        (format!("Content-Type: application/json\r\nAuthorization: Bearer {}\r\n", "x".repeat(43)), 401),
    ] {
        let refused = controller.rpc(&call("status"), &headers).await;
        assert_eq!(refused.status, status, "{headers}: {}", refused.body);
        assert!(!refused.body.contains("alpha"), "{}", refused.body);
    }
    assert_eq!(controller.get("/rpc").await.status, 405);
    assert_eq!(controller.rpc(&"x".repeat(70_000), &own).await.status, 413);
    assert_eq!(setup.changes().len(), 2, "{:?}", setup.changes());
}

#[tokio::test]
async fn the_calls_of_a_session_leave_those_of_others_alone() {
    let setup = Setup::new().await;
    let (web, now) = (&setup.web, setup.web.now());
    let open = || {
        let link = web.sessions().create_link(false, random().unwrap(), now);
        let cookie = web.sessions().redeem(&link, &random().unwrap(), now).unwrap();
        web.sessions().enter(&cookie, now).unwrap()
    };
    let (one, other) = (open(), open());
    let mut held = Vec::new();
    while let Ok(caller) = web.programs.admit(Some(&one)) {
        held.push(caller);
    }
    assert!(held.len() > 1 && web.programs.admit(Some(&other)).is_ok());
}

/// Waits for events for so many milliseconds, and then makes an invite.
fn waiting_batch(wait: u32) -> String {
    let after = r#"{"run":1,"number":1}"#;
    let params = format!(r#"{{"after":{after},"wait":{wait}}}"#);
    let poll = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"events.poll","params":{params}}}"#);
    format!("[{poll},{}]", call("invite.create"))
}

#[tokio::test]
async fn the_end_of_a_session_is_that_of_its_calls() {
    let setup = Setup::new().await;
    let browser = setup.browser(true).await;
    let batch = waiting_batch(30_000);
    let own = browser.own();
    let (answer, ()) = tokio::join!(browser.rpc(&batch, &own), async {
        // It waits for events, which follow() does too.
        sleep(Duration::from_millis(500)).await;
        setup.web.sessions().end(None);
        setup.web.live().changed();
    });
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert!(setup.changes().is_empty(), "{:?}", setup.changes());
}

#[tokio::test]
async fn programs_show_the_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (path, text) = (dir.path().join("token"), "t".repeat(43));
    std::fs::write(&path, &text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let setup = Setup::with_token(Some(Token::read(&path).unwrap())).await;
    let program = Browser { address: setup.address, cookie: String::new(), csrf: String::new() };
    let right = format!("Content-Type: application/json\r\nAuthorization: Bearer {text}\r\n");
    let answer = program.rpc(&call("invite.create"), &right).await;
    assert!(answer.status == 200 && answer.body.contains(CODE), "{}", answer.body);
    for (headers, status) in [
        (right.replace(&text, &text[1..]), 401),
        (right.replace("Bearer", "Basic"), 401),
        (format!("{right}Origin: http://{}\r\n", program.address), 403),
        (format!("{right}Host: evil.example:{}\r\n", program.address.port()), 403),
        (right.replace("json", "x"), 415),
    ] {
        assert_eq!(program.rpc(&call("status"), &headers).await.status, status, "{headers}");
    }
    let get = |headers: &str| {
        format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", program.address)
    };
    let viewer = setup.browser(false).await;
    let cookie = format!("Cookie: {}\r\n", viewer.cookie);
    for headers in [&right, &cookie] {
        let metrics = program.raw(&get(headers)).await;
        assert_eq!((metrics.status, metrics.header("cache-control")), (200, Some("no-store")));
        // This meshd has no counters to tell.
        assert!(metrics.body.contains("\ni2plan_up 0\n"), "{}", metrics.body);
    }
    assert_eq!(program.raw(&get("")).await.status, 401);
    let post = get(&right).replace("GET", "POST");
    assert_eq!(program.raw(&post).await.status, 405);
    // The token opens no page.
    assert_eq!(program.raw(&get(&right).replace("/metrics", "/")).await.status, 401);
}

/// The status of the answer to one more request on a connection.
async fn next_status(stream: &mut TcpStream, request: &str) -> Option<u16> {
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n0\r\n\r\n") {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn the_end_of_a_session_is_that_of_its_connections() {
    let setup = Setup::new().await;
    for path in ["/", "/style.css", "/healthz"] {
        let Browser { address, cookie, .. } = setup.browser(false).await;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(next_status(&mut stream, &get("/")).await, Some(200));
        assert_eq!(next_status(&mut stream, &get(path)).await, Some(200));
        setup.web.sessions().end(None);
        assert!(next_status(&mut stream, &get(path)).await.is_some(), "{path}");
        assert_eq!(next_status(&mut stream, &get(path)).await, None, "{path}");
    }
}

#[tokio::test]
async fn a_session_that_is_pushed_out_calls_nothing_more() {
    let setup = Setup::new().await;
    let browser = setup.browser(true).await;
    let batch = waiting_batch(3000);
    let own = browser.own();
    let (answer, ()) = tokio::join!(browser.rpc(&batch, &own), async {
        sleep(Duration::from_millis(500)).await;
        for _ in 0..MAX_SESSIONS {
            assert_eq!(browser.get(&setup.link(false)).await.status, 303);
        }
    });
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert!(setup.changes().is_empty(), "{:?}", setup.changes());
}

/// Sends a request over TLS to a server that is expected to have this certificate; what it answers, to the end.
async fn over_tls(address: SocketAddr, files: &Files, request: &str) -> std::io::Result<String> {
    use rustls::pki_types::ServerName;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(files.certificate.clone()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = ServerName::try_from("node.example").unwrap();
    let stream = TcpStream::connect(address).await?;
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn with_tls_links_and_cookies_are_for_tls_alone() {
    let files = Files::new();
    let setup = Setup::with(None, Some(files.read().unwrap())).await;
    let address = setup.address;
    let port = address.port();
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: node.example:{port}\r\nConnection: close\r\n{headers}\r\n")
    };
    let opened = over_tls(address, &files, &get(&setup.link(true), "")).await.unwrap();
    let (_, cookie) = opened.split_once("set-cookie: ").unwrap_or_else(|| panic!("{opened}"));
    let cookie = cookie.lines().next().unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    // On loopback other programs may have other ports, without TLS.
    assert!(!opened.contains("strict-transport-security"), "{opened}");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let page = over_tls(address, &files, &get("/", &cookie)).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("alpha"), "{page}");
    let csrf = between(&page, "name=\"csrf\" value=\"", "\"");
    for (origin, status) in [("https", "303"), ("http", "403")] {
        let form = format!("csrf={csrf}&key=node.name&value=x");
        let request = get("/settings", &cookie).replace("GET", "POST").trim_end().to_owned();
        let request = format!(
            "{request}\r\nOrigin: {origin}://node.example:{port}\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        let answer = over_tls(address, &files, &request).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {answer}");
    }
    let other = get("/", &cookie).replace("node.example", "evil.example");
    assert!(over_tls(address, &files, &other).await.unwrap().starts_with("HTTP/1.1 403 "));
    // Without TLS nothing is said, and one with another certificate is not trusted.
    let plain = Browser { address, cookie: String::new(), csrf: String::new() };
    assert_eq!(plain.raw(&get("/healthz", "")).await.status, 0);
    assert!(over_tls(address, &Files::new(), &get("/healthz", "")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_not_waited_for() {
    let files = Files::new();
    let setup = Setup::with(None, Some(files.read().unwrap())).await;
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    // The beginning of a ClientHello.
    stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty());
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

/// Members, each invited by the one before.
fn chain(count: usize) -> Vec<Peer> {
    let id = |number: usize| format!("{number:052}");
    let member = |number: usize| Peer {
        node_id: id(number),
        name: format!("n{number}"),
        inviters: (0..number).map(id).collect(),
        ..peer()
    };
    (0..count).map(member).collect()
}

#[test]
fn a_thousand_members_are_shown_in_parts() {
    let many: Vec<_> = chain(20).into_iter().cycle().take(1000).collect();
    for (page, rows) in [(0, members::PEERS_ON_A_PAGE), (9, members::PEERS_ON_A_PAGE), (10, 100)] {
        let selection = Selection { page, ..Selection::default() };
        let shown = members::peers(many.clone(), DataPath::KNOWN, &selection).0;
        assert_eq!(shown.matches("<tr ").count(), rows + 1, "page {page}, and the headings");
    }
    let selection = Selection { search: "n19".to_owned(), ..Selection::default() };
    assert!(members::peers(many, DataPath::KNOWN, &selection).0.contains("50 of 1000 other members"));
}

#[test]
fn a_long_chain_of_invitations_is_drawn_and_one_in_a_circle_ends() {
    let drawn = members::tree(&status(), &chain(50)).0;
    assert!((0..50).all(|number| drawn.contains(&format!(">n{number}</a>"))), "{drawn}");
    // Those whom this node has invited are there, whoever has invited it.
    let founder =
        Peer { node_id: "f".to_owned(), name: "founder".to_owned(), inviters: Vec::new(), ..peer() };
    let invited = Peer { name: "child".to_owned(), inviters: vec!["f".to_owned(), "a".repeat(52)], ..peer() };
    let drawn = members::tree(&status(), &[founder, invited]).0;
    assert!(drawn.contains(">founder</a>") && drawn.contains(">child</a>"), "{drawn}");
    // No honest node tells of such.
    let circle = vec![
        Peer { inviters: vec!["b".to_owned()], node_id: "a".to_owned(), ..peer() },
        Peer { inviters: vec!["a".to_owned()], node_id: "b".to_owned(), ..peer() },
    ];
    assert!(members::tree(&status(), &circle).0.len() < 100_000);
}
