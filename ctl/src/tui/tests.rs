//! The pages as they come out on terminals of several sizes, and what keys and events lead to.

use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};
use i2plan_ipc::api::meshd::{
    Ban, BanReason, Cursor, Daemon, Event, EventKind, Events, Invite, InviteState, IssuedInvite, Liveness,
    Network, Peer, PeerTraffic, Reply, Request, Route, Sam, Session, Status, Traffic, Tunnel,
};
use i2plan_ipc::node::Notice;
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::version::Version;
use i2plan_ipc::{ApiError, fixtures};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use unicode_width::UnicodeWidthStr as _;

use super::app::{App, Effect, Input, Look, NodeLink, Now, Overlay, Tab};
use super::view;
use crate::failure::Failure;
use crate::output::qr::{self, Ink, blank_code};

const LOOK: Look = Look { utf8: true, colour: true, ink: Ink::Fixed };

/// 2027-01-15T08:00:00Z
const UNIX: u64 = 1_800_000_000;

/// Names that other people's nodes may have.
const NAMES: [&str; 7] = [
    "web",
    "a-name-that-is-far-longer-than-any-column-of-any-terminal-would-like-it-to-be",
    "東京のノード",
    "שרת-הבית",
    "👩‍👩‍👧‍👦 family 🏠",
    "evil\x1b]0;x\x07\u{202e}\r\nname\u{85}",
    "",
];

/// An app, and the time that it believes in.
struct Bench {
    app: App,
    millis: u64,
}

impl Bench {
    fn new(size: (u16, u16)) -> Self {
        Self { app: App::new(LOOK, size), millis: 0 }
    }

    /// What is asked for has been answered: by a node with these peers.
    fn with_peers(size: (u16, u16), peers: Vec<Peer>) -> Self {
        let mut bench = Self::new(size);
        bench.input(Input::Notice(Notice::Resync));
        let routes = peers.iter().map(route).collect();
        bench.answer(Request::Status, Reply::Status(Box::new(status(peers.len() as u64 + 1))));
        bench.answer(Request::Routes, Reply::Routes(routes));
        bench.answer(Request::ListInvites, Reply::Invites(Vec::new()));
        bench.answer(Request::ListBans, Reply::Bans(Vec::new()));
        bench.answer(Request::Peers, Reply::Peers(peers));
        bench
    }

    /// A node with something of everything.
    fn full(size: (u16, u16)) -> Self {
        let mut bench =
            Self::with_peers(size, NAMES.iter().enumerate().map(|(at, name)| peer(at, name)).collect());
        bench.answer(Request::ListInvites, Reply::Invites(invites()));
        bench.answer(Request::ListBans, Reply::Bans(vec![ban()]));
        for second in 0..120_u64 {
            bench.millis = second * 1000;
            let peers = (0..3).map(|at| PeerTraffic {
                node_id: node_id(at),
                tx_bytes: second * 1000 + second % 7 * 500,
                rx_bytes: second * second * 100,
                last_handshake: Some(second),
                rtt: Some(300 + second % 40 * 20),
            });
            bench
                .input(Input::Notice(Notice::Traffic(Traffic { at: second * 1000, peers: peers.collect() })));
        }
        for (number, kind) in [
            EventKind::TunnelUp { node_id: node_id(0), name: NAMES[0].to_owned() },
            EventKind::MemberLiveness {
                node_id: node_id(5),
                name: NAMES[5].to_owned(),
                liveness: Liveness::Unreachable,
            },
            EventKind::Log {
                level: "warn".to_owned(),
                target: "meshd::shell".to_owned(),
                message: format!("a line that is long {}", "and longer ".repeat(20)),
            },
        ]
        .into_iter()
        .enumerate()
        {
            let at = UNIX * 1000 + number as u64 * 1000;
            bench.input(Input::Notice(Notice::Event(Event { number: number as u64, at, kind })));
        }
        bench
    }

    fn input(&mut self, input: Input) -> Vec<Effect> {
        let now = Now { running: Duration::from_millis(self.millis), unix: UNIX * 1000 + self.millis };
        self.app.update(input, now)
    }

    fn answer(&mut self, request: Request, reply: Reply) -> Vec<Effect> {
        self.input(Input::Answer(request, Ok(reply)))
    }

    fn event(&mut self, kind: EventKind) -> Vec<Effect> {
        self.input(Input::Notice(Notice::Event(Event { number: 0, at: UNIX * 1000, kind })))
    }

    fn key(&mut self, code: KeyCode) -> Vec<Effect> {
        self.input(Input::Terminal(TerminalEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))))
    }

    fn keys(&mut self, keys: &str) -> Vec<Effect> {
        keys.chars()
            .flat_map(|c| self.key(if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) }))
            .collect()
    }

    fn seconds(&mut self, seconds: u64) -> Vec<Effect> {
        (0..seconds)
            .flat_map(|_| {
                self.millis += 1000;
                self.input(Input::Tick)
            })
            .collect()
    }

    fn buffer(&self) -> Buffer {
        let (columns, rows) = self.app.size;
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| view::draw(&self.app, frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn screen(&self) -> String {
        text(&self.buffer())
    }
}

/// What is written there, without the space at the ends.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.y..buffer.area.bottom() {
        let mut x = buffer.area.x;
        let mut line = String::new();
        while x < buffer.area.right() {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += (symbol.width() as u16).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.trim_end().to_owned()
}

fn node_id(at: usize) -> String {
    format!("{at:04}zk7q2m4x6w5jdf3hgt2abcyrs8npe9uv1ob3mhcq45xk")
}

fn peer(at: usize, name: &str) -> Peer {
    Peer {
        ipv4: std::net::Ipv4Addr::from_bits(0x0a2a_0000 + at as u32 + 2),
        ipv6: format!("fd12:3456:789a::{at:x}").parse().unwrap(),
        public_key: "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U=".to_owned(),
        endpoint: format!("{}.b32.i2p", node_id(at)),
        ranges: vec![format!("10.42.{}.0/24", at % 256)],
        inviters: vec![node_id(9999)],
        liveness: [Liveness::Present, Liveness::Present, Liveness::Away, Liveness::Unreachable][at % 4],
        banned: at % 5 == 4,
        last_heard: (!at.is_multiple_of(3)).then_some(at as u64),
        rtt: at.is_multiple_of(2).then_some(at as u64 * 10 + 250),
        last_handshake: [Some(12), Some(4000), None][at % 3],
        tx_packets: 1,
        tx_bytes: 1536,
        rx_packets: 2,
        rx_bytes: at as u64 * 100_000,
        rx_drops: 1,
        ..fixtures::peer(&node_id(at), name)
    }
}

fn thousand() -> Vec<Peer> {
    (0..1000).map(|at| peer(at, &format!("node-{at}"))).collect()
}

fn route(peer: &Peer) -> Route {
    let hops = [Some(1), Some(2), None][peer.name.len() % 3];
    Route {
        ipv4: peer.ipv4,
        ranges: peer.ranges.clone(),
        ipv6: peer.ipv6,
        node_id: peer.node_id.clone(),
        name: peer.name.clone(),
        hops,
        via: (hops == Some(2)).then(|| node_id(0)),
        last_seen: hops.map(|_| UNIX - 60),
        created: UNIX - 86_400,
    }
}

fn invites() -> Vec<IssuedInvite> {
    let invite = |id: &str, state, created_at, max_uses, used_by| IssuedInvite {
        id: id.to_owned(),
        state,
        created_at,
        expires_at: created_at + 86_400,
        max_uses,
        addresses: 16,
        used_by,
    };
    vec![
        invite("mq4xk2hcqtabcyrs8npe9uv1ob", InviteState::Open, UNIX - 60, None, Vec::new()),
        invite("b3mhcq45xkdf3hgt2abcyrs8np", InviteState::UsedUp, UNIX - 3600, Some(1), vec![node_id(0)]),
    ]
}

fn ban() -> Ban {
    Ban {
        node_id: node_id(4),
        name: Some(NAMES[4].to_owned()),
        reason: BanReason::InvalidMessages,
        description: "signatures that are not right\x1b[2J".to_owned(),
        created_at: UNIX - 600,
        expires_at: Some(UNIX + 3000),
        strikes: 5,
    }
}

fn status(members: u64) -> Status {
    let session = |name: &str| Session {
        destination: Some(format!("{name}zk7q2m4x6w5jdf3hgt2abcyrs8npe9uv1ob3mhcq45xk.b32.i2p")),
        ..fixtures::session()
    };
    let daemon =
        |name, pid| Daemon { pid: Some(pid), version: Some(Version::current()), ..fixtures::daemon(name) };
    let status = fixtures::status();
    Status {
        node_id: Some(node_id(9999)),
        uptime: 12_000,
        network: Some(Network {
            id: "ihzchh5kkxzrmaldd6ljxvnjw3n75nmevm2b3sqtmq4xk2hcqtab".to_owned(),
            ipv4: "10.42.0.1".parse().unwrap(),
            ipv6: "fd12:3456:789a::1".parse().unwrap(),
            addresses_left: 65_500,
            members,
            ..fixtures::network()
        }),
        sam: Sam {
            version: Some("3.2".to_owned()),
            control: session("cc"),
            data: session("dd"),
            ..status.sam
        },
        tunnel: Tunnel { interface: Some("i2plan0".to_owned()), ..status.tunnel },
        daemons: vec![daemon("keyd", 10), daemon("meshd", 11), daemon("tund", 12)],
        ..status
    }
}

fn made(id: &str) -> Reply {
    Reply::Invite(Invite {
        invite: SecretText::new(blank_code().to_string()),
        id: id.to_owned(),
        expires_at: UNIX + 86_400,
        max_uses: Some(1),
        addresses: 16,
        network: "net".to_owned(),
        founded: false,
    })
}

/// A node on which an invite was just made, on the page of invites.
fn invited(size: (u16, u16)) -> Bench {
    let mut bench = Bench::full(size);
    bench.keys("4n\n");
    let id = &invites()[0].id;
    bench.answer(
        Request::CreateInvite {
            expires_in: 86_400,
            max_uses: Some(1),
            addresses: None,
            subnet: None,
            name: None,
        },
        made(id),
    );
    bench.answer(Request::ListInvites, Reply::Invites(invites()));
    bench
}

/// Compares with a file in `snapshots`.
fn snapshot(name: &str, screen: &str) {
    // The program's own version, which changes.
    let screen = screen.replace(&Version::current().version, "VERSION");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, screen);
    });
}

/// All pages under one another.
fn pages(bench: &mut Bench) -> String {
    let mut text = String::new();
    for tab in 1..=Tab::ALL.len() {
        bench.keys(&tab.to_string());
        text += &format!("{}\n\n", bench.screen());
    }
    text
}

#[test]
fn tui_pages_at_80x24() {
    snapshot("80x24", &pages(&mut Bench::full((80, 24))));
}

#[test]
fn tui_pages_at_120x40() {
    snapshot("120x40", &pages(&mut Bench::full((120, 40))));
}

#[test]
fn tui_pages_at_40x10() {
    snapshot("40x10", &pages(&mut Bench::full((40, 10))));
}

#[test]
fn tui_pages_of_a_node_alone() {
    let mut bench = Bench::with_peers((80, 24), Vec::new());
    let alone = Status { network: None, ..status(0) };
    bench.answer(Request::Status, Reply::Status(Box::new(alone)));
    snapshot("alone", &pages(&mut bench));
}

#[test]
fn tui_a_thousand_peers() {
    for (size, name) in [((80, 24), "thousand-80x24"), ((40, 10), "thousand-40x10")] {
        let mut bench = Bench::with_peers(size, thousand());
        bench.keys("2sG");
        bench.key(KeyCode::PageUp);
        snapshot(name, &bench.screen());
    }
}

#[test]
fn tui_members_of_one_name_are_told_apart() {
    let peers = vec![peer(1, "web"), peer(2, "Web"), peer(3, "db")];
    let mut bench = Bench::with_peers((120, 24), peers);
    let ban = |at, name: &str| Ban { node_id: node_id(at), name: Some(name.to_owned()), ..ban() };
    bench.answer(Request::ListBans, Reply::Bans(vec![ban(1, "web"), ban(2, "web"), ban(3, "db")]));
    for page in ["2", "3", "5"] {
        bench.keys(page);
        let screen = bench.screen();
        for name in ["web (0001zk7q2m)", "eb (0002zk7q2m)", "db "] {
            assert!(screen.contains(name), "{page} {name}: {screen}");
        }
        assert!(!screen.contains("db (") && !screen.contains("…(0"), "{screen}");
    }
}

#[test]
fn tui_details_help_and_questions() {
    let mut text = String::new();
    for keys in ["?", "2\n", "4j\n", "5\n", "6f\n", "4n", "2b", "4x"] {
        let mut bench = Bench::full((80, 24));
        bench.keys(keys);
        text += &format!("{}\n\n", bench.screen());
    }
    snapshot("overlays", &text);
}

#[test]
fn tui_a_node_that_is_away_is_said_so_and_what_was_known_stays() {
    for size in [(80, 24), (120, 40), (40, 10), (40, 3)] {
        let mut bench = Bench::full(size);
        bench.input(Input::Notice(Notice::Lost("connection refused".to_owned())));
        // Nothing is asked of it, whatever the user does.
        assert!(bench.keys("r2").is_empty());
        assert!(bench.seconds(5).is_empty());
        assert!(bench.screen().contains("The node does not answer for 5s"), "{}", bench.screen());
        assert!(size.1 < 5 || bench.screen().contains("web"));
        let asked = bench.input(Input::Notice(Notice::Resync));
        // All of it, and what happened meanwhile.
        assert_eq!(asked.len(), 6, "{asked:?}");
        assert!(!bench.screen().contains("does not answer"));
        assert!(bench.screen().contains("the node answers again, after 5s"), "{}", bench.screen());
    }
}

#[test]
fn tui_nothing_is_asked_without_a_reason() {
    let mut bench = Bench::full((80, 24));
    // What the events of the beginning touched.
    bench.seconds(2);
    bench.answer(Request::Peers, Reply::Peers(thousand()));
    bench.answer(Request::Routes, Reply::Routes(Vec::new()));
    bench.seconds(2);
    bench.answer(Request::Peers, Reply::Peers(thousand()));
    assert!(bench.seconds(600).is_empty());
}

#[test]
fn tui_many_events_ask_once_at_a_time() {
    let mut bench = Bench::with_peers((80, 24), thousand());
    bench.seconds(2);
    let added = |at| EventKind::MemberAdded { node_id: node_id(at), name: "new".to_owned() };
    let asked: Vec<_> = (0..1000).flat_map(|at| bench.event(added(at))).collect();
    assert!(
        matches!(
            asked[..],
            [Effect::Ask(Request::Status), Effect::Ask(Request::Peers), Effect::Ask(Request::Routes)]
        ),
        "{asked:?}"
    );
    // They may have come after the answer was made up, so it is asked again, but not at once.
    assert!(bench.answer(Request::Peers, Reply::Peers(thousand())).is_empty());
    let asked = bench.seconds(1);
    assert!(matches!(asked[..], [Effect::Ask(Request::Peers)]), "{asked:?}");
    assert!(bench.answer(Request::Peers, Reply::Peers(thousand())).is_empty());
    assert!(bench.seconds(10).is_empty());
}

#[test]
fn tui_what_happened_before_is_recalled_once() {
    let mut bench = Bench::new((80, 24));
    let event = |number: u64| {
        let kind = EventKind::InviteCreated { id: format!("invite-{number}") };
        Event { number, at: UNIX * 1000 + number, kind }
    };
    let asked = bench.input(Input::Notice(Notice::Resync));
    assert!(
        matches!(asked[0], Effect::Ask(Request::Events { after: None, wait: 0, traffic: false })),
        "{asked:?}"
    );
    // One comes while the past is asked for.
    bench.input(Input::Notice(Notice::Event(event(703))));
    let row = |number, events| {
        let next = Cursor { run: 7, number };
        Reply::Events(Box::new(Events { events, next, lost: false, traffic: None }))
    };
    let asked = bench.answer(Request::Events { after: None, wait: 0, traffic: false }, row(703, Vec::new()));
    let [Effect::Ask(request @ Request::Events { after: Some(Cursor { run: 7, number: 203 }), .. })] =
        &asked[..]
    else {
        panic!("{asked:?}")
    };
    bench.keys("6");
    bench.answer(request.clone(), row(704, (203..704).map(event).collect()));
    let shown: Vec<_> = bench.app.entries().map(|entry| entry.event).collect();
    assert_eq!(shown, (203..704).map(Some).collect::<Vec<_>>());
    assert!(bench.screen().contains("invite invite-703 was made"), "{}", bench.screen());
}

#[test]
fn tui_what_the_log_says_of_an_event_is_not_told_beside_it() {
    let mut bench = Bench::new((80, 24));
    let events = [
        EventKind::InviteCreated { id: "abc".to_owned() },
        EventKind::Log {
            level: "info".to_owned(),
            target: "meshd".to_owned(),
            message: "made an invite".to_owned(),
        },
    ];
    for (number, kind) in (1..).zip(events) {
        bench.input(Input::Notice(Notice::Event(Event { number, at: UNIX * 1000, kind })));
    }
    bench.keys("6");
    let mut shown = || {
        let screen = bench.screen();
        bench.keys("f");
        (screen.contains("invite abc was made"), screen.contains("meshd: made an invite"))
    };
    assert_eq!(
        [shown(), shown(), shown(), shown()],
        [(true, false), (false, true), (true, true), (true, false)]
    );
}

#[test]
fn tui_rates_are_of_the_time_between() {
    let mut bench = Bench::with_peers((80, 24), vec![peer(0, "web")]);
    let mut traffic = |at, rx_bytes| {
        let peer =
            PeerTraffic { node_id: node_id(0), tx_bytes: 0, rx_bytes, last_handshake: Some(1), rtt: Some(5) };
        bench.input(Input::Notice(Notice::Traffic(Traffic { at, peers: vec![peer] })));
        bench.app.peers.find(&node_id(0)).unwrap().rate
    };
    assert_eq!(traffic(1000, 5000), None);
    assert_eq!(traffic(3000, 9000), Some((2000, 0)));
    // The same again tells nothing.
    assert_eq!(traffic(3000, 9000), Some((2000, 0)));
    // tund has begun to count anew.
    assert_eq!(traffic(4000, 100), Some((100, 0)));
    // And meshd.
    assert_eq!(traffic(500, 200), Some((100, 0)));
    assert_eq!(traffic(1500, 500), Some((300, 0)));
    bench.keys("2\n");
    assert!(bench.screen().contains("the last five minutes"), "{}", bench.screen());
}

#[test]
fn tui_a_code_is_on_the_screen_only_when_asked_for() {
    let secret = blank_code();
    // Without a QR code it is there as text.
    let mut bench = invited((80, 24));
    let shown = |bench: &Bench| bench.screen().replace('\n', "").contains(secret.as_str());
    for tab in 1..=6 {
        bench.keys(&format!("{tab}"));
        assert!(!shown(&bench), "{}", bench.screen());
        assert!(!bench.screen().contains("i2plan://"));
    }
    bench.keys("4\n");
    assert!(!shown(&bench) && bench.screen().contains("v shows it"));
    bench.key(KeyCode::Esc);
    bench.keys("v");
    assert!(shown(&bench), "{}", bench.screen());
    bench.keys("v");
    assert!(!shown(&bench));
    bench.keys("v");
    bench.seconds(59);
    assert!(shown(&bench));
    bench.seconds(1);
    assert!(!shown(&bench), "{}", bench.screen());
    let copied = bench.keys("c");
    assert!(matches!(&copied[..], [Effect::Copy(code)] if code.expose() == secret.as_str()));
    assert!(!shown(&bench));
    assert!(!format!("{:?} {copied:?}", bench.app).contains(secret.as_str()));
    // When it is of no use any more, it is not kept.
    bench.keys("v");
    let used =
        invites().into_iter().map(|invite| IssuedInvite { state: InviteState::UsedUp, ..invite }).collect();
    bench.answer(Request::ListInvites, Reply::Invites(used));
    assert!(!shown(&bench));
    assert!(bench.keys("qc").is_empty());
    assert!(bench.screen().contains("the code is not kept"), "{}", bench.screen());
}

#[test]
fn tui_the_qr_code_of_an_invite_is_read_from_the_screen() {
    for (utf8, size) in [(true, (61, 32)), (true, (120, 40)), (false, (130, 70))] {
        let mut bench = invited(size);
        bench.app.look.utf8 = utf8;
        bench.keys("v");
        let buffer = bench.buffer();
        let brightness = |colour| match colour {
            Color::Indexed(16) => 0,
            Color::Indexed(231) => 255,
            // A light terminal; on a dark one the quiet zone stands out all the more.
            _ => 230,
        };
        let found = qr::tests::read(size.0.into(), size.1.into(), |x, y| {
            let cell = &buffer[(x as u16, y as u16)];
            (cell.symbol().chars().next().unwrap_or(' '), brightness(cell.fg), brightness(cell.bg))
        });
        assert_eq!(found, [blank_code().as_str()], "{size:?}");
    }
}

#[test]
fn tui_a_terminal_too_small_for_a_qr_code_is_told() {
    let mut bench = invited((80, 24));
    bench.keys("v");
    assert!(bench.screen().contains("takes 61 columns and 32 lines, and the terminal has 80 and 24"));
}

#[test]
fn tui_a_form_keeps_what_was_typed_until_the_node_has_taken_it() {
    let mut bench = Bench::full((80, 24));
    bench.keys("4n");
    for _ in 0..3 {
        bench.key(KeyCode::Backspace);
    }
    assert!(bench.keys("soon\n").is_empty());
    assert!(bench.screen().contains("write a number with s, m, h or d"), "{}", bench.screen());
    for _ in 0..4 {
        bench.key(KeyCode::Backspace);
    }
    let asked = bench.keys("7d\n");
    assert!(matches!(
        asked[..],
        [Effect::Ask(Request::CreateInvite {
            expires_in: 604_800,
            max_uses: Some(1),
            addresses: None,
            subnet: None,
            name: None
        })]
    ));
    // Asked once, however often Enter is pressed.
    assert!(bench.keys("\n\n").is_empty());
    let refused = Failure::from(ApiError::unavailable("no session").with_hint("wait"));
    let Some(Effect::Ask(request)) = asked.into_iter().next() else { panic!("asked") };
    bench.input(Input::Answer(request.clone(), Err(refused)));
    assert!(bench.screen().contains("no session") && bench.screen().contains("7d"), "{}", bench.screen());
    assert_eq!(bench.keys("\n").len(), 1);
    bench.answer(request, made("new"));
    assert!(bench.app.overlay.is_none());
    assert!(bench.screen().contains("invite new made: v shows its code"), "{}", bench.screen());
}

#[test]
fn tui_an_invite_is_for_so_many_addresses() {
    let mut bench = Bench::full((80, 24));
    bench.keys("4n");
    bench.key(KeyCode::Down);
    bench.key(KeyCode::Down);
    assert!(bench.keys("12\n").is_empty());
    assert!(bench.screen().contains("12 is not a power of two; use 8 or 16"), "{}", bench.screen());
    bench.key(KeyCode::Backspace);
    let asked = bench.keys("6\n");
    assert!(
        matches!(asked[..], [Effect::Ask(Request::CreateInvite { addresses: Some(16), .. })]),
        "{asked:?}"
    );
}

#[test]
fn tui_members_are_banned_and_bans_lifted() {
    let mut bench = Bench::full((80, 24));
    bench.keys("2/web\n");
    let asked = bench.keys("b1h\nloud\n");
    let [Effect::Ask(Request::AddBan { node_id: banned, description, duration })] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!((banned, description.as_str(), *duration), (&node_id(0), "loud", Some(3600)));
    let Some(Effect::Ask(request)) = asked.into_iter().next() else { panic!("asked") };
    let asked = bench.answer(request, Reply::BanAdded(Ban { node_id: node_id(0), ..ban() }));
    assert!(asked.iter().any(|command| matches!(command, Effect::Ask(Request::ListBans))), "{asked:?}");
    // By a page of its own, and only after a question.
    assert!(bench.keys("5xn").is_empty());
    assert!(bench.screen().contains("nothing was done"));
    let asked = bench.keys("xy");
    assert!(
        matches!(&asked[..], [Effect::Ask(Request::RemoveBan { node_id: lifted })] if *lifted == node_id(4))
    );
    let refused = Failure::from(ApiError::new(i2plan_ipc::ErrorKind::NotFound, "there is no such ban"));
    let Some(Effect::Ask(request)) = asked.into_iter().next() else { panic!("asked") };
    bench.input(Input::Answer(request, Err(refused)));
    assert!(matches!(bench.app.overlay, Some(Overlay::Failure(_))));
    assert!(bench.screen().contains("there is no such ban"));
    bench.key(KeyCode::Esc);
    assert!(bench.keys("anobody\n\n\n").is_empty());
    assert!(bench.screen().contains("no member \"nobody\" is known"), "{}", bench.screen());
}

#[test]
fn tui_without_colours_none_are_used() {
    let mut bench = Bench::full((80, 24));
    let mut used = std::collections::HashSet::new();
    for colour in [true, false] {
        bench.app.look.colour = colour;
        for tab in 1..=6 {
            bench.keys(&tab.to_string());
            let buffer = bench.buffer();
            let colours = buffer.content().iter().flat_map(|cell| [cell.fg, cell.bg]);
            used.extend(colours.map(|found| (colour, found)));
        }
    }
    used.remove(&(false, Color::Reset));
    for allowed in [Color::Reset, Color::Green, Color::Red, Color::Magenta] {
        used.remove(&(true, allowed));
    }
    assert!(used.is_empty(), "{used:?}");
}

#[test]
fn tui_without_utf8_all_is_ascii() {
    let mut bench = Bench::full((80, 24));
    bench.app.look.utf8 = false;
    for keys in ["1", "2", "3", "4", "5", "6", "2\n"] {
        bench.keys(keys);
        assert!(bench.screen().is_ascii(), "{}", bench.screen());
    }
}

#[test]
fn tui_every_hint_is_in_the_help() {
    for tab in 1..=6 {
        let mut bench = Bench::full((120, 60));
        bench.keys(&tab.to_string());
        let screen = bench.screen();
        let hints = screen.lines().last().unwrap().to_owned();
        bench.keys("?");
        for hint in hints.split("  ").filter(|hint| !hint.is_empty()) {
            let key = hint.split(' ').next().unwrap();
            let told = bench.screen().lines().any(|line| line.trim_start_matches('│').starts_with(key));
            assert!(told, "{key} in {}", bench.screen());
        }
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let key = |code| Input::Terminal(TerminalEvent::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    prop_oneof![
        8 => "[1-6a-zS/?!-~ ]".prop_map(move |text| key(KeyCode::Char(text.chars().next().unwrap()))),
        4 => prop::sample::select(vec![
            KeyCode::Enter, KeyCode::Esc, KeyCode::Up, KeyCode::Down, KeyCode::PageUp, KeyCode::PageDown,
            KeyCode::End, KeyCode::Home, KeyCode::Tab, KeyCode::BackTab, KeyCode::Backspace, KeyCode::Delete,
        ]).prop_map(key),
        2 => (0u16..130, 0u16..45).prop_map(|(columns, rows)| {
            Input::Terminal(TerminalEvent::Resize(columns, rows))
        }),
        1 => "\\PC{0,20}".prop_map(|text| Input::Terminal(TerminalEvent::Paste(text))),
        1 => Just(Input::Notice(Notice::Lost("gone".to_owned()))),
        1 => Just(Input::Notice(Notice::Resync)),
        1 => Just(Input::Answer(Request::Peers, Ok(Reply::Peers(Vec::new())))),
        1 => Just(Input::Answer(Request::CreateInvite { expires_in: 1, max_uses: None, addresses: None, subnet: None, name: None }, Ok(made("new")))),
        1 => Just(Input::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is typed on a terminal of whatever size, it is drawn, and nothing drives the terminal.
    #[test]
    fn tui_whatever_is_typed_is_drawn(inputs in prop::collection::vec(any_input(), 0..40)) {
        let mut bench = Bench::full((80, 24));
        for input in inputs {
            bench.millis += 300;
            bench.input(input);
            for cell in bench.buffer().content() {
                prop_assert!(!cell.symbol().contains(i2plan_ipc::escape::is_unsafe), "{:?}", cell.symbol());
            }
        }
    }
}

#[test]
fn tui_it_begins_by_connecting() {
    let bench = Bench::new((80, 24));
    assert_eq!(bench.app.link, NodeLink::Connecting);
    assert!(bench.screen().contains("connecting"));
    assert!(bench.screen().contains("asking the node"));
}
