//! The benchmark of the tool: how long `i2planctl` takes with a node that knows a thousand members.

use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd;
use i2plan_ipc::api::order::{Executed, Order};
use i2plan_keyd::keys::{Keys, RANDOM_LEN};
use i2plan_keyd::memory::{Delegations, Memory};
use i2plan_keyd::policy::Signer;
use i2plan_keyd::store::{Store, StoreError};
use i2plan_meshd::core::VerifiedRecord;
use i2plan_meshd::core::state::{Delegated, Membership, Remembered, State};
use i2plan_proto::address::{AddressRange, Ipv4Subnet};
use i2plan_proto::identity::Signed;
use i2plan_proto::invite::{InviteSecret, Uses};
use i2plan_proto::join::{JoinBody, JoinRequest};
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::record::Record;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::Failure;
use crate::node::{Lab, Node, bin};
use crate::process::Spawn;
use crate::progress::Progress;
use crate::stats::Times;

/// Members that the node knows beside itself.
const MEMBERS: usize = 1000;

/// Addresses of each.
const ADDRESSES: u32 = 16;

/// How often each command is run.
const RUNS: usize = 40;

/// What is measured; the first, which asks no node, is what the others are compared with.
const COMMANDS: [&[&str]; 4] = [&["version"], &["status"], &["peers"], &["peers", "--json"]];

#[derive(Debug, Serialize)]
struct Row {
    command: String,
    times: Times,
    /// The median by that of `i2planctl version` in the same run.
    ratio: f64,
}

/// Runs the benchmark in the sandbox.
///
/// # Errors
/// If anything does not work.
pub async fn run(json: bool) -> Result<(), Failure> {
    let progress = Progress::new();
    progress.step("starting a private I2P network and a node");
    let mut lab = Lab::with_nodes(1).await?;
    progress.step(format!("making {MEMBERS} members, and the node their founder"));
    let node = &mut lab.nodes[0];
    node.stop_daemons().await?;
    found(node)?;
    node.start_daemons()?;
    node.ready().await?;
    let known = async |node: &Node| Ok(node.peers().await?.len() == MEMBERS);
    node.until("it knows them all", Duration::from_secs(60), known).await?;
    progress.step(format!("each command {RUNS} times"));
    let mut rows: Vec<Row> = Vec::new();
    for command in COMMANDS {
        let times = measure(node, command).await?;
        let ratio = times.median / rows.first().map_or(times.median, |row| row.times.median);
        rows.push(Row { command: command.join(" "), times, ratio });
    }
    progress.done();
    if json {
        let text = serde_json::to_string_pretty(&rows).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        println!("with {MEMBERS} members, milliseconds from start to end of the program:");
        println!("{:<14} {:>8} {:>8} {:>8} {:>8}", "i2planctl", "median", "p90", "max", "ratio");
        for Row { command, times, ratio } in rows {
            let Times { median, p90, max, .. } = times;
            println!("{command:<14} {median:>8.1} {p90:>8.1} {max:>8.1} {ratio:>8.2}");
        }
    }
    lab.stop().await
}

async fn measure(node: &Node, command: &[&str]) -> Result<Times, Failure> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let socket = [OsString::from("--socket"), node.socket().into_os_string()];
        let args = socket.into_iter().chain(command.iter().map(OsString::from));
        let program = Spawn::new(&bin().join("i2planctl"), args);
        let started = Instant::now();
        let output = program.output("").await?;
        times.push(started.elapsed());
        if !output.status.success() {
            return Err(node.failure(&output.stderr));
        }
    }
    Times::of(times).ok_or_else(|| Failure::new("nothing was measured"))
}

fn refused(error: &ApiError) -> Failure {
    Failure::new(format!("keyd refused: {error}"))
}

fn signer(now: u64) -> Result<Signer, Failure> {
    let mut random = Zeroizing::new([0; RANDOM_LEN]);
    getrandom::fill(&mut random[..]).map_err(|error| Failure::new(error.to_string()))?;
    Ok(Signer::volatile(Keys::generate(&random, now), (Memory::new(), Delegations::default())))
}

/// A node's record.
fn record(
    signer: &mut Signer,
    name: &str,
    charter: &Charter,
    chain: &Chain,
    now: u64,
) -> Result<Signed<Record>, Failure> {
    let wireguard = signer.certify_wireguard(charter.network(), false, [7; 32], now);
    let record = keyd::NewRecord {
        charter: charter.clone(),
        chain: chain.clone(),
        name: name.parse().map_err(|_| Failure::new("a name"))?,
        control: signer.keys().control().public(),
        data: signer.keys().ephemeral([1; 32]).public(),
        wireguard: wireguard.map_err(|error| refused(&error))?,
    };
    signer.sign_record(record, now).map_err(|error| refused(&error))
}

/// Makes a stopped node the founder of a network of many, whom it has invited itself.
fn found(node: &Node) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    // keyd takes only what belongs to its own user, and so does its store here.
    let directory = node.state("founder");
    DirBuilder::new().mode(0o700).create(&directory)?;
    let failed = |error: StoreError| Failure::new(error.to_string());
    let store = Store::open(&directory).map_err(failed)?;
    let keys = store.create(now, None).map_err(failed)?;
    let (memory, delegations, files) = store.open_memory(&keys.node()).map_err(failed)?;
    let mut founder = Signer::new(keys, false, memory, delegations, Box::new(files));
    let me = founder.keys().node();
    let subnet = Ipv4Subnet::DEFAULT;
    let charter = Charter { founder: me, subnet, founded_at: now, nonce: [7; 16] };
    let signature = founder.sign_charter(&charter, now).map_err(|error| refused(&error))?;
    let charter = Signed { value: charter, signature };
    let network = charter.value.network();
    let chain = Chain::founder(&charter.value);
    record(&mut founder, "founder", &charter.value, &chain, now)?;
    let secret = InviteSecret([7; 32]);
    let (expires_at, addresses) = (now + 3600, ADDRESSES);
    let wish = keyd::CreateInvite { network, subnet, expires_at, uses: Uses::Unlimited, addresses };
    let executed = founder.execute(&Order::CreateInvite(wish), secret.0, now);
    let Executed::Invite { grant, .. } = executed.map_err(|error| refused(&error))? else {
        return Err(Failure::new("keyd made no invite"));
    };
    let mut state = State::new(me);
    for (index, place) in (0..MEMBERS).zip(1..) {
        // Not the first place, in which the founder's own address is.
        let first = subnet.range().first().to_bits() + ADDRESSES * place;
        let range = AddressRange::of_size(first, ADDRESSES).ok_or_else(|| Failure::new("a range"))?;
        let mut member = signer(now)?;
        let (joiner, control) = (member.keys().node(), member.keys().control().public());
        let body = JoinBody {
            network,
            inviter: me,
            invite: secret.key(),
            joiner,
            control: control.hash(),
            issued_at: now,
        };
        let signature = member.sign_join(&body, &control, now).map_err(|error| refused(&error))?;
        let proof = body.prove(&secret.signing_key());
        let request = JoinRequest { body: Signed { value: body, signature }, proof };
        let certify = keyd::CertifyMember {
            grant: grant.clone(),
            request,
            parent: chain.id(),
            ranges: range.into(),
            replaces: false,
        };
        let certificate = founder.certify_member(&certify, now).map_err(|error| refused(&error))?;
        let chain = chain.extended(&certificate).map_err(|error| Failure::new(error.to_string()))?;
        let record = record(&mut member, &format!("node-{index}"), &charter.value, &chain, now)?;
        let record =
            VerifiedRecord::new(record, &charter.value).map_err(|error| Failure::new(error.to_string()))?;
        state.members.push(Remembered { record, pulse: None, created: now, last_seen: Some(now) });
        state.delegations.push(Delegated {
            subject: joiner,
            invite: certificate.value.grant.invite,
            ranges: range.into(),
            replaces: false,
            given_at: now,
            ended_at: None,
            certificate: Some(certificate),
        });
    }
    state.membership = Some(Membership { charter, chain, epoch: None });

    let [keyd, meshd, _] = node.uids;
    for entry in std::fs::read_dir(&directory)? {
        let entry = entry?;
        chown(entry.path(), Some(keyd), Some(keyd))?;
        std::fs::rename(entry.path(), node.state("keyd").join(entry.file_name()))?;
    }
    write(&node.state("meshd").join("state"), &state.to_bytes(), meshd)
}

fn write(path: &Path, bytes: &[u8], owner: u32) -> Result<(), Failure> {
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(chown(path, Some(owner), None)?)
}
