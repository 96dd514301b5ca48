//! What `keyd` is told of statements that others have told, and what it finds wrong.

use std::time::Duration;

use i2plan_ipc::api::keyd::{self, Noted, Statement};
use i2plan_ipc::api::meshd::{EventKind, KeysProblem};
use i2plan_ipc::api::order::Order;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::membership::Chain;
use tracing::{info, warn};

use super::context::Context;
use super::endings::Ending;
use super::error::MeshError;
use super::local_member::LocalMember;
use super::publication::Refresh;
use super::requests::Pending;
use super::{CommandId, Now};

/// How long after a number was seen that this `keyd` has not given out users are told of it.
const FOREIGN_LASTS: Duration = Duration::from_secs(24 * 3600);

/// How long a node waits before it signs a record above a number that it has not given out, if that happens again: two
/// machines with the same keys would otherwise outbid each other all the time.
const OUTBID_AFTER: Duration = Duration::from_secs(60);

/// Certificates that are sent to `keyd` in one request.
const RECOVERED_AT_ONCE: usize = 16;

/// What is wrong with this node's keys, as far as `meshd` knows.
#[derive(Debug, Default)]
pub(super) struct KeysHealth {
    /// Numbers up to this one were passed to `keyd`.
    noted: u64,
    /// The last number that others knew and `keyd` had not given out, and when it was seen, on the monotonic clock.
    foreign: Option<(u64, Duration)>,
    /// What `keyd` has refused, by kind: how often in a row, and why.
    refused: Vec<(&'static str, u64, ApiError)>,
}

impl KeysHealth {
    /// A request of this kind was answered.
    pub(super) fn answered(&mut self, kind: &'static str) {
        self.refused.retain(|(known, ..)| *known != kind);
    }

    /// A request of this kind was refused.
    pub(super) fn refused(&mut self, kind: &'static str, error: &ApiError) {
        match self.refused.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, count, why)) => {
                *count += 1;
                *why = error.clone();
            }
            None => self.refused.push((kind, 1, error.clone())),
        }
    }
}

impl Context {
    /// A statement in this node's name with this number is known to others, or one that concerns what it has delegated.
    fn note(&mut self, number: Option<u64>, statement: Statement) {
        if let Some(number) = number {
            if number <= self.keys.noted {
                return;
            }
            self.keys.noted = number;
        }
        self.ask(Pending::Note(number), keyd::Request::Note(statement));
    }

    /// This node has used a number that it does not remember, because its state was lost or restored, or because another
    /// machine has its keys: it goes on behind that, once `keyd` does.
    pub(super) fn note_local_statement(&mut self, number: u64, statement: Statement) {
        self.note(Some(number), statement);
    }

    pub(super) fn note_ending(&mut self, ending: &Ending) {
        let statement = match ending {
            Ending::Revocation(revocation) => Statement::Revocation(revocation.clone()),
            Ending::Resignation(resignation) => Statement::Resignation(resignation.clone()),
        };
        self.note(None, statement);
    }

    /// `keyd` is told of the end of a membership if it has delegated the addresses.
    pub(super) fn note_if_delegated(&mut self, ending: &Ending) {
        let issuer = ending.chain().issued().last().map(|(issuer, _)| *issuer);
        if issuer == Some(self.me.node) || *ending.signer() == self.me.node {
            self.note_ending(ending);
        }
    }

    /// A chain holds a certificate that this node has issued and does not remember.
    pub(super) fn note_certificate(&mut self, chain: &Chain) {
        if let Some(certificate) = chain.certificate_by(&self.me.node) {
            self.note(None, Statement::Certificate(Box::new(certificate)));
        }
    }

    /// What users are told of this node's keys.
    pub(super) fn keys_problems(&self, now: Now) -> Vec<KeysProblem> {
        let mut found = Vec::new();
        if !self.me.remembers {
            found.push(KeysProblem::MemoryLost);
        }
        if let Some((number, seen)) = self.keys.foreign
            && now.monotonic < seen + FOREIGN_LASTS
        {
            found.push(KeysProblem::Foreign { number, seen: (now.monotonic - seen).as_secs() });
        }
        let repeated = self.keys.refused.iter().filter(|(_, count, _)| *count > 1);
        found.extend(repeated.map(|(request, count, error)| KeysProblem::Refused {
            request: (*request).to_owned(),
            count: *count,
            error: error.message.clone(),
            remedy: error.remedy.clone(),
        }));
        found
    }
}

impl LocalMember {
    /// `keyd` has not taken note of a statement. Unless it refuses it, it is told when that is heard again.
    pub(super) fn handle_note_failure(
        &mut self,
        cx: &mut Context,
        number: Option<u64>,
        error: &MeshError,
        now: Now,
    ) {
        if error.kind() == ErrorKind::Denied {
            self.handle_noted(cx, number, Noted::Known, now);
        } else if number.is_some() {
            cx.keys.noted = 0;
        }
    }

    /// `keyd` has taken note of a statement.
    pub(super) fn handle_noted(&mut self, cx: &mut Context, number: Option<u64>, noted: Noted, now: Now) {
        let was_foreign = cx.keys.foreign.is_some_and(|(_, seen)| now.monotonic < seen + OUTBID_AFTER);
        if let (Some(number), Noted::Foreign) = (number, noted) {
            warn!(
                number,
                "this node's keys have signed what this node has not: another machine uses them, or its state was restored from a backup"
            );
            if cx.keys.foreign.is_none() {
                cx.events.push(EventKind::ForeignNumber { number });
            }
            cx.keys.foreign = Some((number, now.monotonic));
        }
        if let Some(number) = number {
            cx.counter = cx.counter.max(number);
            cx.unsaved = true;
            let wait = if was_foreign { OUTBID_AFTER } else { Duration::ZERO };
            match self.publication.refresh {
                Refresh::Due(at) => self.publication.refresh = Refresh::Due(at.min(now.monotonic + wait)),
                Refresh::Running | Refresh::Waiting => self.publication.stale = true,
            }
        }
    }

    /// A user has the memory of `keyd` completed, of what this node has delegated: `keyd` is told of all certificates, and the
    /// answer is the order.
    pub(super) fn recover_keys(&mut self, cx: &mut Context, command: CommandId, now: Now) {
        if !self.comparisons.since_start.is_done(now.monotonic) {
            return cx.answer(command, Err(MeshError::NotCompared));
        }
        let chains = self.members.iter().map(|member| &member.record.value.chain);
        let ended = self.members.endings().iter().map(Ending::chain);
        let mut certificates: Vec<_> = chains
            .chain(ended)
            .filter_map(|chain| chain.certificate_by(&cx.me.node))
            .chain(self.addresses.delegations.iter().filter_map(|delegated| delegated.certificate.clone()))
            .collect();
        certificates.sort_unstable_by_key(|certificate| certificate.value.grant.serial);
        certificates.dedup_by_key(|certificate| certificate.value.grant.serial);
        info!(certificates = certificates.len(), "keyd is told what this node has delegated");
        self.recovering = certificates.chunks(RECOVERED_AT_ONCE).map(<[_]>::to_vec).collect();
        self.recover_next(cx, command);
    }

    /// Hands out the next certificates. That there are no more, `keyd` believes by an order alone.
    pub(super) fn recover_next(&mut self, cx: &mut Context, command: CommandId) {
        match self.recovering.pop() {
            Some(certificates) => {
                cx.ask(Pending::Recovery(command), keyd::Request::Recover(certificates));
            }
            None => cx.propose(command, Order::Recover, Vec::new(), false),
        }
    }

    /// A user says that it was ordered: `keyd` is asked whether it was.
    pub(super) fn confirm_recovery(&mut self, cx: &mut Context, command: CommandId) {
        cx.ask(Pending::Recovered(command), keyd::Request::Recover(Vec::new()));
    }

    pub(super) fn handle_recovered(
        &mut self,
        cx: &mut Context,
        command: CommandId,
        known: u64,
        complete: bool,
    ) {
        if !complete {
            return cx.answer(command, Err(MeshError::NotRecovered));
        }
        cx.me.remembers = true;
        // Those that have ended meanwhile are free again.
        let endings: Vec<Ending> = self.members.endings().iter().cloned().collect();
        endings.iter().for_each(|ending| cx.note_ending(ending));
        cx.answer(command, Ok(i2plan_ipc::api::meshd::Reply::KeysRecovered { delegations: known }));
    }
}
