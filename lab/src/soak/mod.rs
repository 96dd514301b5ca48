//! A network under traffic for hours, while daemons, routers and nodes fail at random: `lab soak`.
//!
//! * [`schedule`]: which faults, and when, from a seed.
//! * [`conduct`]: injects them.
//! * [`probes`]: what is sent, and what of it is lost.
//! * [`outage`]: to which faults that is attributed, and what counts as growth.
//! * [`watch`]: what daemons use and log.
//! * [`report`]: what comes out.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use nix::mount::{MsFlags, mount};
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep, sleep_until, timeout};

pub mod conduct;
pub mod outage;
pub mod probes;
pub mod report;
pub mod schedule;
pub mod watch;

use conduct::{Conductor, OtherProcesses};
use outage::{Gap, InjectedFault, Openings};
use probes::Probes;
use report::{Excerpt, Observed, Outcome, TransferRun};
use schedule::Schedule;
use watch::{WatchedNode, running, watch_openings};

use crate::i2p::kind::Routers;
use crate::node::{Lab, Node};
use crate::progress::Progress;
use crate::sandbox::{self, DIRECTORY, bin};
use crate::traffic::{between, reach};
use crate::{Failure, firewall};

/// Bytes of a transfer.
const TRANSFER: u64 = 1_000_000;

/// How long a transfer may take: longer than most faults last.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(240);

/// Seconds between two transfers.
const TRANSFER_PAUSE: std::ops::Range<u64> = 20..60;

/// How long the nodes may take to stop at the end.
const STOP: Duration = Duration::from_secs(60);

/// How often logs are read.
const READ_EVERY: Duration = Duration::from_secs(1);

/// After how many of these memory, descriptors and state files are looked at, and progress is told.
const SAMPLE_TURNS: u64 = 30;
const TELL_TURNS: u64 = 60;

/// An outage of which log lines are kept, and how long before and after it they may be.
const NOTABLE: Duration = Duration::from_secs(5);
const AROUND: Duration = Duration::from_secs(3);

/// Most lines of each node at either end of such an excerpt, and most excerpts.
const EXCERPT_LINES: usize = 30;
const MAX_EXCERPTS: usize = 200;

/// What the user wants.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How long it runs, from when all nodes are members
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=10_080))]
    pub minutes: u32,
    /// Which faults come, and when, follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many nodes; one more joins and leaves
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub nodes: u8,
    /// Copy the nodes' logs into this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub logs: Option<PathBuf>,
    /// Print the result for a program
    #[arg(long)]
    pub json: bool,
}

/// Runs it in the sandbox. It ends after its time or by SIGINT or SIGTERM, and then says what it has seen.
///
/// # Errors
/// If the network cannot be started, a signal came, or a bound is broken.
pub async fn run(options: Options) -> Result<(), Failure> {
    let mut stopped = pin!(stopped()?);
    if let Some(logs) = &options.logs {
        let made = std::fs::create_dir_all(logs);
        made.map_err(|error| Failure::new(format!("cannot make {}: {error}", logs.display())))?;
    }
    let progress = Progress::new();
    let (lab, nodes) = tokio::select! {
        started = start(&options, &progress) => started.inspect_err(|_| sandbox::print_logs())?,
        () = &mut stopped => return Err(Failure::new("stopped")),
    };
    let (outcome, lab) = soak(&options, lab, &nodes, &progress, stopped).await?;
    progress.done();
    let judged = report::print(&outcome, options.json);
    // A node that is asleep when the run ends cannot stop: the sandbox ends it.
    if outcome.is_complete()
        && let Ok(Err(failure)) = timeout(STOP, lab.stop()).await
    {
        eprintln!("lab: {failure}");
    }
    judged
}

/// Puts copies in the place of the programs, which are mounted from where they were built: another build during the run
/// must not take them away.
fn copy_programs() -> Result<(), Failure> {
    let copies = Path::new(DIRECTORY).join("copies");
    std::fs::create_dir(&copies)?;
    for entry in std::fs::read_dir(bin())? {
        let entry = entry?;
        std::fs::copy(entry.path(), copies.join(entry.file_name()))?;
    }
    // Over the directory: a mount on a program would end when a build removes that.
    mount(Some(&copies), &bin(), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Returns when the user wants no more.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Starts a network whose nodes but one are members, with their names and addresses.
async fn start(options: &Options, progress: &Progress) -> Result<(Lab, Vec<(String, Ipv4Addr)>), Failure> {
    let routers = Routers::from_env()?;
    progress.step(format!("starting a private I2P network of routers of {}", routers.name()));
    let mut lab = Lab::start_on(routers).await?;
    copy_programs()?;
    for _ in 0..=options.nodes {
        progress.step(format!("starting node {} of {}", lab.nodes.len() + 1, options.nodes + 1));
        lab.add_node().await?;
    }
    progress.step("waiting for the nodes' I2P sessions");
    lab.ready().await?;
    let members = &lab.nodes[..usize::from(options.nodes)];
    for node in &members[1..] {
        progress.step(format!("{} joins", node.name));
        node.join_by(&members[0]).await?;
        reach(node, &members[0]).await?;
    }
    let mut nodes = Vec::new();
    for node in members {
        for other in members.iter().filter(|other| other.name != node.name) {
            reach(node, other).await?;
        }
        nodes.push((node.name.clone(), node.network().await?.ipv4));
    }
    Ok((lab, nodes))
}

/// Has everything go on side by side until the time is over.
async fn soak(
    options: &Options,
    mut lab: Lab,
    nodes: &[(String, Ipv4Addr)],
    progress: &Progress,
    stopped: impl Future<Output = ()>,
) -> Result<(Outcome, Lab), Failure> {
    let (started, started_at) = (Instant::now(), SystemTime::now());
    let probes = Probes::open(nodes, started)?;
    let watched = lab.nodes.iter().map(|node| WatchedNode::new(node, options.logs.as_deref()));
    let watched = RefCell::new(watched.collect::<Result<Vec<_>, _>>()?);
    let (faults, others) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let (transfers, excerpts) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let openings: Vec<_> = nodes.iter().map(|_| RefCell::new(Openings::default())).collect();
    let sockets: Vec<_> = lab.nodes.iter().map(Node::socket).collect();
    let opening =
        openings.iter().zip(&sockets).map(|(openings, socket)| watch_openings(socket, started, openings));
    let kinds = lab.routers();
    let deaf = firewall::program().inspect_err(|missing| {
        eprintln!("lab: {missing}: there are no deaf sessions in this run");
    });
    let deaf = deaf.is_ok();
    let schedule = Schedule::new(options.seed, nodes.len(), deaf);
    let end = Duration::from_secs(u64::from(options.minutes) * 60);
    let ended_early = {
        let mut conductor = Conductor {
            lab: &mut lab,
            probes: &probes,
            watched: &watched,
            faults: &faults,
            others: &others,
            started,
            progress,
        };
        conductor.find_others();
        let watching = Watching {
            probes: &probes,
            watched: &watched,
            faults: &faults,
            others: &others,
            excerpts: &excerpts,
            openings: &openings,
            started,
            end,
        };
        let ended = tokio::select! {
            failed = conductor.run(schedule, end) => failed,
            ended = probes.run(&faults) => ended,
            ended = watching.run() => ended,
            _ = join_all(opening) => Ok(()),
            () = transfer(nodes, started, &transfers) => Ok(()),
            () = sleep_until((started + end).into()) => Ok(()),
            () = stopped => Err(Failure::new("stopped")),
        };
        // What was seen until then is worth a report.
        ended.err().map(|failure| failure.to_string())
    };
    let seconds = started.elapsed().as_secs_f64();
    let (gaps, flows) = probes.finish();
    let observed = Observed {
        options: options.clone(),
        routers: kinds,
        started_at,
        seconds,
        ended_early,
        names: lab.nodes.iter().map(|node| node.name.clone()).collect(),
        flows,
        gaps,
        openings: openings.into_iter().map(RefCell::into_inner).collect(),
        faults: faults.into_inner(),
        watched: watched.into_inner(),
        transfers: transfers.into_inner(),
        excerpts: excerpts.into_inner(),
    };
    Ok((report::outcome(&observed), lab))
}

/// Moves bytes by TCP between two nodes, again and again.
async fn transfer(nodes: &[(String, Ipv4Addr)], started: Instant, runs: &RefCell<Vec<TransferRun>>) {
    loop {
        let (pause, ends) = {
            let mut random = rand::rng();
            let ends = (0..nodes.len()).sample(&mut random, 2);
            (random.random_range(TRANSFER_PAUSE), ends)
        };
        sleep(Duration::from_secs(pause)).await;
        let &[from, to] = &ends[..] else { continue };
        let begins = started.elapsed();
        let target = SocketAddr::new(nodes[to].1.into(), crate::traffic::PORT);
        let what = [TRANSFER.to_string()];
        let sending = between(&nodes[from].0, &nodes[to].0, target, &what);
        let (intact, failure) = match timeout(TRANSFER_DEADLINE, sending).await {
            Ok(Ok(transfer)) => (transfer.intact, None),
            Ok(Err(failure)) => (true, Some(failure.to_string())),
            Err(_) => (true, Some(format!("not done after {} s", TRANSFER_DEADLINE.as_secs()))),
        };
        runs.borrow_mut().push(TransferRun { from, to, begins, ends: started.elapsed(), intact, failure });
    }
}

/// Reads logs, looks at processes and tells progress.
struct Watching<'a> {
    probes: &'a Probes,
    watched: &'a RefCell<Vec<WatchedNode>>,
    faults: &'a RefCell<Vec<InjectedFault>>,
    others: &'a RefCell<Vec<OtherProcesses>>,
    excerpts: &'a RefCell<Vec<Excerpt>>,
    openings: &'a [RefCell<Openings>],
    started: Instant,
    end: Duration,
}

impl Watching<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let mut ticks = interval(READ_EVERY);
        let mut seen = 0;
        for turn in 0.. {
            ticks.tick().await;
            let now = self.started.elapsed();
            for node in self.watched.borrow_mut().iter_mut() {
                node.read_log(now)?;
            }
            let gaps = self.probes.gaps_from(seen);
            seen += gaps.len();
            self.quote(&gaps);
            if turn % SAMPLE_TURNS == 0 {
                let processes = running()?;
                let others = self.others.borrow();
                for (node, others) in self.watched.borrow_mut().iter_mut().zip(others.iter()) {
                    node.sample(&processes, others);
                }
            }
            if turn % TELL_TURNS == 0 && turn > 0 {
                self.tell(now);
            }
        }
        Ok(())
    }

    /// Keeps the log lines around outages that are not excused: later they are gone.
    fn quote(&self, gaps: &[Gap]) {
        let (faults, watched) = (self.faults.borrow(), self.watched.borrow());
        let mut excerpts = self.excerpts.borrow_mut();
        for gap in gaps {
            if excerpts.len() < MAX_EXCERPTS && outage::attribute(gap, &faults).unexcused(gap) >= NOTABLE {
                let (from, to) = (gap.begins.saturating_sub(AROUND), gap.ends + AROUND);
                let lines = [gap.from, gap.to].map(|node| watched[node].excerpt(from, to, EXCERPT_LINES));
                excerpts.push(Excerpt { gap: *gap, lines: lines.concat() });
            }
        }
    }

    fn tell(&self, now: Duration) {
        let gaps = self.probes.gaps_from(0);
        let faults = self.faults.borrow();
        let openings: Vec<_> = self.openings.iter().map(|one| one.borrow().clone()).collect();
        let longest = gaps.iter().map(|gap| {
            let attribution = outage::attribute(gap, &faults);
            attribution.unexcused(gap).saturating_sub(attribution.by_routers(gap, &openings))
        });
        eprintln!(
            "soak: minute {} of {}: {} faults, {} probes lost, {} outages are over, i2plan's part at most {:.1} s",
            now.as_secs() / 60,
            self.end.as_secs() / 60,
            faults.len(),
            self.probes.lost(),
            gaps.iter().filter(|gap| gap.is_outage()).count(),
            longest.max().unwrap_or_default().as_secs_f64(),
        );
    }
}
