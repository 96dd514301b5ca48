//! The web pages of nodes in a real browser, on a private I2P network: what a person does with them, what other pages
//! in the browser may not do, and how they look.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::Failure;
use lab::browser::{Browser, Host, key, missing};
use lab::node::{Lab, Node};
use lab::testing::{sandboxed, skip};
use serde_json::{Value, json};

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

/// Names the file of axe-core; `.ci/axe` brings it.
const AXE: &str = "I2PLAN_LAB_AXE";

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

        links_open_sessions_once(&browser, one).await?;
        let code = invite(&browser).await?;
        join(&host, &browser, two, &code).await?;
        follow_and_ban(&browser, one, two).await?;
        forgeries_change_nothing(&browser, one).await?;
        the_keyboard_suffices(&browser).await?;
        every_page_is_in_order(&browser, one).await?;
        one_session_ends_another(&host, &browser, one).await?;
        nothing_was_loaded_from_elsewhere(&browser).await?;
        browser.quit().await?;
        lab.stop().await
    });
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

/// Makes an invite; returns its code.
async fn invite(browser: &Browser) -> Result<String, Failure> {
    browser.go(&url(ONE, "/invites")).await?;
    browser.click("form[action='/invites'] button").await?;
    browser.until_shown("New invite").await?;
    let is_visible = "return document.getElementById('code').checkVisibility()";
    assert_eq!(browser.run(is_visible, json!([])).await?, false, "the code is shown before it is asked for");
    browser.click("summary").await?;
    assert_eq!(browser.run(is_visible, json!([])).await?, true);
    let code = browser.run("return document.getElementById('code').textContent", json!([])).await?;
    let code = code.as_str().unwrap().to_owned();
    assert!(code.starts_with("i2plan://"), "{code}");
    let allowed = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
    browser.devtools("Browser.grantPermissions", allowed).await?;
    browser.click("[data-copy]").await?;
    browser
        .until("it is copied", "return document.querySelector('[data-copy]').textContent == 'Copied'")
        .await?;
    assert_eq!(browser.run("return navigator.clipboard.readText()", json!([])).await?, json!(code));
    Ok(code)
}

async fn join(host: &Host, browser: &Browser, two: &Node, code: &str) -> Result<(), Failure> {
    let other = host.open("two", &[]).await?;
    other.go(&link(two, &["web", "--control"]).await?).await?;
    other.go(&url(TWO, "/join")).await?;
    other.fill("textarea[name=code]", "i2plan://nonsense").await?;
    other.click("main form button").await?;
    other.until_shown("this is no invite code").await?;
    other.go(&url(TWO, "/join")).await?;
    other.fill("textarea[name=code]", code).await?;
    other.click("main form button").await?;
    other.until_shown("Join this network?").await?;
    other.click("main form button").await?;
    two.until("it has joined", Duration::from_secs(120), async |_| {
        let text = other.text().await?;
        Ok(text.contains("This node has joined."))
    })
    .await?;
    let _ = browser;
    other.quit().await
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
    browser.fill("input[name=description]", "by the page").await?;
    browser.click("form[action$='/ban'] button").await?;
    browser.until_shown("Lift the ban").await?;
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
    browser.go(&url(ONE, "/")).await?;
    browser.until_shown("Dashboard").await
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

/// Every page at every width in both themes: nothing sticks out, nothing moves, axe-core has no serious finding.
async fn every_page_is_in_order(browser: &Browser, one: &Node) -> Result<(), Failure> {
    let axe = std::env::var_os(AXE).map(|path| std::fs::read_to_string(path).unwrap());
    if axe.is_none() {
        skip(
            &format!("{TEST} (axe-core)"),
            &Failure::new(format!("{AXE} names no file of axe-core: see .ci/axe")),
        );
    }
    let pictures = std::env::var_os(PICTURES).map(PathBuf::from);
    let peer = one.peers().await?.remove(0).node_id;
    let pages = [
        "/",
        "/peers",
        "/tree",
        "/routes",
        "/invites",
        "/join",
        "/bans",
        "/events",
        "/settings",
        "/sessions",
    ];
    let mut pages: Vec<_> =
        pages.map(|page| (page.trim_start_matches('/').to_owned(), page.to_owned())).to_vec();
    pages[0].0 = "dashboard".to_owned();
    pages.push(("peer".to_owned(), format!("/peers/{peer}")));
    pages.push(("nothing".to_owned(), "/nothing".to_owned()));
    let mut faults = Vec::new();
    for (name, path) in &pages {
        for width in WIDTHS {
            for theme in THEMES {
                browser.look(width, theme).await?;
                browser.go(&url(ONE, path)).await?;
                let layout = browser.run(LAYOUT, json!([])).await?;
                let place = format!("{name} at {width}, {theme}");
                if layout["out"] != json!([]) {
                    faults.push(format!("{place}: wider than the window: {}", layout["out"]));
                }
                if layout["moved"].as_f64().unwrap() > 0.01 {
                    faults.push(format!("{place}: moved by {}", layout["moved"]));
                }
                // One narrow and one wide: at the third width nothing has another form.
                if let Some(axe) = axe.as_ref().filter(|_| width < WIDTHS[2]) {
                    browser.run(axe, json!([])).await?;
                    for violation in browser.run(CHECK, json!([])).await?.as_array().unwrap() {
                        faults.push(format!("{place}: {violation}"));
                    }
                }
                if let Some(directory) = &pictures {
                    keep(directory, &format!("{name}-{width}-{theme}.png"), &browser.picture().await?);
                }
            }
        }
    }
    browser.look(1024, "light").await?;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn keep(directory: &Path, name: &str, picture: &[u8]) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join(name), picture).unwrap();
}

/// What sticks out of the window, but for what is in a part that scrolls by itself, and how far things have moved while
/// the page was loaded.
const LAYOUT: &str = "const out = [...document.querySelectorAll('body *')].filter(element =>
        !element.closest('.scroll, .skip, svg') && element.getBoundingClientRect().right > innerWidth + 1)
        .map(element => element.outerHTML.slice(0, 120));
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
