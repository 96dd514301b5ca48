//! A node whose only I2P router is its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

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
