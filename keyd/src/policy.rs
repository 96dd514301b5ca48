//! What is checked before anything is signed.
//!
//! `meshd` faces the network. Whoever takes it over may ask for signatures, but gets them only on what an
//! honest `meshd` of this very node could ask for: nothing in another's name, nothing for a time that is not
//! now, no certificate for anybody but holders of invites that were made here.

use std::collections::HashMap;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd::{CertifyMember, CreateInvite, ExtendMember};
use i2plan_ipc::secret::{SecretKey, SecretText};
use i2plan_proto::accusation::Accusation;
use i2plan_proto::destination::{Destination, DestinationProof, ProvenDestination};
use i2plan_proto::identity::{NetworkId, Signable, Signature, Signed};
use i2plan_proto::invite::{Invite, InviteGrant, InviteSecret};
use i2plan_proto::join::JoinBody;
use i2plan_proto::membership::{Charter, Delegation, Membership};
use i2plan_proto::pulse::Pulse;
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation};
use i2plan_proto::wireguard::WireGuardCertificate;

use crate::keys::Keys;

/// How far a time that is to be signed may be from now, seconds.
const NOW_TOLERANCE: u64 = 10 * 60;

/// Longest life of an invite, seconds.
const MAX_INVITE_LIFE: u64 = 366 * 24 * 60 * 60;

/// Accusations that are signed in a minute. An honest node begins a probe every few seconds at most.
const ACCUSATIONS_PER_MINUTE: u32 = 60;

/// Networks whose newest epoch is remembered.
const MAX_NETWORKS: usize = 16;

/// Signs what may be signed.
#[derive(Debug)]
pub struct Signer {
    keys: Keys,
    /// The highest number that was signed since the start.
    last_number: Option<u64>,
    /// The newest epoch of the WireGuard key that was certified since the start, in each network.
    epochs: HashMap<NetworkId, u32>,
    /// The minute since 1970 in which accusations were signed last, and how many.
    accusations: (u64, u32),
}

impl Signer {
    /// A signer with these keys.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, last_number: None, epochs: HashMap::new(), accusations: (0, 0) }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    fn sign<T: Signable>(&self, value: &T) -> Signature {
        value.sign(&self.keys.identity())
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
        Ok(self.sign(charter))
    }

    /// Signs this node's record, and has the destinations sign that it names.
    ///
    /// # Errors
    /// If it is another's, not for now, older than the one before, or names keys that are not this node's.
    pub fn sign_record(
        &mut self,
        mut record: Record,
        charter: &Charter,
        now: u64,
    ) -> Result<Signed<Record>, ApiError> {
        let network = record.network();
        require(record.node == self.keys.node(), "the record is of another node")?;
        record.verify_parts(charter).map_err(|error| ApiError::denied(error.to_string()))?;
        require(
            self.takes_control_messages_at(&record.control),
            "the record's control destination is not this node's",
        )?;
        // It is always known where this node can be found again.
        let own = self.keys.control().public();
        let primary = (*record.control != own).then_some(own);
        let named = record.primary.as_deref().map(|primary| primary.destination);
        require(named == primary, "the record's primary destination is not the control destination")?;
        require(
            self.keys.is_own_ephemeral(&record.data),
            "the record's data destination is not this node's",
        )?;
        let certificate = &record.wireguard.value;
        require(
            certificate.key.signing_key == self.keys.wireguard(&network, certificate.epoch).signing_key(),
            "the record's WireGuard key is not that of its epoch",
        )?;
        self.check_epoch(&network, certificate.epoch, now)?;
        require(near(record.issued_at, now), "the record's time is not now")?;
        self.check_number(record.sequence, "record", now)?;
        let proven: Vec<ProvenDestination> = record
            .destinations()
            .map(|(destination, role)| {
                let (node, destination) = (record.node, destination.destination);
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
        let signature = self.sign(&record);
        Ok(Signed { value: record, signature })
    }

    /// Records, pulses and certificates are numbered by one counter.
    fn check_number(&mut self, number: u64, what: &str, now: u64) -> Result<(), ApiError> {
        // A counter never comes near the milliseconds since 1970. A number far ahead would leave none for later use.
        let limit = now.saturating_add(NOW_TOLERANCE).saturating_mul(1000);
        let denied = |why: &str| Err(ApiError::denied(format!("the {what}'s number {why}")));
        if number > limit && self.last_number.is_none_or(|last| number != last.saturating_add(1)) {
            return denied("is too far ahead");
        }
        if self.last_number.is_some_and(|last| number <= last) {
            return denied("has been used");
        }
        self.last_number = Some(number);
        Ok(())
    }

    /// Signs this node's word on its own life.
    ///
    /// # Errors
    /// If it is another's, or its sequence number is out of the row.
    pub fn sign_pulse(&mut self, pulse: &Pulse, now: u64) -> Result<Signature, ApiError> {
        require(pulse.node == self.keys.node(), "the pulse is of another node")?;
        self.check_number(pulse.sequence, "pulse", now)?;
        Ok(self.sign(pulse))
    }

    /// Signs that this node cannot reach another.
    ///
    /// # Errors
    /// If it is in another's name, against this node itself, not for now, or one of too many.
    pub fn sign_accusation(&mut self, accusation: &Accusation, now: u64) -> Result<Signature, ApiError> {
        require(accusation.accuser == self.keys.node(), "the accusation is another's")?;
        require(accusation.subject != self.keys.node(), "the accusation is against this node itself")?;
        require(near(accusation.issued_at, now), "the accusation's time is not now")?;
        let minute = now / 60;
        if self.accusations.0 != minute {
            self.accusations = (minute, 0);
        }
        require(self.accusations.1 < ACCUSATIONS_PER_MINUTE, "too many accusations are to be signed")?;
        self.accusations.1 += 1;
        Ok(self.sign(accusation))
    }

    /// Signs the end of another's membership.
    ///
    /// # Errors
    /// If it is in another's name, not for now, or this node may not.
    pub fn sign_revocation(
        &self,
        revocation: &Revocation,
        charter: &Charter,
        now: u64,
    ) -> Result<Signature, ApiError> {
        require(revocation.issuer == self.keys.node(), "the revocation is another's")?;
        require(
            revocation.is_entitled(),
            "only the network's founder and a member's inviters can revoke its membership",
        )?;
        revocation.target.chain().verify(charter).map_err(|error| ApiError::denied(error.to_string()))?;
        require(near(revocation.issued_at, now), "the revocation's time is not now")?;
        Ok(self.sign(revocation))
    }

    /// Signs that this node leaves a network.
    ///
    /// # Errors
    /// If it is in another's name.
    pub fn sign_resignation(
        &self,
        resignation: &Resignation,
        charter: &Charter,
    ) -> Result<Signature, ApiError> {
        require(*resignation.chain.subject() == self.keys.node(), "the resignation is another's")?;
        resignation.chain.verify(charter).map_err(|error| ApiError::denied(error.to_string()))?;
        Ok(self.sign(resignation))
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
        Ok(self.sign(body))
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
            subnet: wish.subnet,
            inviter: self.keys.node(),
            control: self.keys.control().public().hash(),
            secret,
            expires_at: wish.expires_at,
        };
        let signature = self.sign(&grant);
        Ok((SecretText::new(invite.to_code().to_string()), Signed { value: grant, signature }))
    }

    /// Certifies the holder of an invite that was made here.
    ///
    /// # Errors
    /// If the grant is not this node's or has expired, the request is not by a holder of that invite, or more addresses
    /// are to be delegated than the invite is for.
    pub fn certify_member(
        &mut self,
        certify: &CertifyMember,
        now: u64,
    ) -> Result<Signed<Membership>, ApiError> {
        let grant = &certify.grant.value;
        let body = &certify.request.body.value;
        require(grant.inviter == self.keys.node(), "the invite was made by another node")?;
        certify.grant.verify().map_err(|error| ApiError::denied(error.to_string()))?;
        require(now <= grant.expires_at, "the invite has expired")?;
        let same = body.invite == grant.key && body.network == grant.network && body.inviter == grant.inviter;
        require(same, "the join request is for another invite")?;
        certify.request.verify().map_err(|error| ApiError::denied(error.to_string()))?;
        require(body.joiner != self.keys.node(), "this node does not invite itself")?;
        require(
            certify.ranges.size() <= grant.addresses.into(),
            "the certificate delegates more addresses than the invite is for",
        )?;
        self.check_number(certify.serial, "certificate", now)?;
        let membership = Membership {
            network: grant.network,
            parent: certify.parent,
            issuer: self.keys.node(),
            grant: Delegation {
                subject: body.joiner,
                invite: grant.key.id(),
                ranges: certify.ranges.clone(),
                serial: certify.serial,
                since: certify.serial,
                replaces: certify.replaces,
                issued_at: now,
            },
        };
        let signature = self.sign(&membership);
        Ok(Signed { value: membership, signature })
    }

    /// Certifies a member again with more addresses.
    ///
    /// # Errors
    /// If its certificate until now is not this node's, or its address would change or some of its addresses be lost.
    pub fn extend_member(&mut self, extend: &ExtendMember, now: u64) -> Result<Signed<Membership>, ApiError> {
        let before = &extend.certificate.value;
        require(before.issuer == self.keys.node(), "the member was certified by another node")?;
        extend.certificate.verify().map_err(|error| ApiError::denied(error.to_string()))?;
        require(
            extend.ranges.address() == before.grant.ranges.address()
                && before.grant.ranges.iter().all(|range| extend.ranges.cover(range)),
            "the member would lose addresses",
        )?;
        self.check_number(extend.serial, "certificate", now)?;
        let grant = Delegation {
            ranges: extend.ranges.clone(),
            serial: extend.serial,
            issued_at: now,
            ..before.grant.clone()
        };
        let membership = Membership { parent: extend.parent, grant, ..before.clone() };
        let signature = self.sign(&membership);
        Ok(Signed { value: membership, signature })
    }

    /// Certifies the WireGuard key of an epoch, or of one that begins now.
    ///
    /// # Errors
    /// If the epoch has not begun, is over, or a newer one has been certified: then a key that may have been stolen
    /// is not brought back.
    pub fn certify_wireguard(
        &mut self,
        network: NetworkId,
        epoch: Option<u32>,
        now: u64,
    ) -> Result<Signed<WireGuardCertificate>, ApiError> {
        let newest = self.newest_epoch(&network, now);
        let epoch = epoch.unwrap_or_else(|| WireGuardCertificate::epoch_at(now).max(newest.unwrap_or(0)));
        self.check_epoch(&network, epoch, now)?;
        require(
            self.epochs.contains_key(&network) || self.epochs.len() < MAX_NETWORKS,
            "keys for too many networks were certified",
        )?;
        self.epochs.insert(network, epoch);
        let begins = WireGuardCertificate::begins_at(epoch);
        let key = self.keys.wireguard(&network, epoch).proven(network, self.keys.node());
        let certificate = WireGuardCertificate {
            network,
            node: self.keys.node(),
            key,
            epoch,
            not_before: begins,
            not_after: begins.saturating_add(WireGuardCertificate::MAX_AGE),
        };
        let signature = self.sign(&certificate);
        Ok(Signed { value: certificate, signature })
    }

    /// The WireGuard private key of an epoch.
    ///
    /// # Errors
    /// As [`Signer::certify_wireguard`]: `tund` has a use for no other.
    pub fn lease_wireguard(&self, network: &NetworkId, epoch: u32, now: u64) -> Result<SecretKey, ApiError> {
        self.check_epoch(network, epoch, now)?;
        Ok(self.keys.wireguard_private(network, epoch))
    }

    /// The newest epoch that was certified. One that has not begun comes of a clock that was ahead, and is no reason
    /// to refuse what the clock says now.
    fn newest_epoch(&self, network: &NetworkId, now: u64) -> Option<u32> {
        self.epochs.get(network).copied().filter(|epoch| has_begun(*epoch, now))
    }

    fn check_epoch(&self, network: &NetworkId, epoch: u32, now: u64) -> Result<(), ApiError> {
        require(has_begun(epoch, now), "the WireGuard key's epoch has not begun")?;
        let end = WireGuardCertificate::begins_at(epoch).saturating_add(WireGuardCertificate::MAX_AGE);
        require(now <= end, "the WireGuard key's epoch is over")?;
        require(
            self.newest_epoch(network, now).is_none_or(|newest| epoch >= newest),
            "a newer WireGuard key has been certified",
        )
    }
}

fn has_begun(epoch: u32, now: u64) -> bool {
    WireGuardCertificate::begins_at(epoch) <= now.saturating_add(NOW_TOLERANCE)
}

fn require(holds: bool, otherwise: &str) -> Result<(), ApiError> {
    if holds { Ok(()) } else { Err(ApiError::denied(format!("keyd does not sign this: {otherwise}"))) }
}

fn near(time: u64, now: u64) -> bool {
    time.abs_diff(now) <= NOW_TOLERANCE
}

#[cfg(test)]
mod tests {
    use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
    use i2plan_proto::identity::{NodeId, SelfSigned};
    use i2plan_proto::invite::Uses;
    use i2plan_proto::join::JoinRequest;
    use i2plan_proto::membership::Chain;
    use i2plan_proto::revocation::Target;

    use super::*;
    use crate::keys::test_keys;

    const NOW: u64 = 1_800_000_000;

    fn signer(seed: u8) -> Signer {
        Signer::new(test_keys(seed))
    }

    fn charter(signer: &Signer) -> Charter {
        Charter { founder: signer.keys.node(), subnet: Ipv4Subnet::DEFAULT, founded_at: NOW, nonce: [7; 16] }
    }

    fn network(signer: &Signer) -> NetworkId {
        charter(signer).network()
    }

    fn certificate(signer: &Signer, network: NetworkId) -> Signed<WireGuardCertificate> {
        Signer::new(signer.keys.clone()).certify_wireguard(network, None, NOW).unwrap()
    }

    fn record(signer: &Signer) -> Record {
        Record {
            node: signer.keys.node(),
            sequence: 5,
            issued_at: NOW,
            name: "n".parse().unwrap(),
            control: ProvenDestination::unproven(signer.keys.control().public()),
            primary: None,
            data: ProvenDestination::unproven(signer.keys.ephemeral([7; 32]).public()),
            wireguard: certificate(signer, network(signer)),
            chain: Chain::founder(&charter(signer)),
        }
    }

    fn wish(signer: &Signer) -> CreateInvite {
        let subnet = Ipv4Subnet::DEFAULT;
        let (network, expires_at) = (network(signer), NOW + 3600);
        CreateInvite { network, subnet, expires_at, uses: Uses::Unlimited, addresses: 16 }
    }

    fn secret() -> InviteSecret {
        InviteSecret([9; 32])
    }

    /// Node 2 asks node 1 with an invite of node 1.
    fn certify() -> CertifyMember {
        let (inviter, joiner) = (signer(1), signer(2));
        let (_, grant) = inviter.create_invite(&wish(&inviter), secret(), NOW).unwrap();
        let body = JoinBody {
            network: network(&inviter),
            inviter: inviter.keys.node(),
            invite: secret().key(),
            joiner: joiner.keys.node(),
            control: joiner.keys.control().public().hash(),
            issued_at: NOW,
        };
        certificate_for(grant, request(body, &joiner), 1)
    }

    fn certificate_for(grant: Signed<InviteGrant>, request: JoinRequest, serial: u64) -> CertifyMember {
        let ranges = AddressRange::new([10, 42, 3, 16].into(), 28).unwrap().into();
        let parent = grant.value.network.into();
        CertifyMember { grant, request, parent, ranges, serial, replaces: false }
    }

    fn request(body: JoinBody, joiner: &Signer) -> JoinRequest {
        let proof = body.prove(&secret().signing_key());
        let signature = body.sign(&joiner.keys.identity());
        JoinRequest { body: Signed { value: body, signature }, proof }
    }

    fn refused<T>(result: Result<T, ApiError>, reason: &str) {
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
        assert_eq!(charter.verify(charter.signer(), &signature), Ok(()));
        let record = record(&signer);
        assert_eq!(signer.sign_record(record, &charter, NOW).unwrap().verify_for(&charter), Ok(()));
        let certificate = signer.certify_member(&CertifyMember { serial: 6, ..certify() }, NOW).unwrap();
        assert_eq!(certificate.verify(), Ok(()));
        assert_eq!(certificate.value.grant.subject, test_keys(2).node());
        let resignation = Resignation { chain: Chain::founder(&charter), last_serial: 6, issued_at: NOW };
        let signature = signer.sign_resignation(&resignation, &charter).unwrap();
        assert_eq!(Signed { value: resignation, signature }.verify_for(&charter), Ok(()));
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
        let other = signer(2);
        let mut signer = signer(1);
        let charter = charter(&signer);
        let right = record(&signer);
        let unproven = |keys: &crate::keys::DestinationKeys| ProvenDestination::unproven(keys.public());
        let with = |change: &dyn Fn(&mut Record)| {
            let mut record = right.clone();
            change(&mut record);
            record
        };
        let others = Charter { founder: other.keys.node(), ..charter.clone() };
        let cases: [(Record, &str); 7] = [
            (with(&|record| record.node = other.keys.node()), "another node"),
            (with(&|record| record.chain = Chain::founder(&others)), "belongs to another"),
            (with(&|record| record.control = unproven(other.keys.control())), "control destination"),
            (with(&|record| record.data = unproven(&other.keys.ephemeral([7; 32]))), "data destination"),
            (with(&|record| record.wireguard = certificate(&other, network(&signer))), "belongs to another"),
            (with(&|record| record.issued_at = NOW - NOW_TOLERANCE - 1), "not now"),
            (with(&|record| record.sequence = u64::MAX - 1), "too far ahead"),
        ];
        for (record, reason) in cases {
            refused(signer.sign_record(record, &charter, NOW), reason);
        }
        // A certificate that this node signed, but for a key that is not the current one.
        let mut stale = right.clone();
        let theirs = test_keys(2).wireguard(&network(&signer), 1);
        stale.wireguard.value.key = theirs.proven(network(&signer), signer.keys.node());
        stale.wireguard.signature = stale.wireguard.value.sign(&signer.keys.identity());
        refused(signer.sign_record(stale, &charter, NOW), "not that of its epoch");
        refused(signer.sign_record(right.clone(), &others, NOW), "another node or network");
        // One in place of the control destination is as good.
        let substitute = with(&|record| {
            record.primary = Some(Box::new(record.control));
            record.control = unproven(&test_keys(1).ephemeral([9; 32]));
        });
        for (control, primary) in [
            (right.control, Some(right.control)),
            (substitute.control, None),
            (substitute.control, Some(substitute.control)),
            (substitute.control, Some(unproven(other.keys.control()))),
        ] {
            let wrong = Record { control, primary: primary.map(Box::new), ..right.clone() };
            refused(signer.sign_record(wrong, &charter, NOW), "primary");
        }
        let signed = signer.sign_record(substitute, &charter, NOW).unwrap();
        assert_eq!(signed.verify_for(&charter), Ok(()));
    }

    #[test]
    fn sequence_numbers_only_grow() {
        let mut signer = signer(1);
        let charter = charter(&signer);
        let first = record(&signer);
        let numbered = |sequence| Record { sequence, ..first.clone() };
        signer.sign_record(numbered(5), &charter, NOW).unwrap();
        refused(signer.sign_record(numbered(5), &charter, NOW), "has been used");
        signer.sign_record(numbered(6), &charter, NOW).unwrap();
        refused(signer.sign_record(numbered(4), &charter, NOW), "has been used");
        // Certificates count too.
        refused(signer.certify_member(&CertifyMember { serial: 6, ..certify() }, NOW), "has been used");
        signer.certify_member(&CertifyMember { serial: 7, ..certify() }, NOW).unwrap();
        refused(signer.sign_record(numbered(7), &charter, NOW), "has been used");
    }

    #[test]
    fn pulses_are_of_this_node_and_in_the_row_of_its_records() {
        let mut signer = signer(1);
        let charter = charter(&signer);
        let record = record(&signer);
        signer.sign_record(record.clone(), &charter, NOW).unwrap();
        let right = Pulse {
            network: record.network(),
            node: record.node,
            sequence: record.sequence + 1,
            life: i2plan_proto::pulse::Life::Away,
        };
        refused(signer.sign_pulse(&Pulse { node: NodeId([1; 32]), ..right.clone() }, NOW), "another node");
        refused(signer.sign_pulse(&Pulse { sequence: record.sequence, ..right.clone() }, NOW), "been used");
        refused(signer.sign_pulse(&Pulse { sequence: u64::MAX, ..right.clone() }, NOW), "too far ahead");
        let signature = signer.sign_pulse(&right, NOW).unwrap();
        assert_eq!(Signed { value: right.clone(), signature }.verify(), Ok(()));
        refused(signer.sign_pulse(&right, NOW), "been used");
        let late = Record { sequence: right.sequence, ..record };
        refused(signer.sign_record(late, &charter, NOW), "been used");
    }

    #[test]
    fn accusations_are_this_nodes_own_and_few() {
        let mut signer = signer(1);
        let right = Accusation {
            network: NetworkId([1; 32]),
            accuser: signer.keys.node(),
            subject: NodeId([2; 32]),
            sequence: 7,
            issued_at: NOW,
        };
        let cases = [
            (Accusation { accuser: NodeId([3; 32]), ..right.clone() }, "another's"),
            (Accusation { subject: signer.keys.node(), ..right.clone() }, "this node itself"),
            (Accusation { issued_at: NOW - NOW_TOLERANCE - 1, ..right.clone() }, "not now"),
        ];
        for (accusation, reason) in cases {
            refused(signer.sign_accusation(&accusation, NOW), reason);
        }
        for _ in 0..ACCUSATIONS_PER_MINUTE {
            assert!(signer.sign_accusation(&right, NOW).is_ok());
        }
        refused(signer.sign_accusation(&right, NOW), "too many");
        assert!(signer.sign_accusation(&right, NOW + 60).is_ok());
    }

    #[test]
    fn revocations_are_for_inviters() {
        let (mut founder, member) = (signer(1), signer(2));
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
        let resignation = Resignation { chain, last_serial: 0, issued_at: NOW };
        refused(founder.sign_resignation(&resignation, &charter), "another's");
        assert!(member.sign_resignation(&resignation, &charter).is_ok());
    }

    #[test]
    fn a_member_is_extended_without_losing_an_address() {
        let mut inviter = signer(1);
        let certificate = inviter.certify_member(&certify(), NOW).unwrap();
        let range = |last: u8| AddressRange::new([10, 42, 3, last].into(), 28).unwrap();
        let ranges = |all: &[u8]| AddressRanges::new(all.iter().map(|last| range(*last)).collect()).unwrap();
        let parent = network(&inviter).into();
        let extend = |all: &[u8], serial| ExtendMember {
            certificate: certificate.clone(),
            parent,
            ranges: ranges(all),
            serial,
        };
        let extended = inviter.extend_member(&extend(&[16, 32], 9), NOW).unwrap();
        assert_eq!((extended.verify(), extended.value.grant.ranges.size()), (Ok(()), 32));
        assert_eq!(extended.value.grant.subject, test_keys(2).node());
        refused(inviter.extend_member(&extend(&[32, 16], 10), NOW), "lose addresses");
        refused(inviter.extend_member(&extend(&[32], 10), NOW), "lose addresses");
        refused(inviter.extend_member(&extend(&[16, 32], 9), NOW), "has been used");
        refused(signer(3).extend_member(&extend(&[16, 32], 10), NOW), "another node");
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
        let substitute = signer.keys.ephemeral([9; 32]).public();
        let body = JoinBody { control: substitute.hash(), ..right };
        assert!(signer.sign_join(&body, &substitute, NOW).is_ok());
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
        let mut inviter = signer(1);
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
            |body: JoinBody, joiner: &Signer| certificate_for(right.grant.clone(), request(body, joiner), 1);
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

    #[test]
    fn epochs_go_forward_and_end() {
        let mut signer = signer(1);
        let network = network(&signer);
        let first = signer.certify_wireguard(network, None, NOW).unwrap().value;
        assert_eq!(first.epoch, WireGuardCertificate::epoch_at(NOW));
        assert!(first.is_valid_at(NOW) && first.is_valid_at(NOW + 29 * 86_400));
        assert!(!first.is_valid_at(NOW + WireGuardCertificate::MAX_AGE + 1));
        assert_eq!(signer.certify_wireguard(network, Some(first.epoch), NOW + 3600).unwrap().value, first);
        let second = signer.certify_wireguard(network, None, NOW + 3600).unwrap().value;
        assert_eq!(second.epoch, first.epoch + 60);
        assert_ne!(second.public_key(), first.public_key());

        let ahead = WireGuardCertificate::epoch_at(NOW + 3600 + 2 * NOW_TOLERANCE);
        let over = first.epoch - 31 * 24 * 60;
        for (epoch, reason) in [(first.epoch, "newer"), (ahead, "not begun"), (over, "over")] {
            refused(signer.certify_wireguard(network, Some(epoch), NOW + 3600), reason);
            refused(signer.lease_wireguard(&network, epoch, NOW + 3600), reason);
        }
        assert!(signer.lease_wireguard(&network, second.epoch, NOW + 3600).is_ok());
        // Nor does a record bring the first one back.
        let mut old = record(&signer);
        old.issued_at = NOW + 3600;
        refused(signer.sign_record(old, &charter(&signer), NOW + 3600), "newer");
    }

    #[test]
    fn a_clock_that_was_ahead_locks_nothing() {
        let mut signer = signer(1);
        let network = network(&signer);
        signer.certify_wireguard(network, None, NOW + 366 * 86_400).unwrap();
        let now = signer.certify_wireguard(network, None, NOW).unwrap().value;
        assert_eq!(now.epoch, WireGuardCertificate::epoch_at(NOW));
    }
}
