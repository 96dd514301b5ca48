//! A network of many members for one node, made without them: what the node would hold if it had met them all.
//!
//! Every signature is made by `keyd`'s own code and verified by that of the daemons. The founder has invited one member, its
//! deputy, and that all others, because `keyd` writes all that a node has certified with each that it certifies.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::time::SystemTime;

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
use i2plan_proto::invite::{InviteGrant, InviteSecret, Uses};
use i2plan_proto::join::{JoinBody, JoinRequest};
use i2plan_proto::membership::{Chain, Charter, Membership as Certificate, NetworkName};
use i2plan_proto::record::{NodeName, Record};
use zeroize::Zeroizing;

use crate::Failure;
use crate::node::Node;

/// Addresses of each member.
const ADDRESSES: u32 = 2;

/// Addresses of the deputy: the upper half of the subnet.
const DEPUTY: u32 = 32_768;

/// Makes a stopped node the founder of a network of so many members beside itself, 16,384 at most, and a node that knows
/// them all.
///
/// # Errors
/// If something is refused, or cannot be written.
pub fn found(node: &Node, members: usize) -> Result<(), Failure> {
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
    let charter = Charter {
        founder: me,
        name: NetworkName::of_founder(&NodeName::of_host("lab")),
        subnet,
        founded_at: now,
        nonce: [7; 16],
    };
    let signature = founder.sign_charter(&charter, now).map_err(|error| refused(&error))?;
    let charter = Signed { value: charter, signature };
    let chain = Chain::founder(&charter.value);
    record(&mut founder, "first", &charter.value, &chain, now)?;

    let mut state = State::new(me);
    let half = subnet.range().first().to_bits() + DEPUTY;
    let range = |first, size| AddressRange::of_size(first, size).ok_or_else(|| Failure::new("a range"));
    let mut founding = Inviter::new(founder, &charter.value, chain.clone(), DEPUTY, now)?;
    let (deputy, deputys, certificate) = founding.admit("deputy", range(half, DEPUTY)?, now)?;
    state.delegations.push(Delegated {
        subject: deputy.keys().node(),
        invite: certificate.value.grant.invite,
        ranges: range(half, DEPUTY)?.into(),
        replaces: false,
        given_at: now,
        ended_at: None,
        certificate: Some(certificate),
    });
    let mut inviting = Inviter::new(deputy, &charter.value, deputys.value.chain.clone(), ADDRESSES, now)?;
    for (index, place) in (1..members).zip(1..) {
        // Not the first place, in which the deputy's own address is.
        let range = range(half + ADDRESSES * place, ADDRESSES)?;
        let (_, record, _) = inviting.admit(&format!("node-{index}"), range, now)?;
        state.members.push(remembered(record, &charter.value, now)?);
    }
    state.members.push(remembered(deputys, &charter.value, now)?);
    state.membership = Some(Membership { charter, chain, epoch: None });

    let [keyd, meshd, _] = node.uids;
    for entry in std::fs::read_dir(&directory)? {
        let entry = entry?;
        chown(entry.path(), Some(keyd), Some(keyd))?;
        std::fs::rename(entry.path(), node.state("keyd").join(entry.file_name()))?;
    }
    write(&node.state("meshd").join("state"), &state.to_bytes(), meshd)
}

/// A member that invites others.
struct Inviter<'a> {
    signer: Signer,
    charter: &'a Charter,
    chain: Chain,
    secret: InviteSecret,
    grant: Signed<InviteGrant>,
}

impl<'a> Inviter<'a> {
    /// One whose `keyd` has signed a record with this chain, and makes an invite for so many addresses each.
    fn new(
        mut signer: Signer,
        charter: &'a Charter,
        chain: Chain,
        addresses: u32,
        now: u64,
    ) -> Result<Self, Failure> {
        let secret = InviteSecret([7; 32]);
        let (network, subnet, expires_at) = (charter.network(), charter.subnet, now + 3600);
        let name = charter.name.clone();
        let wish = keyd::CreateInvite { network, name, subnet, expires_at, uses: Uses::Unlimited, addresses };
        let executed = signer.execute(&Order::CreateInvite(wish), secret.0, now);
        let Executed::Invite { grant, .. } = executed.map_err(|error| refused(&error))? else {
            return Err(Failure::new("keyd made no invite"));
        };
        Ok(Self { signer, charter, chain, secret, grant })
    }

    /// Makes a member, with its record, and with the certificate that it was given.
    fn admit(
        &mut self,
        name: &str,
        range: AddressRange,
        now: u64,
    ) -> Result<(Signer, Signed<Record>, Signed<Certificate>), Failure> {
        let mut member = signer(now)?;
        let (joiner, control) = (member.keys().node(), member.keys().control().public());
        let body = JoinBody {
            network: self.charter.network(),
            inviter: self.signer.keys().node(),
            invite: self.secret.key(),
            joiner,
            control: control.hash(),
            issued_at: now,
        };
        let signature = member.sign_join(&body, &control, now).map_err(|error| refused(&error))?;
        let proof = body.prove(&self.secret.signing_key());
        let request = JoinRequest { body: Signed { value: body, signature }, proof };
        let certify = keyd::CertifyMember {
            grant: self.grant.clone(),
            request,
            parent: self.chain.id(),
            ranges: range.into(),
            replaces: false,
        };
        let certificate = self.signer.certify_member(&certify, now).map_err(|error| refused(&error))?;
        let chain = self.chain.extended(&certificate).map_err(|error| Failure::new(error.to_string()))?;
        let record = record(&mut member, name, self.charter, &chain, now)?;
        Ok((member, record, certificate))
    }
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

fn remembered(record: Signed<Record>, charter: &Charter, now: u64) -> Result<Remembered, Failure> {
    let record = VerifiedRecord::new(record, charter).map_err(|error| Failure::new(error.to_string()))?;
    Ok(Remembered { record, liveness_message: None, created: now, last_seen: Some(now) })
}

fn write(path: &Path, bytes: &[u8], owner: u32) -> Result<(), Failure> {
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(chown(path, Some(owner), None)?)
}
