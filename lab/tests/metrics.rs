//! The metrics of a node as a real Prometheus takes them, and what the packages have for it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::Failure;
use lab::node::{Lab, Node};
use lab::process::{Output, Spawn, signal};
use lab::sandbox::DIRECTORY;
use lab::testing::{sandboxed, skip};
use nix::sys::signal::Signal;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

const PROMETHEUS: &str = "/usr/bin/prometheus";
const PROMTOOL: &str = "/usr/bin/promtool";

/// Where the node has its metrics, and where Prometheus answers.
const METRICS: &str = "127.0.0.1:7651";
const ANSWERS: &str = "127.0.0.1:9090";

/// How long Prometheus may take to have seen something.
const SOON: Duration = Duration::from_secs(90);

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(path)
}

/// Whether there is no Prometheus, which is said.
fn is_missing(test: &str) -> bool {
    let missing = !(Path::new(PROMETHEUS).exists() && Path::new(PROMTOOL).exists());
    if missing {
        skip(test, &Failure::new("there is no Prometheus: `apt-get install prometheus`"));
    }
    missing
}

async fn promtool(args: &[&str], input: &str) -> Result<Output, Failure> {
    Spawn::new(Path::new(PROMTOOL), args.iter().map(OsString::from)).output(input).await
}

/// The expressions of the dashboard, with its variables filled in.
fn of_dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(packaging("grafana/i2plan.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let text = targets.map(|target| target["expr"].as_str().unwrap());
    text.map(|text| text.replace("$__rate_interval", "5m").replace("$instance", METRICS)).collect()
}

/// The families of a node that occur in a text.
fn families(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    words.filter(|word| word.starts_with("i2plan_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_the_dashboard_name_families_that_there_are() {
    let documented = std::fs::read_to_string(packaging("../docs/metrics.md")).unwrap();
    let documented = families(&documented);
    let rules = std::fs::read_to_string(packaging("prometheus/i2plan.rules.yml")).unwrap();
    for family in families(&format!("{rules} {}", of_dashboard().join(" "))) {
        let family = family.trim_end_matches("_bucket");
        assert!(documented.contains(family), "{family} is not in docs/metrics.md");
    }
}

#[test]
fn prometheus_takes_the_metrics_of_a_node() {
    let name = "prometheus_takes_the_metrics_of_a_node";
    if is_missing(name) {
        return;
    }
    sandboxed(LAB, name, async || {
        let mut lab = Lab::start().await?;
        for _ in 0..2 {
            lab.add_node().await?;
        }
        lab.nodes[0].configure(&format!("[metrics]\nlisten = \"{METRICS}\"\n")).await?;
        lab.ready().await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        two.join_by(one).await?;
        lab::traffic::reach(two, one).await?;

        // The format is what promtool wants, but for three names that other programs of the kind have.
        let text = one.ctl(&["metrics"], "").await?.stdout;
        let checked = promtool(&["check", "metrics"], &text).await?;
        for line in checked.stderr.lines() {
            let known = ["i2plan_peers_total", "i2plan_routes_total", "i2plan_banned_peers_total"];
            assert!(known.iter().any(|name| line.starts_with(name)), "{line}");
        }

        let rules = packaging("prometheus/i2plan.rules.yml");
        let config = Path::new(DIRECTORY).join("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n\
                 - {{job_name: i2plan, static_configs: [{{targets: [\"{METRICS}\"]}}]}}\n",
                rules.display()
            ),
        )?;
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={DIRECTORY}/prometheus"),
            format!("--web.listen-address={ANSWERS}"),
        ];
        let log = Path::new(DIRECTORY).join("prometheus.log");
        let prometheus = Spawn::new(Path::new(PROMETHEUS), args.map(OsString::from));
        let mut prometheus = prometheus.namespace(Some(&one.name)).log(&log).start()?;

        becomes(one, "i2plan_up", "1").await?;
        becomes(one, "i2plan_peers_connected", "1").await?;
        becomes(one, "count(i2plan_peer_info{name=\"n2\"})", "1").await?;
        // What the dashboard asks.
        for expression in of_dashboard() {
            query(one, &expression).await?;
        }
        becomes(one, "count(ALERTS)", "").await?;

        // A daemon that is away is an alert, in time.
        let tund = one.freeze(&["tund"]).await?;
        becomes(
            one,
            "count(ALERTS{alertname=\"I2planDaemonDown\",alertstate=\"pending\",daemon=\"tund\"})",
            "1",
        )
        .await?;
        tund.thaw()?;
        becomes(one, "count(ALERTS)", "").await?;
        signal(prometheus.pid(), Signal::SIGTERM)?;
        prometheus.wait().await?;
        lab.stop().await
    });
}

/// What Prometheus answers.
async fn query(node: &Node, expression: &str) -> Result<Value, Failure> {
    let url = format!("http://{ANSWERS}");
    let args = ["query", "instant", "--format=json", &url, expression].map(OsString::from);
    let said = Spawn::new(Path::new(PROMTOOL), args).namespace(Some(&node.name)).output("").await?;
    let error = || Failure::new(format!("{expression}: {}{}", said.stdout, said.stderr));
    if !said.status.success() {
        return Err(error());
    }
    let result: Value = serde_json::from_str(&said.stdout).map_err(|_| error())?;
    Ok(result)
}

/// Waits until an expression has this value; an empty one, that it has none.
async fn becomes(node: &Node, expression: &str, value: &str) -> Result<(), Failure> {
    node.until(&format!("{expression} is {value:?}"), SOON, async |node| {
        let result = query(node, expression).await?;
        Ok(result[0]["value"][1].as_str().unwrap_or_default() == value)
    })
    .await
}
