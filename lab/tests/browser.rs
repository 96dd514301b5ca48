//! The web pages of nodes in a real browser, on a private I2P network: what a person does with them, what other pages
//! in the browser may not do, and how they look.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::meshd::{Cursor, Event, EventKind, Events, MeshdApi, Peer, Reply, Request};
use i2plan_ipc::server::{Answer, ConnectionLimits, Service, serve};
use i2plan_ipc::{ApiError, Role, fixtures};
use lab::Failure;
use lab::browser::{Browser, Host, NAMESPACE, key, missing};
use lab::node::{Lab, Node};
use lab::process::{Child, Spawn};
use lab::sandbox::{DIRECTORY, bin, is_inner};
use lab::testing::{sandboxed, skip};
use lab::wait;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::timeout;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

const TEST: &str = "the_pages_work_in_a_browser";

/// Where the pages of the two nodes are, and that of another origin.
const ONE: u16 = 8080;
const TWO: u16 = 8081;
const ELSEWHERE: u16 = 9000;

/// A name that leads to the node's pages, as whoever owns it has it.
const REBOUND: &str = "rebound.example";

/// Names a directory where pictures of all pages are kept.
const PICTURES: &str = "I2PLAN_LAB_PICTURES";

/// Names the file of axe-core; `.ci/browser` brings it.
const AXE: &str = "I2PLAN_LAB_AXE";

/// How long it may take to join.
const JOIN: Duration = Duration::from_secs(120);

const WIDTHS: [u32; 3] = [360, 1024, 3840];

const THEMES: [&str; 2] = ["light", "dark"];

/// A page of another origin, which sends a form to the node's, and asks for what it has.
const FORGERY: &str = "<!doctype html><title>Elsewhere</title><iframe src=http://127.0.0.1:8080/></iframe>\
    <form method=post action=http://127.0.0.1:8080/sessions/all/end><button id=send>Win</button></form>\
    <script>window.got = Promise.all(['/', '/readyz'].map(path =>\
    fetch('http://127.0.0.1:8080' + path, { credentials: 'include' }).then(() => 'read', () => 'refused')))</script>";

fn url(port: u16, path: &str) -> String {
    format!("http://127.0.0.1:{port}{path}")
}

/// axe-core, if it is there.
fn axe() -> Option<String> {
    std::fs::read_to_string(std::env::var_os(AXE)?).ok()
}

/// A link that opens a session once.
async fn link(node: &Node, args: &[&str]) -> Result<String, Failure> {
    let output = node.ctl(args, "").await?;
    assert!(output.status.success(), "{}", output.stderr);
    Ok(output.stdout.trim().to_owned())
}

#[test]
fn the_pages_work_in_a_browser() {
    if let Some(why) = missing() {
        return skip(TEST, &why);
    }
    // Said outside of the sandbox, whose output is shown if the test fails.
    if axe().is_none() && !is_inner() {
        let why = format!("{AXE} names no file of axe-core: see .ci/browser");
        skip(&format!("{TEST}, its part with axe-core,"), &Failure::new(why));
    }
    sandboxed(LAB, TEST, async || {
        let mut lab = Lab::start().await?;
        for _ in 0..2 {
            lab.add_node().await?;
        }
        lab.ready().await?;
        for (node, port) in lab.nodes.iter_mut().zip([ONE, TWO]) {
            node.configure(&format!("[web]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\n")).await?;
        }
        lab.ready().await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        let host = Host::start().await?;
        host.reach(&one.name, ONE)?;
        host.reach(&two.name, TWO)?;
        host.serve_page(ELSEWHERE, FORGERY)?;
        let rebind = format!("--host-resolver-rules=MAP {REBOUND} 127.0.0.1");
        let browser = host.open("one", &[rebind]).await?;

        webd_is_examined(one).await?;
        links_open_sessions_once(&browser, one).await?;
        let mut inspector = Inspector::new();
        let invite = invite(&mut inspector, &browser).await?;
        join(&mut inspector, &host, two, &invite).await?;
        follow_and_ban(&browser, one, two).await?;
        forgeries_change_nothing(&browser, one).await?;
        the_keyboard_suffices(&browser).await?;
        every_page_is_in_order(&mut inspector, &browser, one).await?;
        one_session_ends_another(&host, &browser, one).await?;
        nothing_was_loaded_from_elsewhere(&browser).await?;
        assert!(inspector.faults.is_empty(), "{}", inspector.faults.join("\n"));
        browser.quit().await?;
        lab.stop().await
    });
}

/// `i2planctl` says what `webd` is, and how it is confined.
async fn webd_is_examined(one: &Node) -> Result<(), Failure> {
    let versions = one.ctl(&["version", "--all"], "").await?.stdout;
    assert!(versions.lines().any(|line| line.starts_with("webd ") && line.contains("commit")), "{versions}");
    let report: Value = serde_json::from_str(&one.ctl(&["--json", "doctor"], "").await?.stdout).unwrap();
    let webd = &report["walls"]["webd"];
    assert_eq!((&webd["uid"], &webd["confirmed"]), (&json!(one.web_uid), &json!(true)), "{report}");
    assert_eq!(report["healthy"], true, "{report}");
    Ok(())
}

async fn links_open_sessions_once(browser: &Browser, one: &Node) -> Result<(), Failure> {
    browser.go(&url(ONE, "/")).await?;
    browser.until_shown("No session").await?;
    browser.go(&url(ONE, "/login?token=AAAA")).await?;
    browser.until_shown("The link cannot be used").await?;
    // One that is forgotten has expired; that it does so by itself after five minutes is for the unit tests.
    let expired = link(one, &["web", "--control"]).await?;
    assert!(one.ctl(&["web", "end"], "").await?.status.success());
    browser.go(&expired).await?;
    browser.until_shown("The link cannot be used").await?;
    let good = link(one, &["web", "--control"]).await?;
    browser.go(&good).await?;
    browser.until_shown("Dashboard").await?;
    assert_eq!(browser.path().await?, "/", "the token is not in the address that stays");
    let visible = browser.run("return document.cookie", json!([])).await?;
    assert_eq!(visible, "", "scripts see the cookie");
    browser.go(&good).await?;
    browser.until_shown("The link cannot be used").await
}

/// An invite as a page shows it.
struct Invite {
    code: String,
    /// A file with its QR code.
    png: Vec<u8>,
    /// The dark modules of its QR code, and how many there are along an edge.
    modules: Vec<(usize, usize)>,
    edge: usize,
}

async fn invite(inspector: &mut Inspector, browser: &Browser) -> Result<Invite, Failure> {
    browser.go(&url(ONE, "/invites")).await?;
    browser.click("form[action='/invites'] button").await?;
    browser.until_shown("New invite").await?;
    let is_visible = "return document.getElementById('code').checkVisibility()";
    assert_eq!(browser.run(is_visible, json!([])).await?, false, "the code is shown before it is asked for");
    browser.click("summary").await?;
    assert_eq!(browser.run(is_visible, json!([])).await?, true);
    let code = text_of(browser, "return document.getElementById('code').textContent").await?;
    assert!(code.starts_with("i2plan://"), "{code}");
    let allowed = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
    browser.devtools("Browser.grantPermissions", allowed).await?;
    browser.click("[data-copy]").await?;
    browser
        .until("it is copied", "return document.querySelector('[data-copy]').textContent == 'Copied'")
        .await?;
    assert_eq!(browser.run("return navigator.clipboard.readText()", json!([])).await?, json!(code));
    let png = text_of(browser, "return document.querySelector('a[download]').href").await?;
    let png = BASE64.decode(png.strip_prefix("data:image/png;base64,").unwrap().as_bytes()).unwrap();
    inspector.look(browser, "new-invite", None).await?;
    let edge = browser.run("return document.querySelector('.qr').viewBox.baseVal.width", json!([])).await?;
    let path = text_of(browser, "return document.querySelector('.qr path').getAttribute('d')").await?;
    let modules = path.split('M').skip(1).map(|part| {
        let (x, y) = part.split_once('h').unwrap().0.split_once(' ').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    });
    let modules = modules.collect();
    Ok(Invite { code, png, modules, edge: usize::try_from(edge.as_u64().unwrap()).unwrap() })
}

async fn text_of(browser: &Browser, script: &str) -> Result<String, Failure> {
    Ok(browser.run(script, json!([])).await?.as_str().unwrap().to_owned())
}

/// What a camera sees that is held before a QR code: frames of YUV4MPEG2.
fn film(invite: &Invite) -> Vec<u8> {
    const WIDTH: usize = 640;
    const HEIGHT: usize = 480;
    let scale = (HEIGHT - 20) / invite.edge;
    let mut frame = vec![200; WIDTH * HEIGHT];
    let origin = ((WIDTH - scale * invite.edge) / 2, (HEIGHT - scale * invite.edge) / 2);
    for (x, y) in &invite.modules {
        for row in 0..scale {
            let start = (origin.1 + y * scale + row) * WIDTH + origin.0 + x * scale;
            frame[start..start + scale].fill(30);
        }
    }
    // It has no colours.
    frame.extend(vec![128; WIDTH * HEIGHT / 2]);
    let mut film = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\n").into_bytes();
    for _ in 0..2 {
        film.extend(b"FRAME\n");
        film.extend(&frame);
    }
    film
}

/// Has the code read from a picture, and by the camera, and joins by it.
async fn join(inspector: &mut Inspector, host: &Host, two: &Node, invite: &Invite) -> Result<(), Failure> {
    let directory = Path::new(DIRECTORY);
    let [png, film, other_png] = ["invite.png", "invite.y4m", "not.png"].map(|name| directory.join(name));
    std::fs::write(&png, &invite.png)?;
    std::fs::write(&film, self::film(invite))?;
    std::fs::write(&other_png, "no picture")?;
    let camera = [
        "--use-fake-device-for-media-stream".to_owned(),
        "--use-fake-ui-for-media-stream".to_owned(),
        format!("--use-file-for-fake-video-capture={}", film.display()),
    ];
    let browser = host.open("two", &camera).await?;
    browser.go(&link(two, &["web", "--control"]).await?).await?;

    let join = url(TWO, "/join");
    inspector.look(&browser, "join-outside", Some(&join)).await?;
    browser.go(&join).await?;
    browser.fill("textarea[name=code]", "i2plan://nonsense").await?;
    browser.click("form[action='/join'] button").await?;
    browser.until_shown("this is no invite code").await?;

    let is_read =
        format!("return document.querySelector('textarea[name=code]').value == {}", json!(invite.code));
    browser.go(&join).await?;
    browser.fill("#scan-file", &other_png.display().to_string()).await?;
    browser.until_shown("This file is no picture").await?;
    browser.fill("#scan-file", &png.display().to_string()).await?;
    browser.until("the picture is read", &is_read).await?;

    browser.go(&join).await?;
    browser.click("#scan-camera").await?;
    browser.until("the camera reads the code", &is_read).await?;
    browser.until("the camera is off", "return document.getElementById('scan-video').hidden").await?;

    browser.go(&join).await?;
    browser.fill("textarea[name=code]", &invite.code).await?;
    browser.click("form[action='/join'] button").await?;
    browser.until_shown("Join this network?").await?;
    inspector.look(&browser, "join-confirm", None).await?;
    browser.click("form[action='/join'] button").await?;
    two.until("it has joined", JOIN, async |_| Ok(browser.text().await?.contains("This node has joined.")))
        .await?;
    let log = browser.log("browser").await?.join("\n");
    assert!(!log.contains("Content Security Policy"), "{log}");
    browser.quit().await
}

/// What happens at the node shows on pages that are open.
async fn follow_and_ban(browser: &Browser, one: &Node, two: &Node) -> Result<(), Failure> {
    browser.go(&url(ONE, "/peers")).await?;
    browser.until_shown(&two.name).await?;
    browser.go(&url(ONE, "/bans")).await?;
    browser.run("window.stays = true", json!([])).await?;
    assert!(one.ctl(&["ban", "add", &two.name, "--reason", "noise"], "").await?.status.success());
    browser.until_shown("noise").await?;
    assert_eq!(browser.run("return window.stays", json!([])).await?, true, "the page was loaded again");
    browser.click("form[action$='/remove'] button").await?;
    browser.until_shown("Nobody is banned.").await?;
    browser.go(&url(ONE, "/peers")).await?;
    browser.click("main table a").await?;
    browser.click("form[action$='/ping'] button").await?;
    browser.until_shown("It answers, after").await?;
    browser.fill("input[name=description]", "by the page").await?;
    browser.click("form[action$='/ban'] button").await?;
    browser.until_shown("Lift the ban").await?;
    browser.go(&url(ONE, "/events?show=events&q=banned")).await?;
    browser.until_shown("is banned by hand").await?;
    browser.go(&url(ONE, "/bans")).await?;
    let bans = one.ctl(&["--json", "ban", "list"], "").await?.stdout;
    assert!(bans.contains("by the page"), "{bans}");
    browser.click("form[action$='/remove'] button").await?;
    browser.until_shown("Nobody is banned.").await
}

async fn forgeries_change_nothing(browser: &Browser, one: &Node) -> Result<(), Failure> {
    browser.go(&url(ELSEWHERE, "/")).await?;
    assert_eq!(browser.run("return window.got", json!([])).await?, json!(["refused", "refused"]));
    browser.click("#send").await?;
    browser.until_shown("The request comes from another page.").await?;
    // The cookie was not sent to the name; and if it had been, nobody is heard by it.
    browser.go(&format!("http://{REBOUND}:{ONE}/")).await?;
    browser.until_shown("Not here").await?;
    let sessions = one.ctl(&["--json", "web", "sessions"], "").await?.stdout;
    let sessions: Value = serde_json::from_str(&sessions).unwrap();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
    // A page of another port does not get at the session by a link either; a person goes on from there.
    browser.go(&url(ELSEWHERE, "/")).await?;
    browser.run(&format!("location.href = {}", json!(url(ONE, "/peers"))), json!([])).await?;
    browser.until_shown("The request comes from another site.").await?;
    browser.click("main a").await?;
    browser.until_shown("Dashboard").await?;
    // One that opens a session works from anywhere.
    browser.go(&url(ELSEWHERE, "/")).await?;
    let good = link(one, &["web", "--control"]).await?;
    browser.run(&format!("location.href = {}", json!(good)), json!([])).await?;
    browser.until_shown("Dashboard").await?;
    assert_eq!(browser.path().await?, "/", "the token is not in the address that stays");
    Ok(())
}

/// Tab leads to every link of the navigation, visibly, and Enter follows it.
async fn the_keyboard_suffices(browser: &Browser) -> Result<(), Failure> {
    browser.press(&[key::TAB]).await?;
    let focused = "return document.activeElement.textContent";
    assert_eq!(browser.run(focused, json!([])).await?, "Skip to the content");
    for _ in 0..20 {
        browser.press(&[key::TAB]).await?;
        if browser.run(focused, json!([])).await? == "Routes" {
            let outline = "return getComputedStyle(document.activeElement).outlineStyle";
            assert_eq!(browser.run(outline, json!([])).await?, "solid");
            browser.press(&[key::ENTER]).await?;
            return browser.until_shown("Hops are those of control messages").await;
        }
    }
    panic!("no link to the routes in the first twenty")
}

/// Looks at pages at every width in both themes: nothing sticks out, nothing moves, axe-core has no serious finding.
struct Inspector {
    axe: Option<String>,
    pictures: Option<PathBuf>,
    faults: Vec<String>,
}

impl Inspector {
    fn new() -> Self {
        Self { axe: axe(), pictures: std::env::var_os(PICTURES).map(PathBuf::from), faults: Vec::new() }
    }

    /// Looks at the page that is there, or at the one with this address.
    async fn look(&mut self, browser: &Browser, name: &str, url: Option<&str>) -> Result<(), Failure> {
        for (width, theme) in WIDTHS.into_iter().flat_map(|width| THEMES.map(|theme| (width, theme))) {
            browser.look(width, theme).await?;
            if let Some(url) = url {
                browser.go(url).await?;
            }
            let layout = browser.run(LAYOUT, json!([])).await?;
            let place = format!("{name} at {width}, {theme}");
            if layout["out"] != json!([]) {
                self.faults.push(format!("{place}: wider than the window: {}", layout["out"]));
            }
            if url.is_some() && layout["moved"].as_f64().unwrap() > 0.01 {
                self.faults.push(format!("{place}: moved by {}", layout["moved"]));
            }
            // One narrow and one wide: at the third width nothing has another form.
            if let Some(axe) = self.axe.as_ref().filter(|_| width < WIDTHS[2]) {
                browser.run(axe, json!([])).await?;
                for violation in browser.run(CHECK, json!([])).await?.as_array().unwrap() {
                    self.faults.push(format!("{place}: {violation}"));
                }
            }
            if let Some(directory) = &self.pictures {
                std::fs::create_dir_all(directory)?;
                std::fs::write(
                    directory.join(format!("{name}-{width}-{theme}.png")),
                    browser.picture().await?,
                )?;
            }
        }
        browser.look(1024, "light").await
    }
}

async fn every_page_is_in_order(
    inspector: &mut Inspector,
    browser: &Browser,
    one: &Node,
) -> Result<(), Failure> {
    let peer = format!("peers/{}", one.peers().await?.remove(0).node_id);
    let pages =
        ["peers", "tree", "routes", "invites", "join", "bans", "events", "doctor", "settings", "sessions"];
    let pages = pages.map(|page| (page, page));
    for (name, path) in [("dashboard", ""), ("peer", &peer), ("nothing", "nothing")].into_iter().chain(pages)
    {
        inspector.look(browser, name, Some(&url(ONE, &format!("/{path}")))).await?;
    }
    Ok(())
}

/// What sticks out of the window, but for what is in a part that scrolls by itself, and how far things have moved while
/// the page was loaded.
const LAYOUT: &str = "const out = [...document.querySelectorAll('body *')].filter(element =>
        !element.closest('.scroll, .skip, svg') && element.getBoundingClientRect().right > innerWidth + 1)
        .map(element => element.outerHTML.slice(0, 120));
    if (document.documentElement.scrollWidth > innerWidth) out.push('the page scrolls sideways');
    return new Promise(done => {
        let moved = 0;
        new PerformanceObserver(list => list.getEntries().forEach(entry => moved += entry.value))
            .observe({ type: 'layout-shift', buffered: true });
        requestAnimationFrame(() => setTimeout(() => done({ out, moved }), 50));
    });";

/// What axe-core finds that is serious or critical.
const CHECK: &str = "return axe.run().then(result => result.violations
    .filter(found => ['serious', 'critical'].includes(found.impact))
    .map(found => found.id + ': ' + found.help + ': ' + found.nodes.map(node => node.html).slice(0, 3).join(' ')))";

/// A session ends another, whose page says so by itself.
async fn one_session_ends_another(host: &Host, browser: &Browser, one: &Node) -> Result<(), Failure> {
    let other = host.open("other", &[]).await?;
    other.go(&link(one, &["web"]).await?).await?;
    other.until_shown("view only").await?;
    other.go(&url(ONE, "/sessions")).await?;
    other.until_shown("(this one)").await?;
    browser.go(&url(ONE, "/sessions")).await?;
    browser.until_shown("view only").await?;
    let id = "return [...document.querySelectorAll('tr')].find(row => row.innerText.includes('view only'))\
              .querySelector('form').setAttribute('id', 'theirs')";
    browser.run(id, json!([])).await?;
    browser.click("#theirs button").await?;
    other.until_shown("No session").await?;
    browser.until("the session is gone", "return !document.body.innerText.includes('view only')").await?;
    other.quit().await
}

/// Every request that the browser has made was for the nodes' pages, this test's own forgeries, or parts of itself.
async fn nothing_was_loaded_from_elsewhere(browser: &Browser) -> Result<(), Failure> {
    let mut asked = 0;
    for entry in browser.log("performance").await? {
        let entry: Value = serde_json::from_str(&entry).unwrap();
        if entry["message"]["method"] != "Network.requestWillBeSent" {
            continue;
        }
        asked += 1;
        let url = entry["message"]["params"]["request"]["url"].as_str().unwrap();
        let allowed = [ONE, TWO, ELSEWHERE].iter().any(|port| url.starts_with(&self::url(*port, "/")))
            || url.starts_with(&format!("http://{REBOUND}:{ONE}/"))
            || ["data:", "blob:", "chrome:"].iter().any(|scheme| url.starts_with(scheme));
        assert!(allowed, "{url}");
    }
    assert!(asked > 100, "only {asked} requests are in the log");
    Ok(())
}

/// In the place of a `meshd`: that of a node with these many other members, whose counters rise at every turn.
struct Crowd {
    members: u32,
    turn: watch::Sender<u64>,
}

impl Crowd {
    fn member(&self, number: u32) -> Peer {
        let [.., high, low] = number.to_be_bytes();
        let traffic = u64::from(number) * 1_000_000 + *self.turn.borrow() * 1_000_000_000;
        Peer {
            ipv4: [10, 42, high, low].into(),
            rx_bytes: traffic,
            tx_bytes: traffic,
            last_handshake: Some(u64::from(number)),
            last_heard: Some(u64::from(number)),
            rtt: Some(40),
            ..fixtures::peer(&format!("{number:052}"), &format!("n{number}"))
        }
    }
}

impl Service for Crowd {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        Ok(match request {
            Request::Status => Reply::Status(Box::new(fixtures::status())),
            Request::Peers => Reply::Peers((1..=self.members).map(|number| self.member(number)).collect()),
            Request::Events { after, wait, .. } => {
                let mut turns = self.turn.subscribe();
                let known = after.filter(|cursor| cursor.run == 1).map(|cursor| cursor.number);
                if let Some(known) = known {
                    let waiting = turns.wait_for(|turn| *turn > known);
                    let _ = timeout(Duration::from_millis(wait), waiting).await;
                }
                let number = *turns.borrow();
                let event = |number| Event { number, at: 0, kind: EventKind::KeyRotated { epoch: 1 } };
                let events = (known.unwrap_or(number)..number).map(event).collect();
                let next = Cursor { run: 1, number };
                Reply::Events(Box::new(Events { events, next, lost: false, traffic: None }))
            }
            _ => return Err(ApiError::conflict("not now")),
        }
        .into())
    }
}

/// A `webd` for such a node, in the browsers' namespace; and a link for its pages.
async fn pages_of(crowd: Arc<Crowd>, port: u16) -> Result<(Child, String), Failure> {
    let directory = Path::new(DIRECTORY).join(format!("crowd-{port}"));
    std::fs::create_dir(&directory)?;
    let (meshd, web) = (directory.join("meshd.sock"), directory.join("web.sock"));
    let access = Access::new([(Role::Client, Who::Anyone)]);
    tokio::spawn(serve(UnixListener::bind(&meshd)?, crowd, access, ConnectionLimits::default()));
    let arguments = ["--meshd-socket".into(), meshd.clone().into(), "--listen".into(), web.clone().into()];
    let webd = Spawn::new(&bin().join("i2plan-webd"), arguments)
        .namespace(Some(NAMESPACE))
        .log(&directory.join("webd.log"))
        .variable("I2PLAN_WEB_ENABLED", "true")
        .variable("I2PLAN_WEB_LISTEN", &format!("127.0.0.1:{port}"))
        .start()?;
    wait::until("webd listens", Duration::from_secs(30), async || Ok(web.exists())).await?;
    let arguments = ["--socket".into(), meshd.into(), "web".into()];
    let output =
        Spawn::new(&bin().join("i2planctl"), arguments).namespace(Some(NAMESPACE)).output("").await?;
    assert!(output.status.success(), "{}", output.stderr);
    Ok((webd, output.stdout.trim().to_owned()))
}

/// What a page costs: bytes, elements, and milliseconds until the first byte came.
const COST: &str = "const page = performance.getEntriesByType('navigation')[0];
    return [page.decodedBodySize, document.getElementsByTagName('*').length, page.responseStart - page.requestStart]";

/// Begins to note what moves, and which row is the first.
const WATCH: &str = "window.moved = 0;
    window.row = document.querySelector('tbody tr');
    new PerformanceObserver(list => list.getEntries().forEach(entry => window.moved += entry.value))
        .observe({ type: 'layout-shift', buffered: true })";

/// What an update has cost since: bytes, elements, what moved, and whether the first row is still that element.
const UPDATED: &str = "const asked = performance.getEntriesByType('resource').filter(entry => entry.initiatorType == 'fetch');
    return new Promise(done => requestAnimationFrame(() => setTimeout(() => done([asked.at(-1).decodedBodySize,
        document.getElementsByTagName('*').length, window.moved, window.row == document.querySelector('tbody tr')]), 50)))";

/// Bytes and elements of the list of members, and bytes of an update, at most, however many members there are.
const MOST_BYTES: u64 = 100_000;
const MOST_ELEMENTS: u64 = 2500;

async fn cost(browser: &Browser, url: &str) -> Result<(u64, u64, f64), Failure> {
    browser.go(url).await?;
    let cost = browser.run(COST, json!([])).await?;
    Ok((cost[0].as_u64().unwrap(), cost[1].as_u64().unwrap(), cost[2].as_f64().unwrap()))
}

#[test]
fn the_list_of_a_thousand_members_stays_small_and_still() {
    const TEST: &str = "the_list_of_a_thousand_members_stays_small_and_still";
    if let Some(why) = missing() {
        return skip(TEST, &why);
    }
    sandboxed(LAB, TEST, async || {
        // Programs and namespaces, and no node.
        let lab = Lab::on_bridges(0, |_, _| Ok(())).await?;
        let host = Host::start().await?;
        let browser = host.open("crowd", &[]).await?;
        let mut costs = Vec::new();
        for (members, port) in [(10, ONE), (1000, TWO)] {
            let crowd = Arc::new(Crowd { members, turn: watch::Sender::new(0) });
            let (_webd, link) = pages_of(Arc::clone(&crowd), port).await?;
            browser.go(&link).await?;
            browser.until_shown("Dashboard").await?;
            let peers = url(port, "/peers?sort=received");
            // The first is that of a process that has done nothing yet.
            cost(&browser, &peers).await?;
            let (bytes, elements, millis) = cost(&browser, &peers).await?;
            browser.until_shown(&format!("{members} of {members} other members")).await?;
            assert!(bytes <= MOST_BYTES && elements <= MOST_ELEMENTS, "{members}: {bytes} {elements}");

            browser.run(WATCH, json!([])).await?;
            let first = "return document.querySelector('tbody [data-heading=Received]').innerText";
            let before = text_of(&browser, first).await?;
            crowd.turn.send_modify(|turn| *turn += 7);
            let is_new = format!("{first} != {}", json!(before));
            browser.until("the list is up to date", &is_new).await?;
            let update = browser.run(UPDATED, json!([])).await?;
            println!(
                "{members} members: {bytes} bytes, {elements} elements, {millis:.1} ms; an update: {update}"
            );
            assert!(update[0].as_u64().unwrap() <= MOST_BYTES, "{members}: {update}");
            assert_eq!(
                (update[1].as_u64().unwrap(), &update[3]),
                (elements, &json!(true)),
                "{members}: {update}"
            );
            assert!(update[2].as_f64().unwrap() < 0.01, "{members}: {update}");
            costs.push(millis);

            // The most traffic is that of the last.
            let name = "return document.querySelector('tbody a').innerText";
            assert_eq!(text_of(&browser, name).await?, format!("n{members}"));
            browser.click("input[name=reversed]").await?;
            browser.click("form.filter button").await?;
            browser.until("they are sorted the other way", &format!("{name} == 'n1'")).await?;
            browser.fill("input[name=q]", "n10").await?;
            browser.click("form.filter button").await?;
            let found = if members == 10 { 1 } else { 12 };
            browser.until_shown(&format!("{found} of {members} other members")).await?;
        }
        println!("the server takes {:.1} times as long for a thousand as for ten", costs[1] / costs[0]);
        browser.quit().await?;
        lab.stop().await
    });
}
