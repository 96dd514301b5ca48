//! The web pages of whole nodes on a private I2P network: a node invites on one, another joins on its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use lab::Failure;
use lab::node::{Lab, Node};
use lab::process::Spawn;
use lab::testing::{self, HttpAnswer, sandboxed, skip};
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

const OPENSSL: &str = "/usr/bin/openssl";
const CURL: &str = "/usr/bin/curl";

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

/// What guide.md has for a certificate, with the key of this user alone.
async fn make_certificate(directory: &Path, address: Ipv4Addr, owner: u32) -> Result<(), Failure> {
    let (key, certificate) = (directory.join("web.key"), directory.join("web.crt"));
    let names = format!("subjectAltName=DNS:node.example,IP:{address}");
    let args =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=node.example";
    let args = args.split(' ').map(OsString::from).chain([
        "-addext".into(),
        names.into(),
        "-keyout".into(),
        key.clone().into(),
        "-out".into(),
        certificate.into(),
    ]);
    let made = Spawn::new(Path::new(OPENSSL), args).output("").await?;
    assert!(made.status.success(), "{}", made.stderr);
    std::fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    Ok(chown(&key, Some(owner), None)?)
}

#[test]
fn another_host_opens_the_pages_over_tls_alone() {
    let name = "another_host_opens_the_pages_over_tls_alone";
    if !(Path::new(OPENSSL).exists() && Path::new(CURL).exists()) {
        skip(name, &Failure::new("there is no openssl or no curl: `apt-get install openssl curl`"));
        return;
    }
    sandboxed(LAB, name, async || {
        let mut lab = Lab::start().await?;
        lab.add_node().await?;
        lab.add_node().await?;
        lab.ready().await?;
        let (address, owner) = (lab.nodes[0].address, lab.nodes[0].web_uid);
        let directory = lab.nodes[0].config().with_file_name("");
        make_certificate(&directory, address, owner).await?;
        let config = format!(
            "[web]\nenabled = true\nlisten = \"{address}:8443\"\nallow_remote = true\n\
             tls_certificate = {:?}\ntls_key = {:?}\n",
            directory.join("web.crt"),
            directory.join("web.key"),
        );
        lab.nodes[0].configure(&config).await?;
        lab.ready().await?;
        let [one, other] = &lab.nodes[..] else { panic!("two nodes") };
        let output = one.ctl(&["--json", "web", "--control"], "").await?;
        let link: Value = serde_json::from_str(&output.stdout).unwrap();
        let url = link["url"].as_str().unwrap().to_owned();
        assert!(url.starts_with(&format!("https://{address}:8443/login?token=")), "{}", output.stdout);
        // As openssl has it.
        let certificate = directory.join("web.crt");
        let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in"].map(OsString::from);
        let args = args.into_iter().chain([certificate.clone().into()]);
        let said = Spawn::new(Path::new(OPENSSL), args).output("").await?.stdout;
        assert_eq!(said.trim().rsplit('=').next(), link["fingerprint"].as_str());
        let said = one.ctl(&["web"], "").await?.stderr;
        assert!(said.contains(link["fingerprint"].as_str().unwrap()), "{said}");

        // From the other host, which trusts the certificate or does not.
        let jar = directory.join("cookies");
        let curl = async |trusts: bool, args: &[&str]| {
            let mut all = vec!["--silent", "--include", "--max-time", "60"];
            let trusted = ["--cacert", certificate.to_str().unwrap()];
            all.extend(trusted.into_iter().filter(|_| trusts));
            all.extend(["--cookie", jar.to_str().unwrap(), "--cookie-jar", jar.to_str().unwrap()]);
            all.extend(args);
            let all = all.into_iter().map(OsString::from);
            Spawn::new(Path::new(CURL), all).namespace(Some(&other.name)).output("").await
        };
        let start = format!("https://{address}:8443");
        let named = ["--resolve", &format!("node.example:8443:{address}")];
        assert!(!curl(false, &[&start]).await?.status.success(), "it is not trusted");
        let plain = curl(true, &[&start.replace("https", "http")]).await?;
        assert!(!plain.status.success(), "{}", plain.stdout);
        let opened = curl(true, &[&url]).await?.stdout;
        assert!(opened.starts_with("HTTP/1.1 303 "), "{opened}");
        assert!(opened.contains("; HttpOnly; SameSite=Strict; Secure"), "{opened}");
        assert!(opened.contains("strict-transport-security: max-age=31536000"), "{opened}");
        let page = curl(true, &[&start]).await?.stdout;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("n1"), "{page}");
        // By the name of the certificate it is another site, without the session; by any other name it is none.
        let by_name = [named[0], named[1], "https://node.example:8443/"];
        let page = curl(true, &by_name).await?.stdout;
        assert!(page.starts_with("HTTP/1.1 401 "), "{page}");
        let page = curl(true, &["--header", "Host: evil.example:8443", &start]).await?.stdout;
        assert!(page.starts_with("HTTP/1.1 403 "), "{page}");
        let key = std::fs::read_to_string(directory.join("web.key"))?;
        let log = std::fs::read_to_string(one.log())?;
        assert!(!log.contains(key.lines().nth(1).unwrap()), "{log}");

        // Without the certificate the configuration is wrong, and says what to do.
        let path = directory.join("wrong.toml");
        std::fs::write(&path, format!("[web]\nlisten = \"{address}:8443\"\nallow_remote = true\n"))?;
        let said = one.ctl(&["config", "check", path.to_str().unwrap()], "").await?;
        assert!(!said.status.success() && said.stderr.contains("web.tls_certificate"), "{}", said.stderr);
        lab.stop().await
    });
}

#[test]
fn a_node_invites_on_its_page_and_another_joins_on_its_own() {
    sandboxed(LAB, "a_node_invites_on_its_page_and_another_joins_on_its_own", async || {
        let mut lab = Lab::start().await?;
        lab.log_filter = Some("debug".to_owned());
        lab.add_node().await?;
        lab.add_node().await?;
        lab.ready().await?;
        let token = "0123456789abcdef".repeat(3);
        for node in &mut lab.nodes {
            let path = node.config().with_file_name("web.token");
            std::fs::write(&path, &token)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            chown(&path, Some(node.web_uid), None)?;
            node.configure(&format!("[web]\nenabled = true\ntoken_file = {path:?}\n")).await?;
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

        // What programs ask for, with the token or the session.
        let metrics = browser.get("/metrics").await?;
        assert!(metrics.status == 200 && metrics.body.contains("\ni2plan_up 1\n"), "{}", metrics.body);
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"peers.list"}"#;
        let csrf = format!(
            "Cookie: {}\r\nX-CSRF-Token: {}\r\nOrigin: http://127.0.0.1:{PORT}\r\n",
            browser.cookie, browser.csrf
        );
        let bearer = format!("Authorization: Bearer {token}\r\n");
        for (headers, status) in
            [(csrf.as_str(), 200), (&bearer, 200), ("Accept: */*", 403), (&bearer[..40], 401)]
        {
            let answer = browser
                .send(format!(
                    "POST /rpc HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nConnection: close\r\n{}\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{call}",
                    headers.trim_end(),
                    call.len()
                ))
                .await?;
            assert_eq!(answer.status, status, "{headers}: {}", answer.body);
            assert_eq!(answer.body.contains(&id), status == 200, "{}", answer.body);
        }

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
            for secret in [&code[9..60], cookie, &browser.csrf, &token] {
                assert!(!log.contains(secret));
            }
        }
        lab.stop().await
    });
}
