//! Records that are known to be right.

use std::ops::Deref;
use std::sync::Arc;

use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NetworkId, Signed};
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
    fingerprint: u128,
}

impl VerifiedRecord {
    /// Verifies a record for a network.
    ///
    /// # Errors
    /// As [`Signed::<Record>::verify_for`].
    pub fn new(record: Signed<Record>, network: &NetworkId) -> Result<Self, RecordError> {
        record.verify_for(network)?;
        let control = record.value.control.hash();
        let fingerprint = fingerprint(&told(&record.value, None));
        Ok(Self(Arc::new(Content { record, control, fingerprint })))
    }

    /// The hash of the destination where the member takes control messages.
    pub(super) fn control(&self) -> &DestinationHash {
        &self.0.control
    }

    /// The hashes of all destinations from which it may speak: that one, and its home.
    pub(super) fn controls(&self) -> impl Iterator<Item = DestinationHash> {
        [self.0.control].into_iter().chain(self.0.record.value.home.as_ref().map(|home| home.hash()))
    }

    /// What a comparison adds up for it, if the member has given no newer word.
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
