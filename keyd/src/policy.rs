//! What is checked before anything is signed.
//!
//! `meshd` faces the network. Whoever takes it over may ask for signatures, but gets them only on what an
//! honest `meshd` of this very node could ask for: nothing in another's name, nothing for a time that is not
//! now, nothing that contradicts what was signed before, no certificate for anybody but holders of invites that
//! were made here.

use i2plan_ipc::api::keyd::{
    CertifyMember, CreateInvite, ExtendMember, Identity, NewRecord, Noted, PinnedNetwork, Reply, Request,
    Statement, TrustAnchor, WireGuardLease,
};
use i2plan_ipc::api::order::{ADDRESSES_A_DAY, Order};
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::{ApiError, ErrorKind, Remedy};
use i2plan_proto::address::AddressRanges;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationProof, ProvenDestination};
use i2plan_proto::identity::{NetworkId, NodeId, Signable, Signature, Signed};
use i2plan_proto::invite::{Invite, InviteGrant, InviteSecret};
use i2plan_proto::join::JoinBody;
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{Chain, Charter, Delegation, Membership};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;
use tracing::{debug, info, warn};

use crate::keys::Keys;
use crate::memory::{
    BLOCK, Delegated, Delegations, Disk, Epoch, MAX_DELEGATIONS, MAX_EPOCHS, MAX_REVOKED, Memory,
    MemoryChange, Pinned, Volatile,
};

mod orders;

/// How far a time that is to be signed may be from now, seconds.
const NOW_TOLERANCE: u64 = 10 * 60;

/// Longest life of an invite, seconds.
const MAX_INVITE_LIFE: u64 = 366 * 24 * 60 * 60;

/// For how long after the next epoch has begun the WireGuard key of an epoch is leased, seconds. Until peers have heard of
/// the next one they use it, and `tund` accepts it for as long.
const EPOCH_OVERLAP: u64 = 10 * 60;

/// Suspicions that are signed in a minute. An honest node begins a probe every few seconds at most.
const SUSPICIONS_PER_MINUTE: u32 = 60;

/// Revocations that are signed by one process. Each is appended to a file, of which only a start leaves old ones out.
const MAX_REVOCATIONS: usize = 16 * MAX_REVOKED;

/// Signs what may be signed.
#[derive(Debug)]
pub struct Signer {
    keys: Keys,
    /// Whether the keys are sealed on disk.
    sealed: bool,
    memory: Memory,
    delegations: Delegations,
    disk: Box<dyn Disk>,
    /// The highest number that was given out, or that others may have seen.
    counter: u64,
    /// The minute since 1970 in which suspicions were signed last, and how many.
    suspicions: (u64, u32),
    /// Revocations that this process has remembered.
    revocations: usize,
}

impl Signer {
    /// A signer with these keys, `sealed` on disk or not, and what is remembered beside them.
    #[must_use]
    pub fn new(
        keys: Keys,
        sealed: bool,
        memory: Memory,
        delegations: Delegations,
        disk: Box<dyn Disk>,
    ) -> Self {
        let counter = memory.reserved;
        Self { keys, sealed, memory, delegations, disk, counter, suspicions: (0, 0), revocations: 0 }
    }

    /// A signer that keeps its memory nowhere: for a simulation, which can take it with [`Signer::remembered`].
    #[must_use]
    pub fn volatile(keys: Keys, (memory, delegations): (Memory, Delegations)) -> Self {
        Self::new(keys, false, memory, delegations, Box::new(Volatile))
    }

    /// What is remembered, as it is on disk.
    #[must_use]
    pub fn remembered(&self) -> (Memory, Delegations) {
        (self.memory.clone(), self.delegations.clone())
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Answers a request, except for those about sessions. `random` is fresh for every request.
    ///
    /// # Errors
    /// Why it is not signed.
    pub fn answer(&mut self, request: Request, random: [u8; 32], now: u64) -> Result<Reply, ApiError> {
        Ok(match request {
            Request::OpenSession(_)
            | Request::Connector
            | Request::AwaitOrder(_)
            | Request::Connected(_)
            | Request::NotConnected(_)
            | Request::PrepareOrder(_)
            | Request::CountBelow(_)
            | Request::ConfirmOrder(_)
            | Request::LeaseStatic => return Err(ApiError::internal("this is not for the signer")),
            Request::Pinned => Reply::Pinned(
                self.memory
                    .pinned
                    .clone()
                    .map(|Pinned { charter, chain }| Box::new(PinnedNetwork { charter, chain })),
            ),
            Request::Identity => Reply::Identity(Identity {
                node: self.keys.node(),
                control: self.keys.control().public(),
                sealed: self.sealed,
                remembers: self.memory.remembers,
            }),
            Request::SignCharter(charter) => Reply::Signature(self.sign_charter(&charter, now)?),
            Request::SignRecord(new) => Reply::Record(Box::new(self.sign_record(*new, now)?)),
            Request::SignPulse { network, life: presence } => {
                Reply::Liveness(self.sign_liveness_message(network, presence)?)
            }
            Request::SignAccusation(suspicion) => Reply::Signature(self.sign_suspicion(&suspicion, now)?),
            Request::SignJoin { body, control } => Reply::Signature(self.sign_join(&body, &control, now)?),
            Request::CreateInvite(wish) => {
                require(
                    !Order::is_needed_for_invite(wish.uses, wish.addresses),
                    "an unlimited invite, and one for more than 256 addresses, needs an order",
                )?;
                let (code, grant) = self.create_invite(&wish, InviteSecret(random), now)?;
                Reply::Invite { code, grant }
            }
            Request::CertifyMember(certify) => Reply::Membership(self.certify_member(&certify, now)?),
            Request::ExtendMember(extend) => {
                self.extend_member(&extend, false, now)?.map_or(Reply::NeedsOrder, Reply::Membership)
            }
            Request::Note(statement) => Reply::Noted(self.note(&statement)?),
            Request::Recover(certificates) => self.recover(&certificates)?,
            Request::CertifyWireGuard { network, rotate } => {
                Reply::WireGuardCertificate(self.certify_wireguard(network, rotate, random, now)?)
            }
            // tund asks every minute.
            Request::TrustAnchor(network) => Reply::TrustAnchor(Box::new(self.trust_anchor(&network, now)?)),
            Request::LeaseWireGuard { network, epoch } => {
                let lease = self.lease_wireguard(&network, epoch, now)?;
                debug!(network = %network.short(), epoch, "leased a WireGuard key");
                Reply::WireGuardLease(Box::new(lease))
            }
        })
    }

    fn sign<T: Signable>(&self, value: T) -> Signed<T> {
        let signature = value.sign(&self.keys.identity());
        Signed { value, signature }
    }

    /// Remembers this, on disk first.
    fn remember(&mut self, memory: Memory) -> Result<(), ApiError> {
        if memory != self.memory {
            self.disk.save(&memory.to_bytes()).map_err(not_remembered)?;
            self.memory = memory;
        }
        Ok(())
    }

    /// Remembers this of a delegation, on disk first.
    fn append(&mut self, entry: &MemoryChange) -> Result<(), ApiError> {
        self.disk.append(&entry.framed()).map_err(not_remembered)?;
        self.delegations.apply(entry);
        Ok(())
    }

    /// The next number. Records, liveness messages and certificates are numbered by one counter, which only grows.
    fn next_number(&mut self) -> Result<u64, ApiError> {
        let number = self.counter.checked_add(1).ok_or_else(|| {
            refusal("this node has used the last number that there is; it can go on with new keys only")
        })?;
        if number > self.memory.reserved {
            self.remember(Memory { reserved: number.saturating_add(BLOCK - 1), ..self.memory.clone() })?;
        }
        self.counter = number;
        Ok(number)
    }

    /// Others have seen a number of this node that this keyd has not given out.
    fn raise(&mut self, number: u64) -> Result<(), ApiError> {
        warn!(
            number,
            "this node's keys have signed what this keyd has not: its memory was restored from a backup, or another machine uses the same keys"
        );
        self.remember(Memory { reserved: number.saturating_add(BLOCK), ..self.memory.clone() })?;
        self.counter = number;
        Ok(())
    }

    /// This node is a member of the network of this charter, by this chain.
    ///
    /// A chain that is older than the pinned one does not replace it: it may have ended since, and showing its end would
    /// then free this node.
    fn pin(&mut self, charter: &Charter, chain: &Chain) -> Result<(), ApiError> {
        let pinned = Pinned { charter: charter.clone(), chain: chain.clone() };
        let is_known = |before: &Pinned| *before == pinned || before.is_newer(&pinned);
        if self.memory.pinned.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let before = self.memory.pinned.as_ref().map(|pinned| pinned.charter.network());
        let is_other = before.is_some_and(|before| before != charter.network());
        if is_other {
            self.append(&MemoryChange::Cleared)?;
        }
        let remembers = self.memory.remembers || is_other;
        self.remember(Memory { pinned: Some(pinned), remembers, ..self.memory.clone() })
    }

    /// What is signed is of the network that this node is a member of, if it is in one.
    fn require_pin(&self, network: NetworkId) -> Result<(), ApiError> {
        match &self.memory.pinned {
            Some(pinned) if pinned.charter.network() != network => Err(is_pinned(pinned)),
            _ => Ok(()),
        }
    }

    /// A chain of this node names the same inviters and the same first address as the one it is pinned to, if it is.
    fn require_pinned_place(&self, charter: &Charter, chain: &Chain) -> Result<(), ApiError> {
        self.require_pin(charter.network())?;
        let Some(pinned) = &self.memory.pinned else { return Ok(()) };
        let is_same = chain.ancestors().eq(pinned.chain.ancestors())
            && chain.address(&charter.subnet) == pinned.chain.address(&charter.subnet);
        if is_same { Ok(()) } else { Err(is_pinned(pinned)) }
    }

    /// This node is in no network any more.
    fn unpin(&mut self) -> Result<(), ApiError> {
        if self.memory.pinned.is_some() {
            self.append(&MemoryChange::Cleared)?;
            self.remember(Memory { pinned: None, remembers: true, ..self.memory.clone() })?;
        }
        Ok(())
    }

    /// The network with this id, which must be the one that this node has signed its newest record for.
    fn pinned(&self, network: NetworkId) -> Result<&Pinned, ApiError> {
        let pinned = self.memory.pinned.as_ref();
        pinned
            .filter(|pinned| pinned.charter.network() == network)
            .ok_or_else(|| ApiError::conflict("this node has not signed a record for this network"))
    }

    /// Whether a destination is this node's one for control messages, or may be in its place.
    fn takes_control_messages_at(&self, destination: &Destination) -> bool {
        *destination == self.keys.control().public() || self.keys.is_own_ephemeral(destination)
    }

    /// Signs the charter of a network that this node founds.
    ///
    /// # Errors
    /// If it is another's, or not for now.
    pub fn sign_charter(&self, charter: &Charter, now: u64) -> Result<Signature, ApiError> {
        require(charter.founder == self.keys.node(), "the charter names another founder")?;
        require(near(charter.founded_at, now), "the charter's time is not now")?;
        self.require_pin(charter.network())?;
        Ok(charter.sign(&self.keys.identity()))
    }

    /// Makes and signs this node's record, and has the destinations sign that it names. By signing the node consents to
    /// its chain.
    ///
    /// # Errors
    /// If it would be another's, or name keys that are not this node's.
    pub fn sign_record(&mut self, new: NewRecord, now: u64) -> Result<Signed<Record>, ApiError> {
        let NewRecord { charter, chain, name, control, data, wireguard } = new;
        let (node, network) = (self.keys.node(), charter.network());
        require(*chain.subject() == node, "the record is of another node")?;
        require(
            self.takes_control_messages_at(&control),
            "the record's control destination is not this node's",
        )?;
        require(self.keys.is_own_ephemeral(&data), "the record's data destination is not this node's")?;
        self.require_pinned_place(&charter, &chain)?;
        let certificate = &wireguard.value;
        let epoch = self.epoch(&network, certificate.epoch, now)?;
        require(
            certificate.key.signing_key == self.keys.wireguard(epoch).signing_key(),
            "the record's WireGuard key is not that of its epoch",
        )?;
        // It is always known where this node can be found again.
        let own = self.keys.control().public();
        let mut record = Record {
            node,
            sequence: 0,
            issued_at: now,
            name,
            control: ProvenDestination::unproven(control),
            primary: (control != own).then(|| Box::new(ProvenDestination::unproven(own))),
            takes_reports: true,
            data: ProvenDestination::unproven(data),
            wireguard,
            chain,
        };
        record.verify_parts(&charter).map_err(|error| refusal(&error.to_string()))?;
        let proven: Vec<ProvenDestination> = record
            .destinations()
            .map(|(destination, role)| {
                let destination = destination.destination;
                let keys = if destination == own {
                    self.keys.control().clone()
                } else {
                    self.keys.ephemeral(destination.padding)
                };
                let proof = DestinationProof { network, node, role, destination };
                ProvenDestination { destination, proof: keys.prove(&proof) }
            })
            .collect();
        for proven in proven {
            for named in [Some(&mut record.control), Some(&mut record.data), record.primary.as_deref_mut()] {
                if let Some(named) = named.filter(|named| named.destination == proven.destination) {
                    *named = proven;
                }
            }
        }
        self.pin(&charter, &record.chain)?;
        record.sequence = self.next_number()?;
        Ok(self.sign(record))
    }

    /// Makes and signs a liveness message of this node.
    ///
    /// # Errors
    /// If it is for another network than this node's, or there is no number for it.
    pub fn sign_liveness_message(
        &mut self,
        network: NetworkId,
        presence: Presence,
    ) -> Result<Signed<LivenessMessage>, ApiError> {
        self.require_pin(network)?;
        let liveness_message =
            LivenessMessage { network, node: self.keys.node(), sequence: self.next_number()?, presence };
        Ok(self.sign(liveness_message))
    }

    /// Signs that this node cannot reach another.
    ///
    /// # Errors
    /// If it is for another network, in another's name, against this node itself, not for now, or one of too many.
    pub fn sign_suspicion(&mut self, suspicion: &Suspicion, now: u64) -> Result<Signature, ApiError> {
        self.require_pin(suspicion.network)?;
        require(suspicion.confirmer == self.keys.node(), "the suspicion is another's")?;
        require(suspicion.subject != self.keys.node(), "the suspicion is against this node itself")?;
        require(near(suspicion.issued_at, now), "the suspicion's time is not now")?;
        let minute = now / 60;
        if self.suspicions.0 != minute {
            self.suspicions = (minute, 0);
        }
        require(self.suspicions.1 < SUSPICIONS_PER_MINUTE, "too many suspicions are to be signed")?;
        self.suspicions.1 += 1;
        Ok(suspicion.sign(&self.keys.identity()))
    }

    /// Signs the end of another's membership, by an order.
    ///
    /// # Errors
    /// If it is in another's name, not for now, or this node may not.
    fn sign_revocation(
        &mut self,
        revocation: &Revocation,
        charter: &Charter,
        now: u64,
    ) -> Result<Signature, ApiError> {
        require(revocation.issuer == self.keys.node(), "the revocation is another's")?;
        require(
            revocation.is_entitled(),
            "only the network's founder and a member's inviters can revoke its membership",
        )?;
        revocation.target.chain().verify(charter).map_err(|error| refusal(&error.to_string()))?;
        require(near(revocation.issued_at, now), "the revocation's time is not now")?;
        if self.pinned(charter.network()).is_ok() {
            self.end_delegations(|chain| revocation.voids(chain).is_some())?;
            self.note_revoked(revocation)?;
        }
        Ok(revocation.sign(&self.keys.identity()))
    }

    /// Remembers a revocation by this node, for `tund`.
    fn note_revoked(&mut self, revocation: &Revocation) -> Result<(), ApiError> {
        let Some(revoked) = revocation.revoked() else { return Ok(()) };
        if self.delegations.revoked().contains(&revoked) {
            return Ok(());
        }
        require(
            self.revocations < MAX_REVOCATIONS,
            "it has signed too many revocations since it was started",
        )?;
        self.append(&MemoryChange::Revoked(revoked))?;
        self.revocations += 1;
        Ok(())
    }

    /// Makes and signs the statement that this node leaves the network of this charter, by an order. All certificates that it has
    /// issued stay valid.
    ///
    /// # Errors
    /// If the chain is not this node's.
    fn sign_resignation(
        &mut self,
        chain: Chain,
        charter: &Charter,
        now: u64,
    ) -> Result<Signed<Resignation>, ApiError> {
        require(*chain.subject() == self.keys.node(), "the resignation is another's")?;
        chain.verify(charter).map_err(|error| refusal(&error.to_string()))?;
        if self.pinned(charter.network()).is_ok() {
            self.unpin()?;
        }
        Ok(self.sign(Resignation { chain, last_serial: self.counter, issued_at: now }))
    }

    /// Signs a request to join a network. `control` is the destination whose hash it names.
    ///
    /// # Errors
    /// If it is in another's name, from a destination that is not this node's, or not for now.
    pub fn sign_join(&self, body: &JoinBody, control: &Destination, now: u64) -> Result<Signature, ApiError> {
        require(body.joiner == self.keys.node(), "the join request is of another node")?;
        require(body.inviter != self.keys.node(), "the join request is to this node itself")?;
        require(
            body.control == control.hash() && self.takes_control_messages_at(control),
            "the join request's destination is not this node's",
        )?;
        require(near(body.issued_at, now), "the join request's time is not now")?;
        self.require_pin(body.network)?;
        Ok(body.sign(&self.keys.identity()))
    }

    /// Makes an invite with this secret.
    ///
    /// # Errors
    /// If it is to live too long, or not at all.
    pub fn create_invite(
        &self,
        wish: &CreateInvite,
        secret: InviteSecret,
        now: u64,
    ) -> Result<(SecretText, Signed<InviteGrant>), ApiError> {
        require(wish.expires_at > now, "the invite would have expired already")?;
        require(wish.expires_at - now <= MAX_INVITE_LIFE, "the invite would live longer than 366 days")?;
        require(wish.addresses.is_power_of_two(), "the number of addresses is not a power of two")?;
        self.require_pin(wish.network)?;
        let grant = InviteGrant {
            network: wish.network,
            inviter: self.keys.node(),
            key: secret.key(),
            created_at: now,
            expires_at: wish.expires_at,
            uses: wish.uses,
            addresses: wish.addresses,
        };
        let invite = Invite {
            network: wish.network,
            name: wish.name.clone(),
            subnet: wish.subnet,
            inviter: self.keys.node(),
            control: self.keys.control().public().hash(),
            secret,
            expires_at: wish.expires_at,
        };
        Ok((SecretText::new(invite.to_code().to_string()), self.sign(grant)))
    }

    /// Certifies the holder of an invite that was made here. One that asks again gets the same certificate, under the same
    /// certificate of this node.
    ///
    /// # Errors
    /// If the grant is not this node's, has expired or is used up, the request is not by a holder of that invite, the
    /// addresses are another's, or they are more than the invite is for.
    pub fn certify_member(
        &mut self,
        certify: &CertifyMember,
        now: u64,
    ) -> Result<Signed<Membership>, ApiError> {
        let CertifyMember { grant, request, parent, ranges, replaces } = certify;
        let body = &request.body.value;
        require(grant.value.inviter == self.keys.node(), "the invite was made by another node")?;
        grant.verify().map_err(|error| refusal(&error.to_string()))?;
        let (grant, joiner) = (&grant.value, body.joiner);
        require(now <= grant.expires_at, "the invite has expired")?;
        let same = body.invite == grant.key && body.network == grant.network && body.inviter == grant.inviter;
        require(same, "the join request is for another invite")?;
        request.verify().map_err(|error| refusal(&error.to_string()))?;
        require(joiner != self.keys.node(), "this node does not invite itself")?;
        let pinned = self.pinned(grant.network)?;
        if *parent != pinned.chain.id() {
            return Err(ApiError::conflict("this node has signed no record with this chain"));
        }
        let invite = grant.key.id();
        let before = self.delegations.with_invite(&joiner, &invite);
        if let Some(before) = before {
            require(!before.ended, "the invite was used, and that membership has ended")?;
            if before.is_active() && before.parent == *parent {
                return Ok(self.sign(pinned.chain.certificate(before.grant.clone())));
            }
            // Otherwise two invites in turn would give one node ever more addresses, more than both are for.
            require(before.is_active(), "the invite was used, and another certificate is in its place")?;
            self.require_room()?;
        } else {
            self.require_memory()?;
            let users = u64::try_from(self.delegations.users(&invite)).unwrap_or(u64::MAX);
            let limit = grant.uses.limit().map_or(u64::MAX, u64::from);
            require(users < limit, "the invite is used up")?;
        }
        let (ranges, since, replaces) = match before {
            Some(Delegated { grant, .. }) => (grant.ranges.clone(), Some(grant.since), grant.replaces),
            None => {
                require(
                    ranges.size() <= grant.addresses.into(),
                    "the certificate delegates more addresses than the invite is for",
                )?;
                let was_in_use = self.check_free(&joiner, ranges)?;
                if !self.delegations.is_allowed(&invite) {
                    let allow = || Remedy::AllowInvite { invite: invite.to_string() };
                    require(
                        grant.uses.limit().is_some(),
                        "the invite is unlimited, and its users may not join without an order",
                    )
                    .map_err(|error| error.with_remedy(allow()))?;
                    if !self.spend(ranges.size(), now)? {
                        return Err(ApiError::conflict(format!(
                            "keyd does not certify a member: this node delegates {ADDRESSES_A_DAY} addresses a day"
                        ))
                        .with_remedy(allow()));
                    }
                }
                (ranges.clone(), None, *replaces || was_in_use)
            }
        };
        let serial = self.next_number()?;
        let since = since.unwrap_or(serial);
        let grant = Delegation { subject: joiner, invite, ranges, serial, since, replaces, issued_at: now };
        self.certify(grant)
    }

    /// Counts addresses that are delegated without an order. False if they are too many for a day.
    fn spend(&mut self, addresses: u64, now: u64) -> Result<bool, ApiError> {
        let mut budget = self.memory.budget.at(now);
        let used = budget.used.saturating_add(addresses);
        let may = used <= ADDRESSES_A_DAY;
        if may {
            budget.used = used;
        }
        // Also if it is refused: the day that began with a clock set back goes on after a restart.
        self.remember(Memory { budget, ..self.memory.clone() })?;
        Ok(may)
    }

    /// Certifies a member again with more addresses; none if that takes an order, and this is not `ordered`.
    ///
    /// # Errors
    /// If its certificate until now is not this node's, its address would change, some of its addresses be lost, or some
    /// are another's.
    pub fn extend_member(
        &mut self,
        extend: &ExtendMember,
        ordered: bool,
        now: u64,
    ) -> Result<Option<Signed<Membership>>, ApiError> {
        let ranges = &extend.ranges;
        let more = self.check_extension(extend)?;
        if !ordered && !self.spend(more, now)? {
            return Ok(None);
        }
        let before = &extend.certificate.value;
        let serial = self.next_number()?;
        let grant = Delegation { ranges: ranges.clone(), serial, issued_at: now, ..before.grant.clone() };
        self.certify(grant).map(Some)
    }

    /// How many addresses more a member would hold.
    fn check_extension(&self, extend: &ExtendMember) -> Result<u64, ApiError> {
        let ExtendMember { certificate, parent, ranges } = extend;
        let before = &certificate.value;
        require(before.issuer == self.keys.node(), "the member was certified by another node")?;
        certificate.verify().map_err(|error| refusal(&error.to_string()))?;
        require(
            ranges.address() == before.grant.ranges.address()
                && before.grant.ranges.iter().all(|range| ranges.cover(range)),
            "the member would lose addresses",
        )?;
        let pinned = self.pinned(before.network)?;
        if *parent != pinned.chain.id() {
            return Err(ApiError::conflict("this node has signed no record with this chain"));
        }
        self.require_memory()?;
        let known = self.delegations.with_serial(before.grant.serial);
        require(known.is_some_and(Delegated::is_active), "the member's certificate is not in force")?;
        self.check_free(&before.grant.subject, ranges)?;
        Ok(ranges.size() - before.grant.ranges.size())
    }

    /// Whether the memory of delegations is whole.
    fn require_memory(&self) -> Result<(), ApiError> {
        if !self.memory.remembers {
            return Err(ApiError::conflict("keyd does not remember which addresses this node has delegated")
                .with_remedy(Remedy::RecoverKeys));
        }
        self.require_room()
    }

    /// Whether another delegation can be remembered.
    fn require_room(&self) -> Result<(), ApiError> {
        if self.delegations.len() >= MAX_DELEGATIONS {
            return Err(ApiError::conflict(format!(
                "keyd remembers {MAX_DELEGATIONS} delegations and no more"
            ))
            .with_hint("restart keyd: it forgets old ones that have ended"));
        }
        Ok(())
    }

    /// Whether addresses that may be delegated were in use before.
    fn check_free(&self, subject: &NodeId, ranges: &AddressRanges) -> Result<bool, ApiError> {
        let mut was_in_use = false;
        for other in self.delegations.of_others(subject, ranges) {
            require(!other.is_active(), "another member holds some of these addresses")?;
            was_in_use = true;
        }
        Ok(was_in_use)
    }

    /// Signs a certificate under this node's chain, and remembers it before it leaves.
    fn certify(&mut self, grant: Delegation) -> Result<Signed<Membership>, ApiError> {
        let Some(Pinned { charter, chain }) = &self.memory.pinned else {
            return Err(ApiError::conflict("this node is in no network"));
        };
        let certificate = self.sign(chain.certificate(grant));
        chain.appended(&certificate).verify(charter).map_err(|error| refusal(&error.to_string()))?;
        let Membership { parent, grant, .. } = &certificate.value;
        info!(
            invite = %grant.invite, member = %grant.subject.short(), addresses = grant.ranges.size(),
            "certified a member"
        );
        self.append(&MemoryChange::Delegated(*parent, grant.clone()))?;
        Ok(certificate)
    }

    /// Takes note of a statement that others have told.
    ///
    /// # Errors
    /// If it is neither by this node nor about its membership or one below it, or does not verify.
    pub fn note(&mut self, statement: &Statement) -> Result<Noted, ApiError> {
        let own = self.keys.node();
        match statement {
            Statement::Record(record) => {
                require(record.value.node == own, "the record is of another node")?;
                record.verify().map_err(|error| refusal(&error.to_string()))?;
                let Record { sequence, chain, .. } = &record.value;
                if *sequence <= self.counter {
                    return Ok(Noted::Known);
                }
                let pinned = self.memory.pinned.clone();
                self.raise(*sequence)?;
                if let Some(Pinned { charter, .. }) =
                    pinned.filter(|pinned| chain.verify(&pinned.charter).is_ok())
                {
                    self.pin(&charter, chain)?;
                }
                Ok(Noted::Foreign)
            }
            Statement::Liveness(liveness_message) => {
                require(liveness_message.value.node == own, "the liveness message is of another node")?;
                liveness_message.verify().map_err(|error| refusal(&error.to_string()))?;
                if liveness_message.value.sequence <= self.counter {
                    return Ok(Noted::Known);
                }
                self.raise(liveness_message.value.sequence)?;
                Ok(Noted::Foreign)
            }
            Statement::Certificate(certificate) => self.note_certificate(certificate),
            Statement::Revocation(revocation) => self.note_ending(
                |charter| revocation.verify_for(charter).is_ok(),
                |chain| revocation.value.voids(chain).is_some(),
            ),
            Statement::Resignation(resignation) => self.note_ending(
                |charter| resignation.verify_for(charter).is_ok(),
                |chain| resignation.value.voids(chain).is_some(),
            ),
        }
    }

    fn note_certificate(&mut self, certificate: &Signed<Membership>) -> Result<Noted, ApiError> {
        let Membership { network, parent, issuer, grant } = &certificate.value;
        require(*issuer == self.keys.node(), "the certificate is by another node")?;
        certificate.verify().map_err(|error| refusal(&error.to_string()))?;
        let is_foreign = grant.serial > self.counter;
        if is_foreign {
            self.raise(grant.serial)?;
        }
        let is_pinned = self.pinned(*network).is_ok();
        let is_news = is_pinned
            && self.delegations.with_serial(grant.serial).is_none()
            && self.delegations.len() < MAX_DELEGATIONS;
        if is_news {
            self.append(&MemoryChange::Delegated(*parent, grant.clone()))?;
        }
        Ok(match (is_foreign, is_news) {
            (true, _) => Noted::Foreign,
            (false, true) => Noted::News,
            (false, false) => Noted::Known,
        })
    }

    fn note_ending(
        &mut self,
        is_true: impl FnOnce(&Charter) -> bool,
        voids: impl Fn(&Chain) -> bool,
    ) -> Result<Noted, ApiError> {
        let Some(Pinned { charter, chain }) = &self.memory.pinned else { return Ok(Noted::Known) };
        require(is_true(charter), "the end of a membership is not signed by one who may")?;
        if voids(chain) {
            info!(network = %charter.network().short(), "this node's membership has ended");
            self.unpin()?;
            return Ok(Noted::News);
        }
        Ok(if self.end_delegations(voids)? { Noted::News } else { Noted::Known })
    }

    /// Notes the end of the delegations whose chains are void. True if there are any.
    fn end_delegations(&mut self, is_void: impl Fn(&Chain) -> bool) -> Result<bool, ApiError> {
        let Some(Pinned { chain, .. }) = &self.memory.pinned else { return Ok(false) };
        // Nothing about its end depends on a certificate's signature.
        let unsigned = |grant: &Delegation| Signed {
            value: chain.certificate(grant.clone()),
            signature: Signature([0; 64]),
        };
        let active = self.delegations.iter().filter(|delegated| !delegated.ended);
        let ended: Vec<u64> = active
            .filter(|delegated| is_void(&chain.appended(&unsigned(&delegated.grant))))
            .map(|delegated| delegated.grant.serial)
            .collect();
        for serial in &ended {
            self.append(&MemoryChange::Ended(*serial))?;
        }
        Ok(!ended.is_empty())
    }

    /// Takes note of certificates by this node that others hold.
    ///
    /// # Errors
    /// If one is not by this node.
    pub fn recover(&mut self, certificates: &[Signed<Membership>]) -> Result<Reply, ApiError> {
        for certificate in certificates {
            self.note_certificate(certificate)?;
        }
        let known = u64::try_from(self.delegations.len()).unwrap_or(u64::MAX);
        Ok(Reply::Recovered { known, complete: self.memory.remembers })
    }

    /// Certifies the newest WireGuard key that is in force, or a new one if there is none or the key is to be rotated.
    ///
    /// # Errors
    /// If it is to be rotated in the same minute in which it was rotated before.
    pub fn certify_wireguard(
        &mut self,
        network: NetworkId,
        rotate: bool,
        salt: [u8; 32],
        now: u64,
    ) -> Result<Signed<WireGuardCertificate>, ApiError> {
        self.require_pin(network)?;
        let mut memory = self.memory.clone();
        // One that has not begun comes of a clock that was ahead. Its key is never used again.
        memory.epochs.retain(|epoch| epoch.network == network && is_in_force(epoch, now));
        let epoch = match memory.epochs.last() {
            Some(newest) if !rotate => newest.clone(),
            newest => {
                let number = WireGuardCertificate::epoch_at(now);
                require(
                    newest.is_none_or(|newest| newest.number < number),
                    "the WireGuard key was rotated less than a minute ago",
                )?;
                let end =
                    WireGuardCertificate::begins_at(number).saturating_add(WireGuardCertificate::MAX_AGE);
                let epoch = Epoch { network, number, salt, end };
                memory.epochs.push(epoch.clone());
                let excess = memory.epochs.len().saturating_sub(MAX_EPOCHS);
                memory.epochs.drain(..excess);
                epoch
            }
        };
        self.remember(memory)?;
        let node = self.keys.node();
        Ok(self.sign(WireGuardCertificate {
            network,
            node,
            key: self.keys.wireguard(&epoch).proven(network, node),
            epoch: epoch.number,
            not_before: epoch.begins_at(),
            not_after: epoch.end,
        }))
    }

    /// What `tund` verifies by.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if this node is in another network or in none, [`ErrorKind::Denied`] if no epoch of its
    /// WireGuard key is in force.
    pub fn trust_anchor(&self, network: &NetworkId, now: u64) -> Result<TrustAnchor, ApiError> {
        let pinned = self.pinned(*network)?;
        let newest = self.epochs_in_force(network, now).last();
        let newest = newest.ok_or_else(|| refusal("no WireGuard key of this node is in force"))?;
        Ok(self.anchor(pinned, newest))
    }

    fn anchor(&self, pinned: &Pinned, epoch: &Epoch) -> TrustAnchor {
        let Pinned { charter, chain } = pinned.clone();
        let revoked = self.delegations.revoked().to_vec();
        TrustAnchor { epoch: epoch.number, not_after: epoch.end, charter, chain, revoked }
    }

    /// The WireGuard private key of the newest epoch in force, or of the one before it in the first minutes of that, and
    /// what `tund` verifies by.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if this node is in another network or in none, [`ErrorKind::Denied`] if it is another key:
    /// `tund` has a use for no other.
    pub fn lease_wireguard(
        &self,
        network: &NetworkId,
        epoch: u32,
        now: u64,
    ) -> Result<WireGuardLease, ApiError> {
        let pinned = self.pinned(*network)?;
        let leased = self.epoch(network, epoch, now)?;
        let mut newer = self.epochs_in_force(network, now).filter(|newer| newer.number > leased.number);
        let is_overlapped = newer.next().is_none_or(|next| {
            now <= next.begins_at().saturating_add(EPOCH_OVERLAP) && newer.next().is_none()
        });
        require(is_overlapped, "the WireGuard key of this epoch is out of use")?;
        Ok(WireGuardLease {
            private_key: self.keys.wireguard_private(leased),
            anchor: self.anchor(pinned, leased),
        })
    }

    /// The epochs of this node's key that are in force, the oldest first.
    fn epochs_in_force<'a>(&'a self, network: &'a NetworkId, now: u64) -> impl Iterator<Item = &'a Epoch> {
        let epochs = self.memory.epochs.iter();
        epochs.filter(move |epoch| epoch.network == *network && is_in_force(epoch, now))
    }

    fn epoch(&self, network: &NetworkId, number: u32, now: u64) -> Result<&Epoch, ApiError> {
        let mut known = self.memory.epochs.iter();
        let known = known.find(|epoch| epoch.network == *network && epoch.number == number);
        let known = known.ok_or_else(|| refusal("the WireGuard key of this epoch was not certified"))?;
        require(has_begun(known, now), "the WireGuard key's epoch has not begun")?;
        require(now <= known.end, "the WireGuard key's epoch is over")?;
        Ok(known)
    }
}

fn has_begun(epoch: &Epoch, now: u64) -> bool {
    epoch.begins_at() <= now.saturating_add(NOW_TOLERANCE)
}

fn is_in_force(epoch: &Epoch, now: u64) -> bool {
    has_begun(epoch, now) && now <= epoch.end
}

fn require(holds: bool, otherwise: &str) -> Result<(), ApiError> {
    if holds { Ok(()) } else { Err(refusal(otherwise)) }
}

fn refusal(why: &str) -> ApiError {
    ApiError::denied(format!("keyd does not sign this: {why}"))
}

fn is_pinned(pinned: &Pinned) -> ApiError {
    let address = pinned.chain.address(&pinned.charter.subnet);
    ApiError::conflict(format!(
        "keyd does not sign this: this node is a member of network {}, where it is {address}, and leaves it by an \
         order only",
        pinned.charter.network().short()
    ))
    .with_remedy(Remedy::LeaveOrForget)
}

fn not_remembered(error: std::io::Error) -> ApiError {
    let hint = if error.kind() == std::io::ErrorKind::FileTooLarge {
        "restart keyd: it leaves out what does not matter any more"
    } else {
        "see that its directory is writable and the disk is not full"
    };
    ApiError::new(ErrorKind::Unavailable, format!("keyd cannot save what it has to remember: {error}"))
        .with_hint(hint)
}

fn near(time: u64, now: u64) -> bool {
    time.abs_diff(now) <= NOW_TOLERANCE
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::order::{Executed, OrderTarget};
    use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
    use i2plan_proto::identity::NodeId;
    use i2plan_proto::invite::Uses;
    use i2plan_proto::join::JoinRequest;
    use i2plan_proto::membership::Chain;
    use i2plan_proto::revocation::{Revoked, Target};
    use i2plan_testing as testing;

    use super::*;
    use crate::keys::test_keys;

    pub(super) const NOW: u64 = 1_800_000_000;

    pub(super) fn signer(seed: u8) -> Signer {
        Signer::volatile(test_keys(seed), (Memory::new(), Delegations::default()))
    }

    pub(super) fn charter(signer: &Signer) -> Charter {
        let name = testing::network_name();
        Charter {
            founder: signer.keys.node(),
            name,
            subnet: Ipv4Subnet::DEFAULT,
            founded_at: NOW,
            nonce: [7; 16],
        }
    }

    pub(super) fn network(signer: &Signer) -> NetworkId {
        charter(signer).network()
    }

    const SALT: [u8; 32] = [5; 32];

    fn certificate(signer: &mut Signer) -> Signed<WireGuardCertificate> {
        signer.certify_wireguard(network(signer), false, SALT, NOW).unwrap()
    }

    pub(super) fn new_record(signer: &mut Signer) -> NewRecord {
        NewRecord {
            charter: charter(signer),
            chain: Chain::founder(&charter(signer)),
            name: "n".parse().unwrap(),
            control: signer.keys.control().public(),
            data: signer.keys.ephemeral([7; 32]).public(),
            wireguard: certificate(signer),
        }
    }

    /// A founder that has signed its first record.
    pub(super) fn founder() -> Signer {
        let mut founder = signer(1);
        let record = new_record(&mut founder);
        founder.sign_record(record, NOW).unwrap();
        founder
    }

    fn wish(signer: &Signer) -> CreateInvite {
        let subnet = Ipv4Subnet::DEFAULT;
        let (network, expires_at) = (network(signer), NOW + 3600);
        let name = testing::network_name();
        CreateInvite { network, name, subnet, expires_at, uses: many(), addresses: 16 }
    }

    pub(super) fn many() -> Uses {
        Uses::Limited(16.try_into().unwrap())
    }

    fn secret() -> InviteSecret {
        InviteSecret([9; 32])
    }

    /// A node asks node 1 with an invite of node 1.
    pub(super) fn certify_for(joiner: &Signer, uses: Uses, last: u8) -> CertifyMember {
        certify_by(secret(), joiner, uses, last)
    }

    fn certify_by(secret: InviteSecret, joiner: &Signer, uses: Uses, last: u8) -> CertifyMember {
        let inviter = signer(1);
        let wish = CreateInvite { uses, ..wish(&inviter) };
        let body = JoinBody {
            network: network(&inviter),
            inviter: inviter.keys.node(),
            invite: secret.key(),
            joiner: joiner.keys.node(),
            control: joiner.keys.control().public().hash(),
            issued_at: NOW,
        };
        let proof = body.prove(&secret.signing_key());
        let (_, grant) = inviter.create_invite(&wish, secret, NOW).unwrap();
        let request = JoinRequest { proof, ..request(body, joiner) };
        certificate_for(grant, request, last)
    }

    fn certify() -> CertifyMember {
        certify_for(&signer(2), many(), 16)
    }

    pub(super) fn range(last: u8) -> AddressRange {
        AddressRange::new([10, 42, 3, last].into(), 28).unwrap()
    }

    fn certificate_for(grant: Signed<InviteGrant>, request: JoinRequest, last: u8) -> CertifyMember {
        let parent = grant.value.network.into();
        CertifyMember { grant, request, parent, ranges: range(last).into(), replaces: false }
    }

    fn request(body: JoinBody, joiner: &Signer) -> JoinRequest {
        let proof = body.prove(&secret().signing_key());
        let signature = body.sign(&joiner.keys.identity());
        JoinRequest { body: Signed { value: body, signature }, proof }
    }

    pub(super) fn refused<T>(result: Result<T, ApiError>, reason: &str) {
        match result {
            Ok(_) => panic!("signed, though {reason}"),
            Err(error) => assert!(error.message.contains(reason), "{error} (expected: {reason})"),
        }
    }

    #[test]
    fn what_is_right_is_signed_by_the_identity() {
        let mut signer = signer(1);
        let charter = charter(&signer);
        let signature = signer.sign_charter(&charter, NOW).unwrap();
        assert_eq!(charter.verify(&charter.founder, &signature), Ok(()));
        let record = new_record(&mut signer);
        assert_eq!(signer.sign_record(record, NOW).unwrap().verify_for(&charter), Ok(()));
        let certificate = signer.certify_member(&certify(), NOW).unwrap();
        assert_eq!(certificate.verify(), Ok(()));
        assert_eq!(certificate.value.grant.subject, test_keys(2).node());
        let resignation = signer.sign_resignation(Chain::founder(&charter), &charter, NOW).unwrap();
        assert_eq!(resignation.verify_for(&charter), Ok(()));
        // Those that this node has invited stay members.
        assert!(resignation.value.last_serial >= certificate.value.grant.serial);
    }

    #[test]
    fn charters_of_others_and_other_times_are_not_signed() {
        let signer = signer(1);
        let right = charter(&signer);
        refused(
            signer.sign_charter(&Charter { founder: NodeId([1; 32]), ..right.clone() }, NOW),
            "another founder",
        );
        refused(signer.sign_charter(&right, NOW + NOW_TOLERANCE + 1), "not now");
    }

    #[test]
    fn records_name_this_node_and_its_keys_only() {
        let mut other = signer(2);
        let mut signer = signer(1);
        let charter = charter(&signer);
        let right = new_record(&mut signer);
        let with = |change: &dyn Fn(&mut NewRecord)| {
            let mut record = right.clone();
            change(&mut record);
            record
        };
        let others = Charter { founder: other.keys.node(), ..charter.clone() };
        let foreign = new_record(&mut other);
        // A certificate that this node signed, but for a key that is not that of its epoch.
        let mut stale = right.wireguard.clone();
        stale.value.key = foreign.wireguard.value.key;
        stale.signature = stale.value.sign(&signer.keys.identity());
        let (control, data) = (other.keys.control().public(), other.keys.ephemeral([7; 32]).public());
        let cases: [(NewRecord, &str); 6] = [
            (with(&|record| record.chain = Chain::founder(&others)), "another node"),
            (with(&|record| record.charter = others.clone()), "not certified"),
            (with(&|record| record.control = control), "control destination"),
            (with(&|record| record.data = data), "data destination"),
            (with(&|record| record.wireguard = foreign.wireguard.clone()), "not that of its epoch"),
            (with(&|record| record.wireguard = stale.clone()), "not that of its epoch"),
        ];
        for (record, reason) in cases {
            refused(signer.sign_record(record, NOW), reason);
        }
        // One in place of the control destination is as good, and leads to it.
        let fallback = signer.keys.ephemeral([9; 32]).public();
        let signed = signer.sign_record(with(&|record| record.control = fallback), NOW).unwrap();
        assert_eq!(signed.verify_for(&charter), Ok(()));
        let primary = signed.value.primary.map(|primary| primary.destination);
        assert_eq!(primary, Some(signer.keys.control().public()));
    }

    #[test]
    fn statements_are_numbered_by_one_counter_that_outlasts_a_restart() {
        let mut signer = founder();
        let mut numbers = Vec::new();
        let mut last = 0;
        for round in 0..3 {
            for _ in 0..700 {
                let network = network(&signer);
                numbers
                    .push(signer.sign_liveness_message(network, Presence::Present).unwrap().value.sequence);
            }
            let record = new_record(&mut signer);
            numbers.push(signer.sign_record(record, NOW).unwrap().value.sequence);
            let certify = certify_for(&self::signer(10 + round), many(), 16 * (round + 1));
            numbers.push(signer.certify_member(&certify, NOW).unwrap().value.grant.serial);
            // Whatever the clock says.
            signer = Signer::volatile(test_keys(1), signer.remembered());
        }
        for number in numbers {
            assert!(number > last, "{number} after {last}");
            last = number;
        }
        assert!(last < 10 * BLOCK);
    }

    #[test]
    fn a_number_that_others_know_raises_the_counter_only_if_this_nodes_keys_gave_it_out() {
        let mut copy = founder();
        for _ in 0..5000 {
            copy.sign_liveness_message(network(&copy), Presence::Present).unwrap();
        }
        let liveness_message = copy.sign_liveness_message(network(&copy), Presence::Present).unwrap();
        let mut signer = founder();
        let before = signer.counter;
        let mut forged = liveness_message.clone();
        forged.value.sequence = u64::MAX - 1;
        refused(signer.note(&Statement::Liveness(forged)), "signature");
        let mut others = self::signer(2);
        let theirs = others.sign_liveness_message(network(&copy), Presence::Present).unwrap();
        refused(signer.note(&Statement::Liveness(theirs)), "another node");
        assert_eq!(signer.counter, before);
        assert_eq!(signer.note(&Statement::Liveness(liveness_message.clone())), Ok(Noted::Foreign));
        assert_eq!(signer.note(&Statement::Liveness(liveness_message.clone())), Ok(Noted::Known));
        let next = signer.sign_liveness_message(network(&copy), Presence::Present).unwrap();
        assert_eq!(next.value.sequence, liveness_message.value.sequence + 1);
        // Its own statements are no news.
        assert_eq!(signer.note(&Statement::Liveness(next)), Ok(Noted::Known));
    }

    #[test]
    fn the_last_number_is_an_error() {
        let memory = Memory { reserved: u64::MAX - 1, ..Memory::new() };
        let mut signer = Signer::volatile(test_keys(1), (memory, Delegations::default()));
        assert_eq!(
            signer.sign_liveness_message(NetworkId([1; 32]), Presence::Away).unwrap().value.sequence,
            u64::MAX
        );
        refused(signer.sign_liveness_message(NetworkId([1; 32]), Presence::Away), "last number");
    }

    #[test]
    fn suspicions_are_this_nodes_own_and_few() {
        let mut signer = signer(1);
        let right = Suspicion {
            network: NetworkId([1; 32]),
            confirmer: signer.keys.node(),
            subject: NodeId([2; 32]),
            sequence: 7,
            issued_at: NOW,
        };
        let cases = [
            (Suspicion { confirmer: NodeId([3; 32]), ..right.clone() }, "another's"),
            (Suspicion { subject: signer.keys.node(), ..right.clone() }, "this node itself"),
            (Suspicion { issued_at: NOW - NOW_TOLERANCE - 1, ..right.clone() }, "not now"),
        ];
        for (suspicion, reason) in cases {
            refused(signer.sign_suspicion(&suspicion, NOW), reason);
        }
        for _ in 0..SUSPICIONS_PER_MINUTE {
            assert!(signer.sign_suspicion(&right, NOW).is_ok());
        }
        refused(signer.sign_suspicion(&right, NOW), "too many");
        assert!(signer.sign_suspicion(&right, NOW + 60).is_ok());
    }

    #[test]
    fn revocations_are_for_inviters() {
        let (mut founder, mut member) = (founder(), signer(2));
        let charter = charter(&founder);
        let certificate = founder.certify_member(&certify(), NOW).unwrap();
        let chain = Chain::founder(&charter).extended(&certificate).unwrap();
        let target = Target::Certificate(chain.clone());
        let right = Revocation { issuer: founder.keys.node(), target, issued_at: NOW };
        assert!(founder.sign_revocation(&right, &charter, NOW).is_ok());
        refused(member.sign_revocation(&right, &charter, NOW), "another's");
        // A member is not its own inviter.
        let own = Revocation { issuer: member.keys.node(), ..right.clone() };
        refused(member.sign_revocation(&own, &charter, NOW), "only the network's founder");
        let late = Revocation { issued_at: NOW + NOW_TOLERANCE + 1, ..right.clone() };
        refused(founder.sign_revocation(&late, &charter, NOW), "not now");
        let other = Charter { nonce: [8; 16], ..charter.clone() };
        refused(founder.sign_revocation(&right, &other, NOW), "another network");
        refused(founder.sign_resignation(chain.clone(), &charter, NOW), "another's");
        assert!(member.sign_resignation(chain, &charter, NOW).is_ok());
    }

    #[test]
    fn a_repeated_request_gets_the_same_certificate_also_after_a_restart() {
        let mut inviter = founder();
        let certify = certify();
        let first = inviter.certify_member(&certify, NOW).unwrap();
        let mut inviter = Signer::volatile(test_keys(1), inviter.remembered());
        let elsewhere = CertifyMember { ranges: range(64).into(), ..certify };
        assert_eq!(inviter.certify_member(&elsewhere, NOW + 60).unwrap(), first);
        assert_eq!(inviter.delegations.len(), 1);
    }

    #[test]
    fn an_invite_is_used_as_often_as_it_says_whatever_meshd_forgets() {
        let mut inviter = founder();
        let uses = Uses::Limited(2.try_into().unwrap());
        inviter.certify_member(&certify_for(&signer(2), uses, 16), NOW).unwrap();
        inviter.certify_member(&certify_for(&signer(3), uses, 32), NOW).unwrap();
        let mut inviter = Signer::volatile(test_keys(1), inviter.remembered());
        refused(inviter.certify_member(&certify_for(&signer(4), uses, 48), NOW), "used up");
        assert!(inviter.certify_member(&certify_for(&signer(3), uses, 48), NOW).is_ok());
    }

    #[test]
    fn addresses_of_a_member_are_given_to_no_other_before_its_membership_has_ended() {
        let mut inviter = founder();
        let charter = charter(&inviter);
        let first = inviter.certify_member(&certify_for(&signer(2), many(), 16), NOW).unwrap();
        let taken = CertifyMember { replaces: true, ..certify_for(&signer(3), many(), 16) };
        refused(inviter.certify_member(&taken, NOW), "another member holds");
        // A statement of somebody else does not end it.
        let chain = Chain::founder(&charter).appended(&first);
        let resign = |seed: u8| {
            let resignation = Resignation { chain: chain.clone(), last_serial: 0, issued_at: NOW };
            Statement::Resignation(Box::new(signer(seed).sign(resignation)))
        };
        refused(inviter.note(&resign(3)), "not signed by one who may");
        refused(inviter.certify_member(&taken, NOW), "another member holds");
        assert_eq!(inviter.note(&resign(2)), Ok(Noted::News));
        assert_eq!(inviter.note(&resign(2)), Ok(Noted::Known));
        let fresh = CertifyMember { replaces: false, ..taken };
        let second = inviter.certify_member(&fresh, NOW).unwrap();
        assert!(second.value.grant.replaces, "the first certificate may be shown again");
        // Nor does the member that left come back by the same invite.
        let again = certify_for(&signer(2), many(), 64);
        refused(inviter.certify_member(&again, NOW), "that membership has ended");
    }

    #[test]
    fn two_invites_in_turn_give_a_node_no_more_addresses_than_they_are_for() {
        let mut inviter = founder();
        let one = certify_for(&signer(2), many(), 16);
        let other = certify_by(InviteSecret([8; 32]), &signer(2), many(), 16);
        inviter.certify_member(&one, NOW).unwrap();
        inviter.certify_member(&other, NOW).unwrap();
        let more = CertifyMember { ranges: range(32).into(), ..one };
        refused(inviter.certify_member(&more, NOW), "another certificate is in its place");
    }

    /// A node can be a member by several chains, and `meshd` chooses the one of its record.
    #[test]
    fn certificates_under_a_chain_that_changes_again_and_again_are_bounded() {
        let mut inviter = founder();
        inviter.certify_member(&certify(), NOW).unwrap();
        let known = inviter.delegations.iter().next().unwrap().clone();
        let elsewhere = Delegated { parent: testing::chain(3).id(), ..known };
        inviter.delegations = Delegations::filled(1, &elsewhere);
        assert!(inviter.certify_member(&certify(), NOW).is_ok());
        inviter.delegations = Delegations::filled(MAX_DELEGATIONS, &elsewhere);
        refused(inviter.certify_member(&certify(), NOW), "and no more");
    }

    #[test]
    fn what_this_node_revokes_is_free_at_once() {
        let mut inviter = founder();
        let charter = charter(&inviter);
        let first = inviter.certify_member(&certify(), NOW).unwrap();
        let target = Target::Certificate(Chain::founder(&charter).appended(&first));
        let revocation = Revocation { issuer: inviter.keys.node(), target, issued_at: NOW };
        inviter.sign_revocation(&revocation, &charter, NOW).unwrap();
        assert!(inviter.certify_member(&certify_for(&signer(3), many(), 16), NOW).is_ok());
    }

    #[test]
    fn without_its_memory_it_certifies_no_new_member_until_that_is_complete() {
        let mut whole = founder();
        let first = whole.certify_member(&certify(), NOW).unwrap();
        let mut inviter = Signer::volatile(test_keys(1), (Memory::lost(), Delegations::default()));
        let record = new_record(&mut inviter);
        inviter.sign_record(record, NOW).unwrap();
        let other = certify_for(&signer(3), many(), 16);
        refused(inviter.certify_member(&other, NOW), "does not remember");
        refused(inviter.recover(&[testing::membership(0, 1)]), "another node");
        for certificates in [std::slice::from_ref(&first), &[]] {
            let recovered = inviter.recover(certificates);
            assert!(matches!(recovered, Ok(Reply::Recovered { known: 1, complete: false })), "{recovered:?}");
            refused(inviter.certify_member(&other, NOW), "does not remember");
        }
        // meshd can say what there is, and not that it is all.
        let network = network(&whole);
        assert_eq!(
            inviter.target(&Order::Recover),
            Ok(OrderTarget::Memory { network, members: 1, addresses: 16 })
        );
        assert!(matches!(inviter.execute(&Order::Recover, SALT, NOW), Ok(Executed::Recovered(1))));
        refused(inviter.target(&Order::Recover), "nothing to recover");
        refused(inviter.certify_member(&other, NOW), "another member holds");
        assert!(inviter.certify_member(&certify_for(&signer(3), many(), 32), NOW).is_ok());
        assert!(inviter.counter > first.value.grant.serial);
    }

    #[test]
    fn a_disk_that_fails_lets_nothing_out() {
        #[derive(Debug)]
        struct Full;
        impl Disk for Full {
            fn save(&mut self, _: &[u8]) -> std::io::Result<()> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn append(&mut self, _: &[u8]) -> std::io::Result<()> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
        }
        let mut inviter = founder();
        inviter.disk = Box::new(Full);
        refused(inviter.certify_member(&certify(), NOW), "cannot save");
        assert!(inviter.delegations.is_empty());
        inviter.counter = inviter.memory.reserved;
        let network = network(&inviter);
        refused(inviter.sign_liveness_message(network, Presence::Present), "cannot save");
        refused(inviter.certify_wireguard(network, true, SALT, NOW + 60), "cannot save");
        inviter.disk = Box::new(Volatile);
        assert!(inviter.certify_member(&certify(), NOW).is_ok());
    }

    #[test]
    fn a_member_is_extended_without_losing_an_address() {
        let mut inviter = founder();
        let certificate = inviter.certify_member(&certify(), NOW).unwrap();
        inviter.certify_member(&certify_for(&signer(3), many(), 48), NOW).unwrap();
        let ranges = |all: &[u8]| AddressRanges::new(all.iter().map(|last| range(*last)).collect()).unwrap();
        let parent = network(&inviter).into();
        let extend =
            |all: &[u8]| ExtendMember { certificate: certificate.clone(), parent, ranges: ranges(all) };
        refused(inviter.extend_member(&extend(&[32, 16]), false, NOW), "lose addresses");
        refused(inviter.extend_member(&extend(&[32]), false, NOW), "lose addresses");
        refused(inviter.extend_member(&extend(&[16, 48]), false, NOW), "another member holds");
        refused(signer(3).extend_member(&extend(&[16, 32]), false, NOW), "another node");
        let extended = inviter.extend_member(&extend(&[16, 32]), false, NOW).unwrap().unwrap();
        assert_eq!((extended.verify(), extended.value.grant.ranges.size()), (Ok(()), 32));
        assert_eq!(extended.value.grant.subject, test_keys(2).node());
        assert_eq!(extended.value.grant.since, certificate.value.grant.serial);
        refused(inviter.extend_member(&extend(&[16, 64]), false, NOW), "not in force");
    }

    #[test]
    fn joins_are_in_this_nodes_name_only() {
        let signer = signer(2);
        let right = certify().request.body.value;
        let control = signer.keys.control().public();
        assert!(signer.sign_join(&right, &control, NOW).is_ok());
        let own = signer.keys.node();
        let cases = [
            (JoinBody { joiner: NodeId([1; 32]), ..right.clone() }, "another node"),
            (JoinBody { inviter: own, ..right.clone() }, "this node itself"),
            (JoinBody { control: test_keys(1).control().public().hash(), ..right.clone() }, "destination"),
            (JoinBody { issued_at: NOW + NOW_TOLERANCE + 1, ..right.clone() }, "not now"),
        ];
        for (body, reason) in cases {
            refused(signer.sign_join(&body, &control, NOW), reason);
        }
        // Another's destination is not this node's because it is named rightly.
        for others in [test_keys(1).control().public(), test_keys(1).ephemeral([9; 32]).public()] {
            let body = JoinBody { control: others.hash(), ..right.clone() };
            refused(signer.sign_join(&body, &others, NOW), "destination");
            refused(signer.sign_join(&body, &control, NOW), "destination");
        }
        // One in place of the control destination is as good.
        let fallback = signer.keys.ephemeral([9; 32]).public();
        let body = JoinBody { control: fallback.hash(), ..right };
        assert!(signer.sign_join(&body, &fallback, NOW).is_ok());
    }

    #[test]
    fn invites_have_an_end() {
        let signer = signer(1);
        let right = wish(&signer);
        refused(
            signer.create_invite(&CreateInvite { expires_at: NOW, ..right.clone() }, secret(), NOW),
            "expired already",
        );
        let endless = CreateInvite { expires_at: u64::MAX, ..right.clone() };
        refused(signer.create_invite(&endless, secret(), NOW), "366 days");
        let odd = CreateInvite { addresses: 3, ..right };
        refused(signer.create_invite(&odd, secret(), NOW), "power of two");
    }

    #[test]
    fn only_holders_of_own_invites_are_certified() {
        let mut inviter = founder();
        let right = certify();
        refused(signer(3).certify_member(&right, NOW), "another node");
        refused(inviter.certify_member(&right, NOW + 3601), "expired");

        let mut forged = right.clone();
        forged.grant.value.expires_at += 1;
        refused(inviter.certify_member(&forged, NOW), "not its signer's");

        let mut unproven = right.clone();
        unproven.request.proof = Signature([0; 64]);
        refused(inviter.certify_member(&unproven, NOW), "proof of holding");

        let mut unsigned = right.clone();
        unsigned.request.body.signature = Signature([0; 64]);
        refused(inviter.certify_member(&unsigned, NOW), "join request");

        let body = right.request.body.value.clone();
        let with =
            |body: JoinBody, joiner: &Signer| certificate_for(right.grant.clone(), request(body, joiner), 16);
        let wide = AddressRange::new([10, 42, 3, 0].into(), 27).unwrap().into();
        refused(
            inviter.certify_member(&CertifyMember { ranges: wide, ..right.clone() }, NOW),
            "more addresses",
        );
        let joiner = signer(2);
        let elsewhere = JoinBody { network: NetworkId([1; 32]), ..body.clone() };
        refused(inviter.certify_member(&with(elsewhere, &joiner), NOW), "another invite");
        let itself = JoinBody { joiner: inviter.keys.node(), ..body };
        refused(inviter.certify_member(&with(itself, &inviter), NOW), "does not invite itself");
    }

    /// As of a node that has signed a record as the founder.
    fn pinned_signer(seed: u8) -> Signer {
        let mut signer = signer(seed);
        let charter = charter(&signer);
        signer.pin(&charter, &Chain::founder(&charter)).unwrap();
        signer
    }

    #[test]
    fn epochs_go_forward_and_end() {
        let mut signer = pinned_signer(1);
        let network = network(&signer);
        let first = signer.certify_wireguard(network, false, [1; 32], NOW).unwrap().value;
        assert_eq!(first.epoch, WireGuardCertificate::epoch_at(NOW));
        assert!(first.is_valid_at(NOW) && first.is_valid_at(NOW + 29 * 86_400));
        assert!(!first.is_valid_at(NOW + WireGuardCertificate::MAX_AGE + 1));
        let mut signer = Signer::volatile(test_keys(1), signer.remembered());
        assert_eq!(signer.certify_wireguard(network, false, [2; 32], NOW + 3600).unwrap().value, first);
        let second = signer.certify_wireguard(network, true, [2; 32], NOW + 3600).unwrap().value;
        assert_eq!(second.epoch, first.epoch + 60);
        assert_ne!(second.public_key(), first.public_key());
        refused(signer.certify_wireguard(network, true, [3; 32], NOW + 3600), "less than a minute ago");
        for number in 2..5 {
            let next = signer.certify_wireguard(network, true, [number; 32], NOW + 3600 * u64::from(number));
            assert!(next.is_ok());
        }
        assert_eq!(signer.memory.epochs.len(), MAX_EPOCHS);
        let late = NOW + WireGuardCertificate::MAX_AGE + 1;
        refused(signer.lease_wireguard(&network, second.epoch, NOW + 3600 * 5), "not certified");
        refused(signer.lease_wireguard(&network, second.epoch + 60, late + 7200), "over");
        // One that has ended is not certified again.
        let next = signer.certify_wireguard(network, false, [9; 32], late + 86_400).unwrap().value;
        assert_eq!(next.epoch, WireGuardCertificate::epoch_at(late + 86_400));
    }

    /// A process that leases keys in advance holds none that comes into force later.
    #[test]
    fn only_keys_that_were_certified_are_leased() {
        let mut signer = pinned_signer(1);
        let network = network(&signer);
        let certificate = signer.certify_wireguard(network, false, [1; 32], NOW).unwrap().value;
        let first = certificate.epoch;
        let lease = signer.lease_wireguard(&network, first, NOW).unwrap();
        let anchor = lease.anchor;
        assert_eq!((anchor.epoch, anchor.not_after), (first, certificate.not_after));
        assert_eq!(
            (anchor.charter.clone(), &anchor.chain),
            (charter(&signer), &Chain::founder(&anchor.charter))
        );
        assert_eq!(signer.trust_anchor(&network, NOW), Ok(anchor));
        assert!(signer.trust_anchor(&NetworkId([3; 32]), NOW).is_err());
        assert!(signer.lease_wireguard(&NetworkId([3; 32]), first, NOW).is_err());
        for other in (first - 100..first + 100).filter(|epoch| *epoch != first) {
            refused(signer.lease_wireguard(&network, other, NOW), "not certified");
        }
    }

    /// Whoever takes `tund`'s place gets the key in use, and not those of weeks before.
    #[test]
    fn keys_that_are_out_of_use_are_not_leased() {
        const WEEK: u64 = 7 * 86_400;
        let mut signer = pinned_signer(1);
        let network = network(&signer);
        let mut at = Vec::new();
        // The last two in the first minutes of the one before.
        for (seed, now) in [NOW, NOW + WEEK, NOW + 2 * WEEK, NOW + 2 * WEEK + 60].into_iter().enumerate() {
            let salt = [u8::try_from(seed).unwrap(); 32];
            let epoch = signer.certify_wireguard(network, true, salt, now).unwrap().value.epoch;
            let leased = |epoch| signer.lease_wireguard(&network, epoch, now);
            assert!(leased(epoch).is_ok() && at.last().is_none_or(|before| leased(*before).is_ok()));
            at.iter().rev().skip(1).for_each(|older| assert!(leased(*older).is_err()));
            assert_eq!(signer.trust_anchor(&network, now).unwrap().epoch, epoch);
            at.push(epoch);
        }
        let [.., before, newest] = at[..] else { panic!("there are four") };
        let end = WireGuardCertificate::begins_at(newest) + EPOCH_OVERLAP;
        assert!(signer.lease_wireguard(&network, before, end).is_ok());
        refused(signer.lease_wireguard(&network, before, end + 1), "out of use");
        assert!(signer.lease_wireguard(&network, newest, end + 1).is_ok());
    }

    #[test]
    fn tund_is_told_of_the_network_that_the_node_is_in_and_of_what_it_has_revoked() {
        let mut signer = pinned_signer(1);
        let (network, charter) = (network(&signer), charter(&signer));
        let epoch = signer.certify_wireguard(network, false, SALT, NOW).unwrap().value.epoch;
        let founder = Chain::founder(&charter);
        for serial in [7, 8, 7] {
            let invite = i2plan_proto::invite::InviteId([serial; 16]);
            let target = Target::Invite(founder.clone(), invite);
            let revocation = Revocation { issuer: signer.keys.node(), target, issued_at: NOW };
            signer.sign_revocation(&revocation, &charter, NOW).unwrap();
        }
        let revoked = signer.lease_wireguard(&network, epoch, NOW).unwrap().anchor.revoked;
        let invite = |number| Revoked::Invite(i2plan_proto::invite::InviteId([number; 16]));
        assert_eq!(revoked, [invite(7), invite(8)]);
        // Also after a restart, and no longer than the node is in the network.
        let mut again = Signer::volatile(test_keys(1), signer.remembered());
        assert_eq!(again.trust_anchor(&network, NOW).unwrap().revoked, revoked);
        again.sign_resignation(founder, &charter, NOW).unwrap();
        let error = again.lease_wireguard(&network, epoch, NOW).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(again.delegations.revoked().is_empty());
    }

    #[test]
    fn no_more_revocations_are_signed_than_the_disk_has_room_for() {
        let mut signer = pinned_signer(1);
        signer.revocations = MAX_REVOCATIONS;
        let charter = charter(&signer);
        let target = Target::Invite(Chain::founder(&charter), testing::invite(1).id());
        let revocation = Revocation { issuer: signer.keys.node(), target, issued_at: NOW };
        refused(signer.sign_revocation(&revocation, &charter, NOW), "too many");
    }

    #[test]
    fn a_clock_that_was_ahead_locks_nothing_and_its_key_is_not_used_again() {
        let mut signer = signer(1);
        let network = network(&signer);
        let ahead = NOW + 366 * 86_400;
        let first = signer.certify_wireguard(network, false, [1; 32], ahead).unwrap().value;
        let now = signer.certify_wireguard(network, false, [2; 32], NOW).unwrap().value;
        assert_eq!(now.epoch, WireGuardCertificate::epoch_at(NOW));
        let later = signer.certify_wireguard(network, true, [3; 32], ahead).unwrap().value;
        assert_eq!(later.epoch, first.epoch);
        assert_ne!(later.public_key(), first.public_key());
    }

    #[test]
    fn many_networks_leave_no_trace() {
        let mut signer = signer(1);
        for number in 0..100 {
            assert!(signer.certify_wireguard(NetworkId([number; 32]), false, SALT, NOW).is_ok());
        }
        assert_eq!(signer.memory.epochs.len(), 1);
    }
}
