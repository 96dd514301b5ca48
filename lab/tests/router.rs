//! A node whose only I2P router is its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use lab::Failure;
use lab::i2p::kind::Routers;
use lab::node::{Lab, credentials, process_of};
use lab::process::signal;
use lab::testing::sandboxed;
use lab::traffic::{ping, reach, transfer};
use nix::sys::signal::Signal;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long a router may take to be back, with tunnels and the node's sessions.
const BACK: Duration = Duration::from_secs(240);

/// Bytes of a transfer.
const BYTES: u64 = 2_000_000;

/// How long the use of idle routers is measured.
const IDLE: Duration = Duration::from_secs(120);

/// Bytes that are sent each way when the use of busy routers is measured.
const LOAD: u64 = 50_000_000;

/// Resident memory of a process, MB, and the processor time that it has used, seconds.
fn used(pid: u32) -> Result<(f64, f64), Failure> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let status = read("status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    // The fields after the program's name in parentheses, `man proc_pid_stat`: user and system time are the 14th and
    // 15th of all, in hundredths of a second.
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    Ok((kilobytes / 1000.0, (ticks(14) + ticks(15)) / 100.0))
}

/// The same load on i2pd and on a node's own router, which carry the two ends of one tunnel.
#[test]
#[ignore = "a measurement: see docs/benchmarks.md"]
fn what_a_router_takes_next_to_i2pd() {
    sandboxed(LAB, "what_a_router_takes_next_to_i2pd", async || {
        let mut lab = Lab::start_on(Routers::I2pd).await?;
        lab.add_node().await?;
        lab.add_node_with_routerd(true).await?;
        lab.ready().await?;
        let routers = [("i2pd", lab.router(0)?.pid()?), ("routerd", process_of(lab.nodes[1].router_uid)?)];
        let [one, own] = &lab.nodes[..] else { panic!("two nodes") };
        own.join_by(one).await?;
        reach(one, own).await?;
        let sample = || routers.map(|(_, pid)| used(pid).unwrap());
        let before = sample();
        tokio::time::sleep(IDLE).await;
        let idle = sample();
        for (from, to) in [(one, own), (own, one)] {
            assert!(transfer(from, to, to.address().await?, LOAD).await?.intact);
        }
        let loaded = sample();
        for (router, (name, _)) in routers.iter().enumerate() {
            println!(
                "{name}: {:.1} MB and {:.2} s of processor time a minute at rest; {:.1} MB after, and {:.1} s for, {} MB \
                 each way",
                idle[router].0,
                (idle[router].1 - before[router].1) / IDLE.as_secs_f64() * 60.0,
                loaded[router].0,
                loaded[router].1 - idle[router].1,
                LOAD / 1_000_000,
            );
        }
        lab.stop().await
    });
}

#[test]
fn a_node_talks_through_a_router_that_nobody_can_reach() {
    sandboxed(LAB, "a_node_talks_through_a_router_that_nobody_can_reach", async || {
        let mut lab = Lab::start().await?;
        lab.add_node().await?;
        lab.add_node_with_routerd(false).await?;
        lab.ready().await?;
        let [one, own] = &lab.nodes[..] else { panic!("two nodes") };
        own.join_by(one).await?;
        reach(one, own).await?;
        let moved = transfer(one, own, own.address().await?, BYTES).await?;
        println!("{moved:?}");
        assert!(moved.intact);
        lab.stop().await
    });
}

#[test]
fn a_node_with_its_own_router_joins_talks_and_comes_back() {
    sandboxed(LAB, "a_node_with_its_own_router_joins_talks_and_comes_back", async || {
        let mut lab = Lab::start().await?;
        lab.add_node().await?;
        lab.add_node_with_routerd(true).await?;
        lab.ready().await?;
        let [one, own] = &lab.nodes[..] else { panic!("two nodes") };
        let joined = own.join_by(one).await?;
        assert_eq!(joined.members, 2);
        reach(one, own).await?;
        let pings = ping(own, one.address().await?, 10, false).await?;
        println!("{pings:?}");
        assert!(pings.received > 0);

        let moved = transfer(one, own, own.address().await?, BYTES).await?;
        println!("{moved:?}");
        assert!(moved.intact);

        // It is the router, as its own user and without privileges.
        let router = process_of(own.router_uid)?;
        assert_eq!(credentials(router)?, (own.router_uid, 0));
        let report = own.ctl(&["--json", "doctor"], "").await?.stdout;
        println!("{report}");
        assert!(report.contains(&format!("of i2plan-routerd (pid {router})")), "{report}");
        let sandbox = &serde_json::from_str::<serde_json::Value>(&report).unwrap()["walls"]["routerd"];
        assert_eq!(
            (&sandbox["uid"], &sandbox["capabilities"]),
            (&own.router_uid.into(), &"0000000000000000".into())
        );
        assert_eq!((&sandbox["seccomp"], &sandbox["no_new_privs"]), (&true.into(), &true.into()));
        assert_eq!((&sandbox["dumpable"], &sandbox["landlock"]), (&false.into(), &serde_json::Value::Null));

        // It needs no seed any more, and is the same router.
        std::fs::remove_dir_all(own.seed())?;
        let keys = own.state("routerd").join("router.keys");
        let before = std::fs::read(&keys)?;
        signal(router, Signal::SIGKILL)?;
        own.until("there is another router", BACK, async |node| Ok(process_of(node.router_uid)? != router))
            .await?;
        own.until("an echo", BACK, async |node| {
            let pings = ping(node, one.address().await?, 1, false).await?;
            Ok(pings.received > 0)
        })
        .await?;
        assert_eq!(std::fs::read(&keys)?, before);
        lab.stop().await
    });
}
