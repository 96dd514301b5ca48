//! What this node publishes: its record with its WireGuard key, and its liveness messages.

use std::ops::ControlFlow;
use std::time::Duration;

use i2plan_ipc::api::meshd::EventKind;
use i2plan_ipc::api::{keyd, meshd};
use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_ipc::version::utc;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::message::{Entry, Item};
use i2plan_proto::record::Record;
use i2plan_proto::wireguard::WireGuardCertificate;
use tracing::{debug, info};

use super::context::Context;
use super::error::MeshError;
use super::local_member::LocalMember;
use super::requests::{KEYD_RETRY, Pending};
use super::rumors::Topic;
use super::situation::Standing;
use super::{CommandId, Now};

/// How long an epoch of the WireGuard key lasts. Its certificate is good for longer
/// ([`WireGuardCertificate::MAX_AGE`]): for a node whose `meshd` is away meanwhile.
pub(super) const ROTATE_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the own record is signed anew, so that members can tell a living record from an old one.
const REFRESH_EVERY: Duration = Duration::from_secs(12 * 3600);

/// How often this node answers that others could not reach it: no oftener than the others pass on what changes. Two liars
/// could have it sign, save and tell answers without end.
const ANSWERS: Quota = Quota::every(Duration::from_secs(15), 4);

/// How far ahead the beginning of the own epoch may be, as `keyd` has it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10 * 60);

/// Why this node has `keyd` sign a liveness message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LivenessReason {
    /// Others suspect it, and it is there.
    Suspected,
    /// It shuts down.
    ShuttingDown,
}

/// This node's record on its way through `keyd`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refresh {
    /// Due at this monotonic time.
    Due(Duration),
    /// Due when the session for data is open.
    #[default]
    Waiting,
    /// `keyd` is at it.
    Running,
}

/// What this node says of itself.
#[derive(Debug, Default)]
pub(super) struct Publication {
    /// Its record, once there is one.
    pub(super) record: Option<Signed<Record>>,
    /// Its last liveness message, if that is newer than the record.
    pub(super) liveness: Option<Signed<LivenessMessage>>,
    /// Enough say that this node is not there, and it has not answered yet.
    is_suspected: bool,
    /// How often it has.
    answers: Bucket,
    pub(super) refresh: Refresh,
    /// The record that `keyd` is signing is out of date already.
    pub(super) stale: bool,
    /// The next certificate is to begin a new epoch of the WireGuard key.
    pub(super) rotate: bool,
    /// Who has asked for that, and is answered when it is published.
    pub(super) rotating: Option<CommandId>,
}

impl Publication {
    /// The certificate of the WireGuard key in the record.
    pub(super) fn certificate(&self) -> Option<&WireGuardCertificate> {
        self.record.as_ref().map(|record| &record.value.wireguard.value)
    }

    /// The WireGuard key in the record.
    pub(super) fn key(&self) -> Option<[u8; 32]> {
        self.certificate().map(WireGuardCertificate::public_key)
    }

    /// The record is to be signed anew at this monotonic time.
    pub(super) fn renew_at(&mut self, at: Duration) {
        match self.refresh {
            Refresh::Running => self.stale = true,
            Refresh::Due(_) => self.refresh = Refresh::Due(at),
            Refresh::Waiting => {}
        }
    }
}

impl Context {
    /// `keyd` has given out this number.
    fn note_number(&mut self, number: u64) {
        self.counter = self.counter.max(number);
        // What others are told of this node's own is no news to it after a restart.
        self.unsaved = true;
    }
}

impl LocalMember {
    /// A user wants a new WireGuard key.
    pub(super) fn rotate_key(&mut self, cx: &mut Context, command: CommandId, now: Now) {
        let refused = if self.publication.record.is_none() {
            Some(MeshError::NoKey)
        } else if self.publication.rotating.is_some() {
            Some(MeshError::Rotating)
        } else if self.membership.epoch >= Some(WireGuardCertificate::epoch_at(now.unix.as_secs())) {
            Some(MeshError::RotatedJustNow)
        } else {
            None
        };
        if let Some(error) = refused {
            return cx.answer(command, Err(error));
        }
        self.publication.rotate = true;
        self.publication.rotating = Some(command);
        self.renew(cx);
    }

    /// Has the record signed anew, because what it says has changed.
    pub(super) fn renew(&mut self, cx: &mut Context) {
        match self.publication.refresh {
            // What is being signed says what was before; it is done again right after.
            Refresh::Running => self.publication.stale = true,
            Refresh::Due(_) | Refresh::Waiting => self.start_refresh(cx),
        }
    }

    /// Begins to renew the own record: first the certificate, then the record.
    pub(super) fn start_refresh(&mut self, cx: &mut Context) {
        if cx.data.is_none() {
            self.publication.refresh = Refresh::Waiting;
            return;
        }
        self.publication.refresh = Refresh::Running;
        let (network, rotate) = (self.network(), self.publication.rotate);
        cx.ask(Pending::WireGuard, keyd::Request::CertifyWireGuard { network, rotate });
    }

    pub(super) fn sign_record(&mut self, cx: &mut Context, wireguard: Signed<WireGuardCertificate>) {
        let control = cx.control();
        let (membership, Some(data)) = (&mut self.membership, cx.data) else { return };
        let epoch = wireguard.value.epoch;
        if membership.epoch.replace(epoch) != Some(epoch) {
            let valid_from = utc(WireGuardCertificate::begins_at(epoch));
            info!(valid_from, "a new WireGuard key is in use");
            self.publication.rotate = false;
            // For tund, which goes on accepting the key before for a while.
            cx.peers_version += 1;
        }
        let (charter, chain) = (membership.charter.value.clone(), membership.chain.clone());
        let name = cx.settings.name.clone();
        // The epoch is on disk before anybody sees it.
        cx.unsaved = true;
        let record = keyd::NewRecord { charter, chain, name, control, data, wireguard };
        cx.ask(Pending::Record, keyd::Request::SignRecord(Box::new(record)));
    }

    pub(super) fn publish(&mut self, cx: &mut Context, record: Signed<Record>, now: Now) -> Standing {
        // At least a while, so that clocks that disagree do not make a busy loop.
        let next =
            until_rotation(record.value.wireguard.value.epoch, now).clamp(KEYD_RETRY * 12, REFRESH_EVERY);
        let next = if std::mem::take(&mut self.publication.stale) { Duration::ZERO } else { next };
        self.publication.refresh = Refresh::Due(now.monotonic + next);
        if !self.publication.rotate
            && let Some(command) = self.publication.rotating.take()
        {
            let key = describe_key(&record.value.wireguard.value);
            cx.answer(command, Ok(meshd::Reply::Rotated(key)));
        }
        let epoch = record.value.wireguard.value.epoch;
        if self.publication.record.as_ref().is_some_and(|before| before.value.wireguard.value.epoch != epoch)
        {
            cx.events.push(EventKind::KeyRotated { epoch });
        }
        let (node, sequence) = (record.value.node, record.value.sequence);
        cx.note_number(sequence);
        self.members.set_local(Entry { node, record: sequence, liveness: 0, ended: false });
        self.publication.record = Some(record);
        self.publication.liveness = None;
        self.publication.is_suspected = false;
        self.announcer.news(now.monotonic);
        if let Some(waiting) = self.entering.take() {
            let network = meshd::Reply::Joined(self.network_status(cx, now));
            for command in waiting.commands {
                cx.answer(command, Ok(network.clone()));
            }
        }
        self.gossip(cx, now)
    }

    /// This node's last sequence number, once there is one.
    pub(super) fn local_sequence(&self) -> Option<u64> {
        let liveness_message = self.publication.liveness.as_ref().map(|message| message.value.sequence);
        self.publication.record.as_ref().map(|record| record.value.sequence).max(liveness_message)
    }

    /// Others could not reach this node after its statement with this sequence number: it signs another.
    pub(super) fn handle_local_suspicion(
        &mut self,
        cx: &mut Context,
        confirmer: NodeId,
        suspected: u64,
        now: Now,
    ) {
        // A record that is being signed does as well.
        let signing = matches!(self.publication.refresh, Refresh::Running)
            || cx.pending.values().any(|pending| matches!(pending, Pending::Liveness(..)));
        let Some(sequence) = self.local_sequence().filter(|sequence| !signing && *sequence <= suspected)
        else {
            return;
        };
        if self.members.suspect_local(confirmer, suspected, sequence, now.monotonic) {
            self.publication.is_suspected = true;
            self.refute(cx, now);
        }
    }

    /// Says that this node is there, if enough say that it is not, and it has not said so too often.
    pub(super) fn refute(&mut self, cx: &mut Context, now: Now) {
        if self.publication.is_suspected && self.publication.answers.try_take(ANSWERS, now.monotonic) {
            self.publication.is_suspected = false;
            // Whoever it is that wonders hears it first, and so do all others.
            debug!("others could not reach this node: it says that it is there");
            self.sign_liveness_message(cx, Presence::Present, LivenessReason::Suspected);
        }
    }

    /// Has a liveness message signed.
    pub(super) fn sign_liveness_message(&self, cx: &mut Context, presence: Presence, why: LivenessReason) {
        let network = self.network();
        cx.ask(Pending::Liveness(why), keyd::Request::SignPulse { network, life: presence });
    }

    /// A liveness message is signed.
    pub(super) fn handle_signed_liveness(
        &mut self,
        cx: &mut Context,
        liveness_message: Signed<LivenessMessage>,
        why: LivenessReason,
        now: Now,
    ) -> Standing {
        cx.note_number(liveness_message.value.sequence);
        match why {
            LivenessReason::Suspected => {
                let Some(record) = self.publication.record.as_ref().map(|own| own.value.sequence) else {
                    return ControlFlow::Continue(());
                };
                let sequence = liveness_message.value.sequence;
                self.members.set_local(Entry { node: cx.me.node, record, liveness: sequence, ended: false });
                self.publication.liveness = Some(liveness_message);
                self.rumors.add(Topic::Liveness(cx.me.node), None, now.monotonic);
                self.gossip(cx, now)
            }
            LivenessReason::ShuttingDown => {
                self.announce_departure(cx, &Item::Liveness(liveness_message), now);
                let waiting = cx.first_contacts.take_all();
                cx.actions.extend(waiting);
                cx.shut_down = true;
                ControlFlow::Continue(())
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
