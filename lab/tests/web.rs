//! The web pages of whole nodes on a private I2P network: a node invites on one, another joins on its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use lab::Failure;
use lab::node::{Lab, Node};
use lab::testing::{self, HttpAnswer, sandboxed};
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Where the pages are.
const PORT: u16 = 8080;

const TIMEOUT: Duration = Duration::from_secs(60);

/// What opens links, follows them and sends forms, and runs no scripts.
struct Browser {
    namespace: String,
    cookie: String,
    csrf: String,
}

impl Browser {
    /// Opens the link that `i2planctl web` prints.
    async fn open(node: &Node, args: &[&str]) -> Result<Self, Failure> {
        let output = node.ctl(args, "").await?;
        assert!(output.status.success(), "{}", output.stderr);
        let start = format!("http://127.0.0.1:{PORT}");
        let path = output.stdout.trim().strip_prefix(&start).unwrap().to_owned();
        let mut browser = Self { namespace: node.name.clone(), cookie: String::new(), csrf: String::new() };
        let opened = browser.get(&path).await?;
        assert_eq!((opened.status, opened.header("location")), (303, Some("/")), "{}", opened.body);
        let cookie = opened.header("set-cookie").unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        browser.cookie = cookie.split(';').next().unwrap().to_owned();
        assert_eq!(browser.get(&path).await?.status, 403, "a link is good once");
        let page = browser.get("/").await?;
        browser.csrf = between(&page.body, "name=\"csrf\" value=\"", "\"").unwrap().to_owned();
        Ok(browser)
    }

    async fn send(&self, request: String) -> Result<HttpAnswer, Failure> {
        let namespace = self.namespace.clone();
        let work = move || testing::http(&namespace, PORT, &request);
        let done =
            tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(error.to_string()))?;
        Ok(done?)
    }

    async fn get(&self, path: &str) -> Result<HttpAnswer, Failure> {
        let cookie = &self.cookie;
        self.send(format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    async fn post(&self, path: &str, form: &str) -> Result<HttpAnswer, Failure> {
        let (cookie, form) = (&self.cookie, format!("csrf={}&{form}", self.csrf));
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nOrigin: http://127.0.0.1:{PORT}\r\n\
             Cookie: {cookie}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        ))
        .await
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

#[test]
fn a_node_invites_on_its_page_and_another_joins_on_its_own() {
    sandboxed(LAB, "a_node_invites_on_its_page_and_another_joins_on_its_own", async || {
        let mut lab = Lab::start().await?;
        lab.log_filter = Some("debug".to_owned());
        lab.add_node().await?;
        lab.add_node().await?;
        lab.ready().await?;
        for node in &mut lab.nodes {
            node.configure("[web]\nenabled = true\n").await?;
        }
        lab.ready().await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        let browser = Browser::open(one, &["web", "--control"]).await?;
        let other = Browser::open(two, &["web", "--control"]).await?;

        // One founds a network by an invite.
        let made = browser.post("/invites", "expiry=1h&uses=1&addresses=").await?;
        assert_eq!(made.status, 200, "{}", made.body);
        let code = between(&made.body, "id=\"code\">", "</code>").unwrap().to_owned();
        assert!(made.body.contains("<svg class=\"qr\""), "{}", made.body);
        // The other looks at it, and joins.
        let encoded = code.replace(':', "%3A").replace('/', "%2F");
        let shown = other.post("/join", &format!("code={encoded}")).await?;
        assert!(shown.status == 200 && shown.body.contains("Join this network"), "{}", shown.body);
        let begun = other.post("/join", &format!("code={encoded}&confirmed=yes")).await?;
        assert_eq!(begun.status, 303, "{}", begun.body);
        two.until("it has joined", Duration::from_secs(120), async |_| {
            let page = other.get("/join").await?.body;
            assert!(!page.contains("role=\"alert\""), "{page}");
            Ok(page.contains("This node has joined."))
        })
        .await?;
        one.until("it knows the other", TIMEOUT, async |_| {
            Ok(browser.get("/peers").await?.body.contains("n2"))
        })
        .await?;

        // Every page, and what it shows.
        let id = between(&browser.get("/peers").await?.body, "href=\"/peers/", "\"").unwrap().to_owned();
        let details = format!("/peers/{id}");
        for (path, expected) in [
            ("/", "1 other members"),
            ("/peers?q=n2&sort=heard", "1 of 1 other members"),
            (details.as_str(), "i2planctl revoke"),
            ("/tree", "(this node)"),
            ("/routes", "n2"),
            ("/invites", "used up"),
            ("/join", "i2planctl leave"),
            ("/bans", "Nobody is banned."),
            ("/events", "is a member"),
            ("/settings", "web.enabled"),
            ("/sessions", "(this one)"),
        ] {
            let page = browser.get(path).await?;
            assert_eq!(page.status, 200, "{path}: {}", page.body);
            assert!(page.body.contains(expected), "{path}: {}", page.body);
            assert!(!page.body.contains(&code), "{path}");
        }
        assert_eq!(browser.get("/readyz").await?.status, 200);
        // The member answers control messages, and its page draws how long that took.
        let drawn = "aria-label=\"round trip ";
        one.until("round trips are drawn", TIMEOUT, async |_| {
            Ok(browser.get(&details).await?.body.contains(drawn))
        })
        .await?;

        // A ban, which the page shows and the node keeps.
        let banned = browser.post(&format!("{details}/ban"), "description=noise&duration=1h").await?;
        assert_eq!(banned.status, 303, "{}", banned.body);
        assert!(browser.get("/bans").await?.body.contains("noise"));
        let output = one.ctl(&["--json", "ban", "list"], "").await?;
        assert!(output.stdout.contains("noise"), "{}", output.stdout);
        assert_eq!(browser.post(&format!("/bans/{id}/remove"), "").await?.status, 303);
        assert!(browser.get("/bans").await?.body.contains("Nobody is banned."));

        // A session for viewing sees the same and changes nothing; sessions are listed and ended from outside.
        let viewer = Browser::open(one, &["web"]).await?;
        assert_eq!(viewer.get("/peers").await?.status, 200);
        assert_eq!(viewer.post(&format!("{details}/ban"), "").await?.status, 403);
        let listed = one.ctl(&["--json", "web", "sessions"], "").await?;
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
        assert_eq!(listed["sessions"].as_array().unwrap().len(), 2, "{listed}");
        assert!(one.ctl(&["web", "end"], "").await?.status.success());
        for ended in [&browser, &viewer] {
            let page = ended.get("/").await?;
            assert_eq!(page.status, 401);
            assert!(!page.body.contains("n1"), "{}", page.body);
        }

        // Nothing secret in what was logged, at debug level.
        for (node, browser) in [(one, &browser), (two, &other)] {
            let log = std::fs::read_to_string(node.log())?;
            let cookie = browser.cookie.split_once('=').unwrap().1;
            assert!(log.contains("i2plan_webd"), "{log}");
            for secret in [&code[9..60], cookie, &browser.csrf] {
                assert!(!log.contains(secret));
            }
        }
        lab.stop().await
    });
}
