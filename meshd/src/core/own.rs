//! This node's own word: its record with its WireGuard key, and its pulses.

use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::meshd::What;
use i2plan_ipc::api::{keyd, meshd};
use i2plan_ipc::rate::Quota;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::message::{Entry, Item};
use i2plan_proto::pulse::{Life, Pulse};
use i2plan_proto::record::Record;
use i2plan_proto::wireguard::WireGuardCertificate;
use tracing::{debug, info};

use super::rumors::Topic;
use super::{CLOCK_TOLERANCE, CommandId, KEYD_RETRY, Mesh, Now, Pending, Refresh};

/// How long an epoch of the WireGuard key lasts. Its certificate is good for longer
/// ([`WireGuardCertificate::MAX_AGE`]): for a node whose `meshd` is away meanwhile.
pub(super) const ROTATE_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the own record is signed anew, so that members can tell a living record from an old one.
const REFRESH_EVERY: Duration = Duration::from_secs(12 * 3600);

/// How often this node answers that others could not reach it: no oftener than the others pass on what changes. Two liars
/// could have it sign, save and tell answers without end.
const ANSWERS: Quota = Quota::every(Duration::from_secs(15), 4);

/// Why this node has `keyd` sign a liveness message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LivenessReason {
    /// Others suspect it, and it is there.
    Suspected,
    /// It shuts down.
    ShuttingDown,
}

impl Mesh {
    /// A user wants a new WireGuard key.
    pub fn rotate_key(&mut self, command: CommandId, now: Now) {
        let refused = if self.membership.is_none() {
            Some(ApiError::conflict("this node is in no network, and so has no WireGuard key"))
        } else if self.own.is_none() {
            Some(
                ApiError::unavailable("this node has not published its first WireGuard key yet")
                    .with_hint("see that its I2P sessions are up, then try again"),
            )
        } else if self.rotating.is_some() {
            Some(ApiError::conflict("the WireGuard key is being rotated already"))
        } else if self.epoch() >= Some(WireGuardCertificate::epoch_at(now.unix.as_secs())) {
            Some(
                ApiError::conflict("the WireGuard key was rotated less than a minute ago")
                    .with_hint("an epoch lasts a minute at least; try again after that"),
            )
        } else {
            None
        };
        if let Some(error) = refused {
            return self.answer(command, Err(error));
        }
        self.rotate = true;
        self.rotating = Some(command);
        match self.refresh {
            Refresh::Running => self.stale = true,
            Refresh::Due(_) | Refresh::Waiting => self.start_refresh(),
        }
    }

    /// Begins to renew the own record: first the certificate, then the record.
    pub(super) fn start_refresh(&mut self) {
        let (Some(network), Some(_)) = (self.network(), self.data) else {
            self.refresh = Refresh::Waiting;
            return;
        };
        self.refresh = Refresh::Running;
        let rotate = self.rotate;
        self.ask(Pending::WireGuard, keyd::Request::CertifyWireGuard { network, rotate });
    }

    pub(super) fn sign_record(&mut self, wireguard: Signed<WireGuardCertificate>) {
        let control = self.control();
        let (Some(membership), Some(data)) = (&mut self.membership, self.data) else { return };
        let epoch = wireguard.value.epoch;
        if membership.epoch.replace(epoch) != Some(epoch) {
            info!(epoch, "a new epoch of the WireGuard key begins");
            self.rotate = false;
            // For tund, which goes on accepting the key before for a while.
            self.peers_version += 1;
        }
        let (charter, chain) = (membership.charter.value.clone(), membership.chain.clone());
        let name = self.settings.name.clone();
        // The epoch is on disk before anybody sees it.
        self.unsaved = true;
        let record = keyd::NewRecord { charter, chain, name, control, data, wireguard };
        self.ask(Pending::Record, keyd::Request::SignRecord(Box::new(record)));
    }

    pub(super) fn publish(&mut self, record: Signed<Record>, now: Now) {
        // At least a while, so that clocks that disagree do not make a busy loop.
        let next =
            until_rotation(record.value.wireguard.value.epoch, now).clamp(KEYD_RETRY * 12, REFRESH_EVERY);
        let next = if std::mem::take(&mut self.stale) { Duration::ZERO } else { next };
        self.refresh = Refresh::Due(now.monotonic + next);
        if !self.rotate
            && let Some(command) = self.rotating.take()
        {
            let key = describe_key(&record.value.wireguard.value);
            self.answer(command, Ok(meshd::Reply::Rotated(key)));
        }
        let epoch = record.value.wireguard.value.epoch;
        if self.own.as_ref().is_some_and(|before| before.value.wireguard.value.epoch != epoch) {
            self.events.push(What::KeyRotated { epoch });
        }
        let (node, sequence) = (record.value.node, record.value.sequence);
        self.note_number(sequence);
        self.members.set_own(Entry { node, record: sequence, pulse: 0, ended: false });
        self.own = Some(record);
        self.own_pulse = None;
        self.is_suspected = false;
        self.announcer.news(now.monotonic);
        if self.joining.is_some()
            && let Some(network) = self.network_status(now)
        {
            self.end_join(Ok(network));
        }
        self.gossip(now);
    }

    /// The sequence number of this node's last word, once there is one.
    pub(super) fn local_sequence(&self) -> Option<u64> {
        let pulse = self.own_pulse.as_ref().map(|pulse| pulse.value.sequence);
        self.own.as_ref().map(|record| record.value.sequence).max(pulse)
    }

    /// Others could not reach this node after its word with this number: it gives another.
    pub(super) fn handle_suspicion(&mut self, accuser: NodeId, accused: u64, now: Now) {
        // A record that is being signed does as well.
        let signing = matches!(self.refresh, Refresh::Running)
            || self.pending.values().any(|pending| matches!(pending, Pending::Pulse(..)));
        let Some(word) = self.local_sequence().filter(|word| !signing && *word <= accused) else { return };
        if self.members.accuse_own(accuser, accused, word, now.monotonic) {
            self.is_suspected = true;
            self.refute(now);
        }
    }

    /// Says that this node is there, if enough say that it is not, and it has not said so too often.
    pub(super) fn refute(&mut self, now: Now) {
        if self.is_suspected && self.answers.try_take(ANSWERS, now.monotonic) {
            self.is_suspected = false;
            // Whoever it is that wonders hears it first, and so do all others.
            debug!("others could not reach this node: it says that it is there");
            self.sign_pulse(Life::Present, LivenessReason::Suspected);
        }
    }

    /// Has a word on this node's own life signed. False if it is in no network.
    pub(super) fn sign_pulse(&mut self, life: Life, why: LivenessReason) -> bool {
        let Some(network) = self.network() else { return false };
        self.ask(Pending::Pulse(why), keyd::Request::SignPulse { network, life });
        true
    }

    /// `keyd` has given out this number.
    fn note_number(&mut self, number: u64) {
        self.counter = self.counter.max(number);
        // What others are told of this node's own is no news to it after a restart.
        self.unsaved = true;
    }

    /// A word on this node's own life is signed.
    pub(super) fn handle_liveness_message(&mut self, pulse: Signed<Pulse>, why: LivenessReason, now: Now) {
        self.note_number(pulse.value.sequence);
        match why {
            LivenessReason::Suspected => {
                let Some(record) = self.own.as_ref().map(|own| own.value.sequence) else { return };
                let sequence = pulse.value.sequence;
                self.members.set_own(Entry { node: self.me.node, record, pulse: sequence, ended: false });
                self.own_pulse = Some(pulse);
                self.rumors.add(Topic::Pulse(self.me.node), None, now.monotonic);
                self.gossip(now);
            }
            LivenessReason::ShuttingDown => {
                self.bid_farewell(&Item::Pulse(pulse), now);
                self.shut_down = true;
            }
        }
    }
}

/// Whether a record that this node has signed is of a time that is still to come, or so old that it must have been
/// signed again since.
pub(super) fn is_of_another_time(record: &Record, now: Now) -> bool {
    let latest = (now.unix + CLOCK_TOLERANCE).as_secs();
    let certificate = &record.wireguard.value;
    let (ahead, behind) = (record.issued_at.max(certificate.not_before), record.issued_at);
    ahead > latest || behind.saturating_add(2 * REFRESH_EVERY.as_secs()) < now.unix.as_secs()
}

/// A WireGuard key and its certificate, for users.
#[must_use]
pub fn describe_key(certificate: &WireGuardCertificate) -> meshd::WireGuardKey {
    meshd::WireGuardKey {
        public_key: data_encoding::BASE64.encode(&certificate.public_key()),
        epoch: certificate.epoch,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
    }
}

/// How long until an epoch is over; nothing for one that begins in the future, as after a clock was set back.
pub(super) fn until_rotation(epoch: u32, now: Now) -> Duration {
    let began = Duration::from_secs(WireGuardCertificate::begins_at(epoch));
    if began > now.unix + CLOCK_TOLERANCE {
        return Duration::ZERO;
    }
    (began + ROTATE_EVERY).saturating_sub(now.unix)
}
