//! JSON-RPC: the gateway of whole nodes on a private I2P network, over its unix socket and HTTP.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::node::{Lab, Node, descriptors, resident};
use lab::process::Spawn;
use lab::testing::{self, sandboxed};
use lab::{Failure, netns};
use serde_json::{Value, json};

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Where the gateways listen for HTTP.
const PORT: u16 = 7670;

/// Where they serve metrics.
const METRICS_PORT: u16 = 7671;

/// Longer than any call of these tests but a join takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Work that blocks, in a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(error.to_string()))?;
    Ok(done?)
}

/// A connection to the gateway's unix socket.
struct Line(BufReader<UnixStream>);

impl Line {
    fn open(node: &Node) -> io::Result<Self> {
        let stream = UnixStream::connect(node.run().join("rpc.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(200)))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(format!("{text}\n").as_bytes())
    }

    fn receive(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| io::Error::other(format!("{line:?}: {error}")))
    }
}

fn request(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": 7 }).to_string()
}

/// Calls a method over the unix socket.
async fn call(node: &Node, method: &str, params: Value) -> Result<Value, Failure> {
    let mut line = Line::open(node)?;
    let request = request(method, &params);
    let answer = blocking(move || line.send(&request).and_then(|()| line.receive())).await?;
    assert_eq!((&answer["id"], &answer["jsonrpc"]), (&json!(7), &json!("2.0")), "{answer}");
    Ok(answer)
}

/// The result of a call that must work.
async fn done(node: &Node, method: &str, params: Value) -> Result<Value, Failure> {
    let mut answer = call(node, method, params).await?;
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    Ok(answer["result"].take())
}

/// The code of a call that must not.
async fn refused(node: &Node, method: &str, params: Value) -> Result<i64, Failure> {
    let answer = call(node, method, params).await?;
    assert!(answer["error"]["data"]["kind"].is_string(), "{method}: {answer}");
    Ok(answer["error"]["code"].as_i64().unwrap())
}

/// Sends bytes to the gateway's TCP listener, in the node's namespace, and reads to the end.
async fn http(node: &Node, request: String) -> Result<(u16, String), Failure> {
    http_at(node, PORT, request).await
}

async fn http_at(node: &Node, port: u16, request: String) -> Result<(u16, String), Failure> {
    let name = node.name.clone();
    let answer = blocking(move || testing::http(&name, port, &request)).await?;
    Ok((answer.status, answer.body))
}

/// A request for the metrics, with this `Host`.
fn get_metrics(host: &str) -> String {
    format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// The value of a series.
fn metric(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn post(headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n" + body
}

async fn rpcd(node: &Node) -> Result<u32, Failure> {
    // meshd does not know rpcd: the process is found by its name, and its user.
    node.until("rpcd runs", TIMEOUT, async |node| Ok(find_rpcd(node)?.is_some())).await?;
    find_rpcd(node)?.ok_or_else(|| Failure::new("rpcd does not run"))
}

fn find_rpcd(node: &Node) -> Result<Option<u32>, Failure> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let uid = path.metadata().map_or(0, |found| found.uid());
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let own = status.lines().any(|line| {
            line.strip_prefix("Uid:")
                .is_some_and(|uids| uids.split_whitespace().next() == Some(&node.rpc_uid.to_string()))
        });
        if name.trim() == "i2plan-rpcd" && (own || uid == node.rpc_uid) {
            return Ok(path.file_name().and_then(|name| name.to_str()?.parse().ok()));
        }
    }
    Ok(None)
}

/// A node whose gateway listens for HTTP too, and its token.
async fn with_http(lab: &mut Lab, index: usize) -> Result<String, Failure> {
    let node = &mut lab.nodes[index];
    node.configure(&format!(
        "[metrics]\nlisten = \"127.0.0.1:{METRICS_PORT}\"\n[rpc]\ntcp_address = \"127.0.0.1:{PORT}\"\n"
    ))
    .await?;
    node.ready().await?;
    let token = node.state("rpc").join("token");
    node.until("there is a token", TIMEOUT, async |_| Ok(token.exists())).await?;
    let found = token.metadata()?;
    assert_eq!((found.mode() & 0o777, found.uid()), (0o600, node.rpc_uid));
    Ok(std::fs::read_to_string(token)?.trim().to_owned())
}

fn logs(node: &Node) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(node.log())?)
}

/// The example in Python shows a node that knows one other, and is told of an event.
async fn python_follows(node: &Node) -> Result<(), Failure> {
    let env = Path::new("/usr/bin/env");
    if !Spawn::new(env, ["python3", "--version"].map(OsString::from)).output("").await?.status.success() {
        eprintln!("skipped: there is no python3");
        return Ok(());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rpcd/examples/follow.py");
    let socket = node.run().join("rpc.sock");
    let args = ["python3".into(), script.into(), socket.into(), OsString::from("1")];
    let mut example = Spawn::new(env, args).wait_for_line()?;
    assert_eq!(example.first_line().await?, "n1: 1 peers");
    // The log begins with its first question, which may come after an event: there are more.
    let mut made = 0;
    let told = loop {
        let invite = done(node, "invite.create", json!({ "expiry": "1h" })).await?;
        done(node, "invite.revoke", json!({ "id": invite["id"] })).await?;
        made += 1;
        match tokio::time::timeout(Duration::from_secs(2), example.first_line()).await {
            Ok(line) => break line?,
            Err(_) => assert!(made < 30, "it is told of nothing"),
        }
    };
    assert!(told.starts_with("event "), "{told}");
    assert!(example.wait().await?.success());
    Ok(())
}

#[test]
fn every_method_answers_over_both_ways() {
    sandboxed(LAB, "every_method_answers_over_both_ways", async || {
        let mut lab = Lab::start().await?;
        lab.log_filter = Some("debug".to_owned());
        lab.add_node().await?;
        lab.add_node().await?;
        lab.ready().await?;
        let token = with_http(&mut lab, 0).await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };

        // The socket is the control group's.
        let socket = one.run().join("rpc.sock").metadata()?;
        assert_eq!((socket.mode() & 0o777, socket.uid(), socket.gid()), (0o660, 0, one.group));

        // Alone.
        let status = done(one, "status", json!({})).await?;
        assert_eq!(status["name"], "n1");
        assert_eq!(status["i2p_destination"], status["sam"]["control"]["destination"]);
        assert_eq!((&status["state"], &status["peer_count"]), (&json!("running"), &json!(0)));
        assert_eq!(status["tunnel_ip"], status["network"]["ipv4"]);
        let versions = done(one, "version", json!([])).await?;
        for version in [&versions["rpcd"], &versions["daemons"]["meshd"], &versions["daemons"]["keyd"]] {
            assert_eq!(version["version"], env!("CARGO_PKG_VERSION"), "{versions}");
        }
        assert_eq!(done(one, "peers.list", json!({})).await?, json!({ "peers": [], "total": 0 }));
        assert_eq!(done(one, "bans.list", json!({})).await?, json!({ "bans": [] }));
        assert_eq!(done(one, "key.status", json!({})).await?["node_id"], status["node_id"]);
        let described = done(one, "rpc.discover", json!({})).await?;
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openrpc.json");
        let committed: Value = serde_json::from_str(&std::fs::read_to_string(committed)?).unwrap();
        assert_eq!(described, committed);

        // An invite, and a join by it.
        let invite = done(one, "invite.create", json!({ "expiry": "1h", "max_uses": 2 })).await?;
        let code = invite["invite"].as_str().unwrap().to_owned();
        let id = json!({ "id": invite["id"] });
        assert_eq!((&invite["founded"], &invite["max_uses"]), (&json!(true), &json!(2)));
        let joined = done(two, "invite.accept", json!({ "invite_code": code })).await?;
        assert_eq!(joined["network"]["id"], invite["network"]);
        let shown = done(one, "invite.show", id.clone()).await?;
        assert_eq!(shown["invite"]["used_by"].as_array().unwrap().len(), 1);
        assert_eq!(done(one, "invite.list", json!([])).await?["invites"], json!([shown["invite"]]));
        assert_eq!(refused(two, "peers.connect", json!([code])).await?, -32_003);
        one.until("it knows the other", TIMEOUT, async |node| {
            Ok(done(node, "peers.list", json!({})).await?["peers"].as_array().unwrap().len() == 1)
        })
        .await?;
        let peers = done(one, "peers.list", json!({})).await?;
        let other = json!({ "node_id": peers["peers"][0]["node_id"] });
        let routes = done(one, "routes.list", json!({})).await?;
        let own = done(one, "status", json!({})).await?["node_id"].clone();
        let hops = |node: &Value| {
            let mut routes = routes["routes"].as_array().unwrap().iter();
            routes.find(|route| route["node_id"] == *node).map(|route| route["hops"].clone())
        };
        assert_eq!(routes["total"], 2);
        assert_eq!((hops(&own), hops(&other["node_id"])), (Some(json!(0)), Some(json!(1))));
        assert_eq!(done(one, "invite.revoke", id).await?["invite"]["state"], "revoked");

        // An invite for several nodes is for one address each; the inviter can give more later.
        let grant = json!({ "node_id": other["node_id"], "addresses": 4 });
        let granted = done(one, "members.grant", grant.clone()).await?;
        assert_eq!(granted["grant"]["addresses"], 5);
        two.until("it holds the addresses", TIMEOUT, async |node| {
            Ok(done(node, "status", json!({})).await?["network"]["addresses"] == 5)
        })
        .await?;
        assert_eq!(refused(two, "members.grant", grant).await?, -32_602);

        // Metrics, by both ways to them.
        let peer = other["node_id"].as_str().unwrap();
        let connected = format!("i2plan_peer_connected{{peer=\"{peer}\"}}");
        one.until("there is a tunnel", TIMEOUT, async |node| {
            let (status, text) =
                http_at(node, METRICS_PORT, get_metrics(&format!("127.0.0.1:{METRICS_PORT}"))).await?;
            assert_eq!(status, 200, "{text}");
            Ok(metric(&text, &connected) == Some(1.0))
        })
        .await?;
        let text = one.ctl(&["metrics"], "").await?.stdout;
        for (series, expected) in [
            ("i2plan_up", 1.0),
            ("i2plan_daemon_up{daemon=\"tund\"}", 1.0),
            ("i2plan_peers_total", 1.0),
            ("i2plan_peers_connected", 1.0),
            ("i2plan_i2p_healthy", 1.0),
            ("i2plan_invites{state=\"revoked\"}", 1.0),
            ("i2plan_gossip_peers_discovered_total", 1.0),
        ] {
            assert_eq!(metric(&text, series), Some(expected), "{series}: {text}");
        }
        for series in
            ["i2plan_messages_sent_total", "i2plan_messages_received_total", "i2plan_state_writes_total"]
        {
            assert!(metric(&text, series).is_some_and(|count| count > 0.0), "{series}: {text}");
        }
        assert_eq!(http_at(one, METRICS_PORT, get_metrics("example.org:7671")).await?.0, 403);

        python_follows(one).await?;

        // What happens is told, to who waits for it.
        let place = done(one, "events.poll", json!({})).await?["next"].clone();
        let (polled, banned) = tokio::join!(
            call(one, "events.poll", json!({ "after": place, "wait": 30_000, "traffic": true })),
            async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let mut ban = other.clone();
                ban["reason"] = json!("manual");
                ban["description"] = json!("noise");
                ban["duration"] = json!("1h");
                done(one, "bans.add", ban).await
            }
        );
        let (polled, banned) = (polled?, banned?);
        assert_eq!(banned["ban"]["description"], "noise");
        let events = polled["result"]["events"].as_array().unwrap();
        assert!(!events.is_empty() && polled["result"]["traffic"].is_object(), "{polled}");
        assert_eq!(done(one, "bans.list", json!({})).await?["bans"], json!([banned["ban"]]));
        let name = json!({ "node_id": peers["peers"][0]["name"] });
        assert_eq!(done(one, "bans.remove", name).await?["ban"]["node_id"], other["node_id"]);
        assert_eq!(refused(one, "bans.remove", other.clone()).await?, -32_002);

        // Keys and configuration.
        let before = done(one, "key.status", json!({})).await?;
        assert_eq!(before["sealed"], false);
        let key = call(one, "key.rotate", json!({})).await?;
        // Once a minute: a new node's first key may be younger.
        let fresh = key["result"]["wireguard"]["epoch"].is_u64() || key["error"]["code"] == -32_003;
        assert!(fresh, "{key}");
        // Nothing was lost.
        assert_eq!(refused(one, "key.recover", json!({})).await?, -32_003);
        let settings = done(one, "config.list", json!({})).await?;
        assert!(settings["settings"].as_array().unwrap().len() > 8, "{settings}");
        let name = done(one, "config.get", json!(["node.name"])).await?;
        assert_eq!((&name["key"], &name["value"]), (&json!("node.name"), &json!("n1")));
        let all = done(one, "config.get", json!({})).await?;
        assert_eq!(
            (&all["node.name"], &all["mesh.max_peers"], &all["rpc.enabled"], &all["mesh.accept_subnets"]),
            (&json!("n1"), &json!(50), &json!(true), &json!(["any"]))
        );
        assert_eq!(refused(one, "config.get", json!(["node.nmae"])).await?, -32_002);
        let change = done(one, "config.set", json!(["mesh.peer_timeout", 240])).await?;
        assert_eq!(change["changes"][0]["key"], "mesh.peer_timeout");
        assert_eq!(refused(one, "config.set", json!(["mesh.peer_timeout", 1])).await?, -32_602);
        assert!(done(one, "config.reload", json!({})).await?["changes"].is_array());

        // The same over HTTP.
        let authorization = format!("Bearer {token}");
        let right = [
            ("Host", "127.0.0.1:7670"),
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/json"),
        ];
        for method in described["methods"].as_array().unwrap() {
            let method = method["name"].as_str().unwrap();
            // Those that the rest of this test needs undone come last, and none is called with what would do it.
            let params = match method {
                "invite.create" => json!({ "max_uses": 0 }),
                "network.leave" | "key.rotate" | "key.recover" | "config.reload" => json!(["one too many"]),
                _ => json!({}),
            };
            let (status, body) = http(one, post(&right, &request(method, &params))).await?;
            let answer: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &answer["id"]), (200, &json!(7)), "{method}: {answer}");
            let fits = answer.get("result").is_some() || answer["error"]["code"] == -32_602;
            assert!(fits, "{method}: {answer}");
        }
        let notification = r#"{"jsonrpc":"2.0","method":"status"}"#;
        assert_eq!(http(one, post(&right, notification)).await?, (204, String::new()));
        let batch = format!("[{notification},{},1]", request("status", &json!({})));
        let (_, body) = http(one, post(&right, &batch)).await?;
        let answers: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answers.as_array().unwrap().len(), 2);
        assert_eq!(
            (&answers[0]["result"]["name"], &answers[1]["error"]["code"]),
            (&json!("n1"), &json!(-32_600))
        );

        // At the unix socket HTTP takes no token.
        let asked = request("status", &json!({}));
        let socket = one.run().join("rpc.sock");
        let args = ["--silent", "--show-error", "--json", &asked, "--unix-socket"].map(OsString::from);
        let args = args.into_iter().chain([socket.clone().into(), "http://localhost/".into()]);
        match Spawn::new(Path::new("/usr/bin/curl"), args).output("").await {
            Ok(said) => {
                let answer: Value = serde_json::from_str(&said.stdout).unwrap();
                assert_eq!(answer["result"]["name"], "n1", "{}", said.stderr);
            }
            Err(error) => eprintln!("skipped: curl: {error}"),
        }
        let text = post(&right[2..], &asked);
        let answer = blocking(move || {
            let mut stream = UnixStream::connect(socket)?;
            stream.write_all(text.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
        .await?;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"n1\""), "{answer}");

        // Whoever has not the token, or is a web page, is not heard.
        let status = request("status", &json!({}));
        for (change, expected) in [
            (("Authorization", "Bearer wrong"), 401),
            (("Authorization", ""), 401),
            (("Host", "example.org:7670"), 403),
            (("Content-Type", "text/plain"), 415),
        ] {
            let headers = right.map(|header| if header.0 == change.0 { change } else { header });
            let (status, body) = http(one, post(&headers, &status)).await?;
            assert_eq!(status, expected, "{body}");
            assert!(!body.contains("n1"), "{body}");
        }
        assert_eq!(http(one, post(&right[..1], &status)).await?.0, 401);
        let from_page: Vec<_> = right.into_iter().chain([("Origin", "http://127.0.0.1:7670")]).collect();
        assert_eq!(http(one, post(&from_page, &status)).await?.0, 403);
        let long = format!("\"{}\"", "x".repeat(70_000));
        assert_eq!(http(one, post(&right, &long)).await?.0, 413);

        // The command.
        let output = one.ctl(&["rpc", "status"], "").await?;
        assert!(output.status.success(), "{}", output.stderr);
        assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap()["name"], "n1");
        let error = two.ctl_json::<Value>(&["rpc", "invite.accept", "-"], &json!([code]).to_string()).await?;
        assert_eq!(error.unwrap_err().kind, "conflict");
        assert_eq!(one.ctl(&["rpc", "nothing"], "").await?.status.code(), Some(1));
        assert_eq!(one.ctl(&["rpc", "status", "{"], "").await?.status.code(), Some(2));

        // The end of a membership is an order, which the gateway gives only if root's configuration says so.
        for (method, params) in [
            ("members.revoke", other.clone()),
            ("network.leave", json!({})),
            ("invite.create", json!({ "max_uses": -1 })),
        ] {
            assert_eq!(refused(one, method, params).await?, -32_001, "{method}");
        }
        let error = one.ctl_json::<Value>(&["rpc", "network.leave"], "").await?.unwrap_err();
        assert!(error.hint.unwrap_or_default().contains("`i2planctl leave`"));
        // The configuration ends with [rpc].
        lab.nodes[0].configure("orders = true\n").await?;
        let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
        one.ready().await?;
        assert_eq!(done(one, "invite.create", json!({ "max_uses": -1 })).await?["max_uses"], json!(null));
        let revoked = done(one, "members.revoke", other).await?;
        assert_eq!(revoked["revoked"].as_array().unwrap().len(), 1);
        assert_eq!(done(one, "network.leave", json!({})).await?["left"], invite["network"]);
        assert_eq!(refused(one, "network.leave", json!({})).await?, -32_003);

        // Nothing secret in what was logged, at debug level.
        let logs = [logs(one)?, logs(two)?];
        for log in &logs {
            assert!(!log.contains(&code) && !log.contains(&code[9..40]) && !log.contains(&token));
        }
        // In a life as short as this not every node has something to say at that level.
        assert!(logs.iter().any(|log| log.contains("DEBUG")), "they are logs at debug level");
        lab.stop().await
    });
}

/// Asks for the node's status by `i2planctl` as long as an attack goes on; the slowest answer.
async fn under<T: Send + 'static>(
    node: &Node,
    what: &str,
    attack: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let enough = Arc::new(AtomicBool::new(false));
    let attacking = {
        let enough = Arc::clone(&enough);
        tokio::task::spawn_blocking(move || attack(&enough))
    };
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let started = Instant::now();
        node.status().await?;
        slowest = slowest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    enough.store(true, Ordering::Relaxed);
    let result = attacking.await.map_err(|error| Failure::new(error.to_string()))??;
    println!("{what}: the slowest answer to i2planctl status came after {} ms", slowest.as_millis());
    Ok(result)
}

#[test]
fn floods_at_the_gateway_disturb_nobody_else() {
    sandboxed(LAB, "floods_at_the_gateway_disturb_nobody_else", async || {
        let mut lab = Lab::start().await?;
        lab.add_node().await?.ready().await?;
        let token = with_http(&mut lab, 0).await?;
        let node = &lab.nodes[0];
        let pid = rpcd(node).await?;
        done(node, "status", json!({})).await?;
        let (memory, fds) = (resident(pid)?, descriptors(pid)?);
        let socket = node.run().join("rpc.sock");
        let namespace = node.name.clone();
        let namespace_of_flood = namespace.clone();

        // Ten thousand requests that nobody reads the answers to.
        let path = socket.clone();
        let sent = under(node, "10,000 requests", move |enough| {
            let stream = UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            let text = (request("status", &json!({})) + "\n").repeat(10_000).into_bytes();
            let mut sent = 0;
            while sent < text.len() && !enough.load(Ordering::Relaxed) {
                match (&stream).write(&text[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(sent)
        })
        .await?;
        println!("{sent} bytes of them were taken in");

        // Half requests on as many connections as are to be had, and more.
        let path = socket.clone();
        let refused = under(node, "500 connections with half a request each", move |enough| {
            let mut held = Vec::new();
            let mut refused = 0;
            for _ in 0..500 {
                let mut stream = UnixStream::connect(&path)?;
                stream.set_nonblocking(true)?;
                // It may be refused already.
                let _ = stream.write_all(b"{\"jsonrpc\":");
                held.push(stream);
            }
            while !enough.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            for mut stream in held {
                let mut text = String::new();
                let _ = stream.read_to_string(&mut text);
                refused += usize::from(text.contains("too many connections"));
            }
            Ok(refused)
        })
        .await?;
        assert!(refused >= 400, "{refused} of 500 were refused");

        // The same at the TCP listener, without the token; who has it gets in meanwhile.
        let authorization = format!("Bearer {token}");
        let right = post(
            &[
                ("Host", "localhost:7670"),
                ("Authorization", authorization.as_str()),
                ("Content-Type", "application/json"),
            ],
            &request("status", &json!({})),
        );
        let slow = right.clone();
        let answers =
            under(node, "TCP connections without end, with half a request or none", move |enough| {
                let mut held = Vec::new();
                for _ in 0..100 {
                    let mut stream = testing::tcp(&namespace, PORT)?;
                    stream.write_all(b"POST / HTTP/1.1\r\n")?;
                    held.push(stream);
                }
                let mut answers = 0;
                while !enough.load(Ordering::Relaxed) || answers < 3 {
                    let mut stream = testing::tcp(&namespace, PORT)?;
                    stream.write_all(right.as_bytes())?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer)?;
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    answers += 1;
                    for _ in 0..100 {
                        held.push(testing::tcp(&namespace, PORT)?);
                    }
                    if held.len() > 400 {
                        held.drain(..200);
                    }
                }
                Ok(answers)
            })
            .await?;
        println!("who has the token was answered {answers} times");

        // As fast as they can, and who has the token takes a moment to show it: it gets in when it tries again.
        let (flooded, tries) = under(node, "connections as fast as two threads can", move |enough| {
            let (mut tries, mut answers) = (0, 0);
            let flooded = AtomicUsize::new(0);
            let started = Instant::now();
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        netns::enter(&namespace_of_flood).unwrap();
                        let mut held = VecDeque::new();
                        while !over.load(Ordering::Relaxed) {
                            // The queue of the listener may be full.
                            let address = SocketAddr::from(([127, 0, 0, 1], PORT));
                            held.extend(TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok());
                            held.drain(..held.len().saturating_sub(200));
                            flooded.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                let result = (|| {
                    while !enough.load(Ordering::Relaxed) || answers < 3 {
                        assert!(started.elapsed() < 2 * TIMEOUT, "{answers} answers in {tries} tries");
                        tries += 1;
                        let mut stream = testing::tcp(&namespace_of_flood, PORT)?;
                        std::thread::sleep(Duration::from_millis(10));
                        let mut answer = String::new();
                        // It may have been pushed out.
                        let done = stream
                            .write_all(slow.as_bytes())
                            .and_then(|()| stream.read_to_string(&mut answer));
                        answers += usize::from(done.is_ok() && answer.starts_with("HTTP/1.1 200 "));
                    }
                    Ok(())
                })();
                over.store(true, Ordering::Relaxed);
                result
            })
            .map(|()| (flooded.into_inner(), tries))
        })
        .await?;
        println!("with {flooded} others it took {tries} tries to be answered three times or more");

        // A poll blocks its own connection alone.
        let place = done(node, "events.poll", json!({})).await?["next"].clone();
        let mut waiting = Line::open(node)?;
        waiting.send(&request("events.poll", &json!({ "after": place, "wait": 30_000 })))?;
        let started = Instant::now();
        done(node, "status", json!({})).await?;
        assert!(started.elapsed() < Duration::from_secs(20), "it did not wait for the poll");
        drop(waiting);

        // A document that is too long, and one that is never finished.
        let mut long = Line::open(node)?;
        let answer = blocking(move || {
            let _ = long.send(&"x".repeat(70_000));
            long.receive()
        })
        .await?;
        assert_eq!(answer["error"]["code"], -32_600, "{answer}");
        let mut half = Line::open(node)?;
        let ended = blocking(move || {
            half.0.get_mut().write_all(b"{")?;
            half.0.read_to_end(&mut Vec::new())
        })
        .await?;
        assert_eq!(ended, 0);
        // The end of the stream ends a document, too.
        let mut last = Line::open(node)?;
        let answer = blocking(move || {
            last.0.get_mut().write_all(request("status", &json!({})).as_bytes())?;
            last.0.get_mut().shutdown(Shutdown::Write)?;
            last.receive()
        })
        .await?;
        assert_eq!(answer["result"]["name"], "n1");

        // It is the same process, and holds nothing more.
        node.until("the gateway has let go of everything", TIMEOUT, async |_| {
            Ok(descriptors(pid)? <= fds + 10)
        })
        .await?;
        let grown = resident(pid)?.saturating_sub(memory);
        println!("rpcd: {} KiB before, {} KiB more after", memory / 1024, grown / 1024);
        assert!(grown <= 16 * 1024 * 1024, "it has grown by {grown} bytes");
        assert_eq!(rpcd(node).await?, pid);

        // meshd's restart is not its own.
        let meshd = node.daemon_pid("meshd").await?;
        lab::process::signal(meshd, nix::sys::signal::Signal::SIGKILL)?;
        node.until("meshd is back", TIMEOUT, async |node| Ok(node.daemon_pid("meshd").await? != meshd))
            .await?;
        assert_eq!(done(node, "status", json!({})).await?["name"], "n1");
        assert_eq!(rpcd(node).await?, pid);
        lab.stop().await
    });
}
