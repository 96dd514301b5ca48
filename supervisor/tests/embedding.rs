//! A program that is not `i2planctl` runs a node, with small scripts in the daemons' places.
//!
//! It has no test harness: like each launcher it must become a daemon before anything else happens.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

const NAME: &str = "a_program_of_another_kind_runs_a_node";

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    if let Err(error) = i2plan_supervisor::launch::intercept(std::env::args_os()) {
        eprintln!("{error}");
        return std::process::ExitCode::from(i2plan_supervisor::launch::EXIT_STATUS);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    if has("--list") {
        if !has("--ignored") {
            println!("{NAME}: test");
        }
    } else if !has("--ignored")
        && arguments.iter().all(|given| given.starts_with('-') || NAME.contains(given))
    {
        linux::test();
        println!("test {NAME} ... ok");
    }
    std::process::ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use i2plan_config::Config;
    use i2plan_supervisor::layout::LayoutError;
    use i2plan_supervisor::users::{Accounts, UserNames};
    use i2plan_supervisor::{DaemonError, DaemonEvent, Node, Programs, Relay, Sink, StartError, Supervisor};
    use tempfile::TempDir;
    use tokio::sync::mpsc;

    const NAMES: UserNames<'_> = UserNames {
        keyd: "54321",
        meshd: "54322",
        tund: "54323",
        connector: "54327",
        rpc: None,
        web: None,
        names: None,
        router: None,
    };

    /// So long the test waits for what never comes.
    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Ends when it is asked to, and says so when it runs.
    const WAIT: &str = "#!/bin/sh\necho \"${0##*/} is user $(id -u)\"\nexec sleep 1000\n";

    pub(super) fn test() {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: it starts processes of other users"
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, async {
                it_runs_and_stops_in_order().await;
                a_daemon_that_cannot_run_is_a_typed_error().await;
            })
            .await
            .unwrap();
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(a_runtime_whose_threads_may_end_is_refused());
    }

    struct Lines(mpsc::UnboundedSender<String>);

    impl Sink for Lines {
        fn write(&mut self, lines: &str) {
            let _ = self.0.send(lines.to_owned());
        }
    }

    fn node(dir: &TempDir) -> Node {
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for daemon in ["keyd", "connector", "meshd", "tund"] {
            install(dir.path(), daemon, WAIT);
        }
        // Where every user can execute it.
        let launcher = dir.path().join("launcher");
        copy(&std::env::current_exe().unwrap(), &launcher);
        let config = Config::from_parts(&dir.path().join("config.toml"), "", |_| None).unwrap();
        let programs = Programs { launcher, directories: vec![dir.path().to_owned()] };
        let mut node = Node::new(&config, Accounts::find(&NAMES).unwrap(), programs);
        (node.data, node.run) = (dir.path().join("data"), dir.path().join("run"));
        node.wireguard = dir.path().join("wireguard");
        node
    }

    fn install(dir: &Path, daemon: &str, script: &str) {
        let source = dir.join("script");
        std::fs::write(&source, script).unwrap();
        copy(&source, &dir.join(format!("i2plan-{daemon}")));
    }

    /// Copies in another process: this one may start processes while it has the file open for writing.
    fn copy(from: &Path, to: &Path) {
        assert!(Command::new("install").args(["-m", "0755"]).args([from, to]).status().unwrap().success());
    }

    async fn it_runs_and_stops_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(&dir);
        let (sender, mut written) = mpsc::unbounded_channel();
        let (lines, writer) = Relay::start("program", Lines(sender));
        let (sender, mut events) = mpsc::unbounded_channel();
        let mut supervisor = Supervisor::start(&node, &lines, move |event| {
            let _ = sender.send(event.clone());
        })
        .await
        .unwrap();

        let mut said = Vec::new();
        for _ in 0..4 {
            assert!(matches!(events.recv().await, Some(DaemonEvent::Started { .. })));
            said.push(written.recv().await.unwrap());
        }
        said.sort();
        let expected = [("connector", 54_327), ("keyd", 54_321), ("meshd", 54_322), ("tund", 54_323)];
        assert_eq!(said, expected.map(|(daemon, uid)| format!("i2plan-{daemon} is user {uid}\n")));

        let error = Supervisor::start(&node, &lines, |_| {}).await.unwrap_err();
        assert!(matches!(error, StartError::Layout(LayoutError::NodeRuns { .. })), "{error}");

        assert!(node.run.join("meshd.sock").exists());
        let for_wg = node.wireguard.join("i2plan0.sock").metadata().unwrap();
        assert_eq!((for_wg.uid(), for_wg.mode() & 0o777), (0, 0o600), "root alone may ask tund by `wg`");
        supervisor.stop().await;
        for stopped in ["meshd", "tund", "connector", "keyd"] {
            match events.recv().await {
                Some(DaemonEvent::Stopped { daemon, .. }) => assert_eq!(daemon, stopped),
                other => panic!("{other:?}"),
            }
        }
        drop(supervisor);
        drop(writer);
        assert!(!node.run.join("meshd.sock").exists());
    }

    async fn a_daemon_that_cannot_run_is_a_typed_error() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(&dir);
        install(dir.path(), "keyd", "#!/bin/sh\nexit 3\n");
        let (sender, _written) = mpsc::unbounded_channel();
        let (lines, _writer) = Relay::start("program", Lines(sender));
        let (sender, mut events) = mpsc::unbounded_channel();
        let mut supervisor = Supervisor::start(&node, &lines, move |event| {
            let _ = sender.send(event.clone());
        })
        .await
        .unwrap();
        assert_eq!(supervisor.failure().await, DaemonError::Sealed);
        // Without a stop the others are killed.
        drop(supervisor);
        let mut killed = 0;
        while killed < 3 {
            if let DaemonEvent::Stopped { how, .. } = events.recv().await.unwrap() {
                assert_eq!(how, "was killed by SIGKILL (9)");
                killed += 1;
            }
        }
    }

    async fn a_runtime_whose_threads_may_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, _written) = mpsc::unbounded_channel();
        let (lines, _writer) = Relay::start("program", Lines(sender));
        let error = Supervisor::start(&node(&dir), &lines, |_| {}).await.unwrap_err();
        assert!(matches!(error, StartError::Runtime), "{error}");
        assert!(!dir.path().join("run").exists());
    }
}
