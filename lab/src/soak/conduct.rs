//! Injects faults into a running network, one after the other, each once traffic flows again.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use super::outage::InjectedFault;
use super::probes::Probes;
use super::schedule::{Cause, PlannedFault, Schedule};
use super::watch::{WatchedNode, running};
use crate::i2p::sam;
use crate::node::Lab;
use crate::process::signal;
use crate::progress::Progress;
use crate::traffic::reach;
use crate::{Failure, firewall, wait};

/// How long traffic may take to flow again before the next fault comes all the same.
const RECOVERY: Duration = Duration::from_secs(300);

/// How long a router's bridge may take to accept a session, from its start on.
const BRIDGE: Duration = Duration::from_secs(240);

/// How long a single session may take to open.
const SESSION: Duration = Duration::from_secs(90);

/// How long a router may take to end. i2pd 2.45.1 at times never does while it has sessions.
const ROUTER_STOP: Duration = Duration::from_secs(20);

/// How long all daemons are stopped before they start again.
const STOPPED: Duration = Duration::from_secs(3);

/// What is left for recovery after the last fault.
const REST: Duration = Duration::from_secs(60);

/// How long a join may take until the first echo, before the next fault comes all the same.
const JOIN: Duration = Duration::from_secs(400);

/// The key of a session that is opened to see whether the router takes it.
const KEY: &str = "TRANSIENT SIGNATURE_TYPE=7";

/// The processes of a node that are no daemons, by name.
pub type OtherProcesses = Vec<(&'static str, u32)>;

/// Injects the faults of a schedule.
pub struct Conductor<'a> {
    /// The network. Its last node is the member that joins and leaves.
    pub lab: &'a mut Lab,
    /// The probes between all nodes but the last.
    pub probes: &'a Probes,
    /// What is known of the nodes.
    pub watched: &'a RefCell<Vec<WatchedNode>>,
    /// The faults so far.
    pub faults: &'a RefCell<Vec<InjectedFault>>,
    /// The processes of each node's router and supervisor.
    pub others: &'a RefCell<Vec<OtherProcesses>>,
    /// The beginning of the run.
    pub started: Instant,
    /// Says what is being done.
    pub progress: &'a Progress,
}

impl Conductor<'_> {
    /// Injects one fault after the other, as long as there is time for another one, then waits.
    ///
    /// # Errors
    /// Only if processes cannot be listed: a fault that fails says so in its own entry.
    pub async fn run(&mut self, schedule: Schedule, end: Duration) -> Result<(), Failure> {
        for fault in schedule {
            if self.started.elapsed() + fault.quiet + fault.lasts + REST > end {
                break;
            }
            sleep(fault.quiet).await;
            self.inject(fault).await?;
            let flows = async || Ok(self.probes.all_flow());
            if wait::until("traffic flows", RECOVERY, flows).await.is_err() {
                self.progress.step(format!("traffic does not flow {} s after this", RECOVERY.as_secs()));
            }
        }
        std::future::pending().await
    }

    /// Finds the processes that are no daemons anew, since one of them was started.
    pub fn find_others(&mut self) {
        let mut others = Vec::new();
        for index in 0..self.lab.nodes.len() {
            let router = self.lab.router(index).and_then(|router| router.pid()).ok();
            let supervisor = self.lab.nodes[index].supervisor_pid();
            let named = [router.map(|pid| ("router", pid)), supervisor.map(|pid| ("supervisor", pid))];
            others.push(named.into_iter().flatten().collect());
        }
        self.others.replace(others);
    }

    async fn inject(&mut self, planned: PlannedFault) -> Result<(), Failure> {
        let PlannedFault { cause, node, lasts, .. } = planned;
        let all = self.lab.nodes.len() - 1;
        let nodes = match cause {
            Cause::AllRestart => (0..all).collect(),
            Cause::Join | Cause::Leave => vec![all],
            _ => vec![node],
        };
        let seconds = if lasts.is_zero() { String::new() } else { format!(" for {} s", lasts.as_secs()) };
        let names: Vec<_> = nodes.iter().map(|node| self.lab.nodes[*node].name.as_str()).collect();
        self.progress.step(format!("fault: {cause}{seconds}, {}", names.join(", ")));
        let begins = self.started.elapsed();
        let index = {
            let mut faults = self.faults.borrow_mut();
            faults.push(InjectedFault {
                cause,
                nodes: nodes.clone(),
                begins,
                over: None,
                bridge: None,
                join: None,
                failure: None,
            });
            faults.len() - 1
        };
        let result = match cause {
            Cause::Restart(daemon) => self.end(node, daemon, Signal::SIGTERM),
            Cause::Kill(daemon) => self.end(node, daemon, Signal::SIGKILL),
            Cause::RouterRestart | Cause::RouterKill => self.restart_router(node, cause, index).await,
            Cause::RouterHang => self.pause_router(node, lasts).await,
            Cause::Sleep => self.sleep(node, lasts).await,
            Cause::Deaf => self.deafen(node, lasts).await,
            Cause::NodeRestart | Cause::AllRestart => self.restart_nodes(&nodes, index).await,
            Cause::Join => self.join(index).await,
            Cause::Leave => self.lab.nodes[all].leave().await,
            Cause::Stall => Ok(()),
        };
        let mut faults = self.faults.borrow_mut();
        let fault = &mut faults[index];
        // What is over at once leaves i2plan no excuse from its beginning on.
        let at_once = matches!(cause, Cause::Restart(_) | Cause::Kill(_) | Cause::Join | Cause::Leave);
        fault.over = Some(if at_once { begins } else { self.started.elapsed() });
        if let Err(failure) = result {
            let text = failure.to_string();
            self.progress.step(format!("{cause}: {}", text.lines().next().unwrap_or_default()));
            fault.failure = Some(text);
        }
        Ok(())
    }

    /// Ends a daemon, which its supervisor starts again.
    fn end(&self, node: usize, daemon: &str, how: Signal) -> Result<(), Failure> {
        let process = self.watched.borrow()[node].process(daemon, &running()?);
        signal(process.ok_or_else(|| Failure::new(format!("{daemon} does not run")))?, how)
    }

    async fn restart_router(&mut self, node: usize, cause: Cause, index: usize) -> Result<(), Failure> {
        let router = self.lab.router(node)?;
        let mut hung = None;
        match cause {
            // When the time is over, `stop` is dropped, and the router killed with it.
            Cause::RouterRestart => match timeout(ROUTER_STOP, router.stop()).await {
                Ok(stopped) => stopped?,
                Err(_) => hung = Some(format!("killed {} s after SIGTERM", ROUTER_STOP.as_secs())),
            },
            _ => router.kill().await?,
        }
        router.start().await?;
        self.find_others();
        self.bridge_accepts(&[node], index).await?;
        hung.map_or(Ok(()), |hung| Err(Failure::new(hung)))
    }

    /// Waits until the bridges of these nodes accept a session, which says that their routers have tunnels.
    async fn bridge_accepts(&self, nodes: &[usize], index: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        let open = |node: usize| async move {
            let name = self.lab.nodes[node].name.as_str();
            wait::until("the router's bridge accepts a session", BRIDGE, async || {
                let session = sam::Session::open_within(name, sam::Style::Raw, KEY);
                let opened = timeout(SESSION, session).await;
                opened.map_err(|_| Failure::new("it does not answer"))?.map(|_| true)
            })
            .await
        };
        try_join_all(nodes.iter().map(|node| open(*node))).await?;
        self.faults.borrow_mut()[index].bridge = Some(begun.elapsed());
        Ok(())
    }

    async fn pause_router(&mut self, node: usize, lasts: Duration) -> Result<(), Failure> {
        let router = self.lab.router(node)?;
        router.pause()?;
        sleep(lasts).await;
        router.resume()
    }

    /// Stops all processes of a node, as a laptop does that is closed.
    async fn sleep(&mut self, node: usize, lasts: Duration) -> Result<(), Failure> {
        let daemons = self.watched.borrow()[node].processes(&running()?);
        let supervisor = self.lab.nodes[node].supervisor_pid();
        let router = self.lab.router(node)?.pid()?;
        // The supervisor first: it must not see that the others do not answer.
        let processes: Vec<_> = supervisor.into_iter().chain(daemons).chain([router]).collect();
        for process in &processes {
            signal(*process, Signal::SIGSTOP)?;
        }
        sleep(lasts).await;
        for process in processes.iter().rev() {
            signal(*process, Signal::SIGCONT)?;
        }
        Ok(())
    }

    /// Drops what the router forwards to the node's sessions.
    async fn deafen(&self, node: usize, lasts: Duration) -> Result<(), Failure> {
        let port = sam::UDP.port();
        let name = &self.lab.nodes[node].name;
        firewall::block(name, &format!("udp sport {port}")).await?;
        sleep(lasts).await;
        firewall::open(name).await
    }

    async fn restart_nodes(&mut self, nodes: &[usize], index: usize) -> Result<(), Failure> {
        let some = self.lab.nodes.iter_mut().enumerate().filter(|(node, _)| nodes.contains(node));
        let stopped = join_all(some.map(|(_, node)| node.stop_daemons())).await;
        sleep(STOPPED).await;
        for node in nodes {
            self.lab.nodes[*node].start_daemons()?;
        }
        self.find_others();
        stopped.into_iter().collect::<Result<(), _>>()?;
        // A node that starts opens its sessions anew, for which the router builds tunnels first.
        self.bridge_accepts(nodes, index).await
    }

    /// Has the further member join, and reach the one that invites it.
    async fn join(&self, index: usize) -> Result<(), Failure> {
        let (joiner, inviter) = (self.lab.nodes.last(), &self.lab.nodes[0]);
        let joiner = joiner.ok_or_else(|| Failure::new("there is no further node"))?;
        let begun = Instant::now();
        let joined = timeout(JOIN, async {
            joiner.join_by(inviter).await?;
            reach(joiner, inviter).await
        });
        joined.await.map_err(|_| Failure::new("the join has no end"))??;
        self.faults.borrow_mut()[index].join = Some(begun.elapsed());
        Ok(())
    }
}
