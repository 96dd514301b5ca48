//! Records that are known to be right.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::Arc;

use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signature, Signed};
use i2plan_proto::membership::{CertificateId, Charter};
use i2plan_proto::record::{Record, RecordError};

use super::compare::{fingerprint, told};

/// A record whose signatures have been verified, of a member of the network that it names. It cannot be changed, and
/// its clones share it: what was verified once need not be again, however often it is handed on within the process.
#[derive(Debug, Clone)]
pub struct VerifiedRecord(Arc<Content>);

#[derive(Debug)]
struct Content {
    record: Signed<Record>,
    /// Derived once, because they are asked for often.
    control: DestinationHash,
    primary: Option<DestinationHash>,
    fingerprint: u128,
    wireguard: [u8; 32],
    ipv4: Ipv4Addr,
}

impl VerifiedRecord {
    /// Verifies a record for the network of a charter.
    ///
    /// # Errors
    /// As [`Signed::<Record>::verify_for`].
    pub fn new(record: Signed<Record>, charter: &Charter) -> Result<Self, RecordError> {
        Self::new_except(record, charter, None, |_, _| false)
    }

    /// As [`VerifiedRecord::new`], without what was verified before.
    ///
    /// # Errors
    /// As [`Signed::<Record>::verify_except`].
    pub(super) fn new_except(
        record: Signed<Record>,
        charter: &Charter,
        before: Option<&Self>,
        is_known: impl Fn(&CertificateId, &Signature) -> bool,
    ) -> Result<Self, RecordError> {
        record.verify_except(charter, before.map(|before| &before.value), is_known)?;
        let control = record.value.control.hash();
        let fingerprint = fingerprint(&told(&record.value, None));
        let ipv4 = record.value.ipv4(charter);
        let primary = record.value.primary.as_ref().map(|primary| primary.hash());
        let wireguard = record.value.wireguard.value.public_key();
        Ok(Self(Arc::new(Content { record, control, primary, fingerprint, wireguard, ipv4 })))
    }

    /// The member's address.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.0.ipv4
    }

    /// The member's X25519 public key. To derive it from what the record says takes tens of microseconds.
    pub(super) fn wireguard_key(&self) -> [u8; 32] {
        self.0.wireguard
    }

    /// The hash of the destination where the member takes control messages.
    pub(super) fn control(&self) -> &DestinationHash {
        &self.0.control
    }

    /// The hashes of all destinations from which it may speak: that one, and its primary destination.
    pub(super) fn controls(&self) -> impl Iterator<Item = DestinationHash> {
        [self.0.control].into_iter().chain(self.0.primary)
    }

    /// What a comparison adds up for it, if the member has made no newer statement.
    pub(super) fn fingerprint(&self) -> u128 {
        self.0.fingerprint
    }
}

impl Deref for VerifiedRecord {
    type Target = Signed<Record>;

    fn deref(&self) -> &Signed<Record> {
        &self.0.record
    }
}

impl PartialEq for VerifiedRecord {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.record == other.0.record
    }
}

impl Eq for VerifiedRecord {}

/// A member with whom there may be a tunnel, as `tund` is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The member.
    pub node: NodeId,
    /// Its newest record.
    pub record: VerifiedRecord,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
}

impl Peer {
    /// Its WireGuard key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.record.wireguard_key()
    }

    /// Its address.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.record.ipv4()
    }

    /// Where it takes WireGuard packets.
    #[must_use]
    pub fn endpoint(&self) -> Destination {
        *self.record.value.data
    }
}
