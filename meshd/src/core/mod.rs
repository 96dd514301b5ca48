//! The mesh: membership, invites and gossip as one state machine, without I/O.
//!
//! [`Mesh`] takes what happens together with the time, and hands out what is to be done. Randomness comes from a seed. So
//! the code in the daemon is the code in a simulation.
//!
//! What a node is to a network is a `situation`; `context` is what it has in any of them, `local_member` what ends with a
//! membership.
//!
//! * `commands`: what users want; `requests`: what `keyd` is asked, and what follows; `report`: what users see.
//! * `invites`: the life of an invite, from both sides: where it is validated.
//! * `addresses`: who may use an address; those that this node has delegated.
//! * `publication`: this node's own record, key and liveness; `notes`: what `keyd` is told of what others say in its name.
//! * `members`: those of the others, merged by their numbers; `endings`: how memberships have ended.
//! * `gossip`: what comes in is checked, taken in and passed on; `rumors`: what is still to be told; `budget`: the bytes
//!   that all this may take; `compare`: finding what was missed; `detector`: finding who is there.
//! * `exclusion`, `bans`: bans by this node, and how others' memberships end; `orders`: what an administrator has `keyd`
//!   sign for that.
//! * `ingress`: which control datagrams are looked at; `first_contacts`: few go to whom has not answered yet; `shares`:
//!   rates that are shared by address.
//! * [`MeshError`]: why a command is not carried out, and what can be done about it.
//! * [`state`]: what is remembered over a restart; `saving`: what follows if it cannot be saved.

use std::collections::BTreeSet;
use std::time::Duration;

use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{self, EventKind};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::NodeId;
use i2plan_proto::membership::NetworkName;
use i2plan_proto::message::{Datagram, Message};
use i2plan_proto::record::NodeName;

mod addresses;
mod bans;
mod budget;
mod commands;
mod compare;
mod context;
mod detector;
mod endings;
mod error;
mod exclusion;
mod first_contacts;
mod gossip;
mod ingress;
mod invites;
mod local_member;
mod members;
mod notes;
mod orders;
mod publication;
mod report;
mod requests;
mod rumors;
mod saving;
mod shares;
mod situation;
pub mod state;
mod verified;

use context::{Context, Outage};
pub use error::MeshError;
use invites::joining::Outcome;
use local_member::LocalMember;
use situation::Situation;
use state::State;

pub use compare::fingerprint;
pub use publication::describe_key;
pub use verified::{Peer, VerifiedRecord};

/// A point in time, by both clocks.
///
/// The monotonic one is a [`Duration`] and not an [`Instant`](std::time::Instant): an `Instant` cannot be made from a
/// number, and a simulation, a test or a fuzzer gives its nodes times of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed moment; never goes back.
    pub monotonic: Duration,
    /// Since 1970; may jump.
    pub unix: Duration,
}

/// What the mesh is told about this node at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name.
    pub name: NodeName,
    /// The subnet of a network that this node founds.
    pub subnet: Ipv4Subnet,
    /// How often it compares its state with another member's, and asks one whether it is there.
    pub heartbeat: Duration,
    /// How long after its last message a member is held to be unreachable at the earliest.
    pub peer_timeout: Duration,
    /// With how many members there are tunnels at once.
    pub max_peers: u32,
    /// Bytes of control messages that it sends in a second on average, with what I2P adds to each.
    pub control_rate: u32,
    /// Name of the tunnel interface.
    pub interface: String,
    /// MTU of the tunnel interface, bytes.
    pub mtu: u16,
    /// Seconds between WireGuard keepalives.
    pub keepalive: u16,
}

impl Settings {
    /// How long a member that several could not reach may take to refute that. What goes before, from its last sign to the
    /// last of the suspicions, takes about as long again.
    fn suspicion_timeout(&self) -> Duration {
        self.peer_timeout / 4
    }
}

/// Links a request to `keyd` to its reply.
pub type Ticket = u64;

/// Links a user's command to its answer.
pub type CommandId = u64;

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    /// Send a control datagram.
    Send {
        /// To this destination.
        to: Destination,
        /// These bytes.
        message: Vec<u8>,
        /// From the control destination, even if there is a fallback for it: this answers what came there, or
        /// names it.
        as_control: bool,
    },
    /// Find the destination with this hash and report the result to [`Mesh::handle_lookup`].
    LookUp(DestinationHash),
    /// Ask `keyd` and report the reply to [`Mesh::handle_keyd_reply`].
    Ask(Ticket, Box<keyd::Request>),
    /// Answer a user's command.
    Answer(CommandId, Box<Result<meshd::Reply, MeshError>>),
}

/// What one or more events lead to.
#[derive(Debug, Default)]
pub struct Turn {
    /// [`Mesh::state`] is to be saved before any action is carried out. If that fails, [`Mesh::handle_save_failure`] must be
    /// called, and what it returns be done in place of the actions.
    pub save: bool,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What users who follow the node are told. It has happened whether or not the state could be saved.
    pub events: Vec<EventKind>,
    /// The state as it was saved before is to be kept beside the new one: this node's membership was ended by others.
    pub set_aside: bool,
}

/// The mesh as one node sees it.
///
/// The driver owns it, calls one method for each thing that happens, and carries out what follows:
///
/// 1. Something happens: [`handle_datagram`](Self::handle_datagram), [`handle_lookup`](Self::handle_lookup),
///    [`handle_keyd_reply`](Self::handle_keyd_reply); [`handle_control_session`](Self::handle_control_session),
///    [`handle_data_session`](Self::handle_data_session), [`handle_fallback`](Self::handle_fallback); a user's command, such
///    as [`join`](Self::join); or it is the time of [`poll_timeout`](Self::poll_timeout), and
///    [`handle_timeout`](Self::handle_timeout) is called.
/// 2. [`poll_turn`](Self::poll_turn) says what follows. Events are published in any case. If the state is to be saved,
///    [`state`](Self::state) is, and only then the actions are carried out, in their order: so an invite's use is on disk
///    before the joiner hears of it. If it cannot be saved, the actions go to
///    [`handle_save_failure`](Self::handle_save_failure), which says what may be done all the same.
/// 3. What the tunnels need may have changed: [`interface`](Self::interface), [`epoch`](Self::epoch) and, if
///    [`peers_version`](Self::peers_version) has, [`peers`](Self::peers) and [`endings`](Self::endings);
///    [`poll_awake`](Self::poll_awake).
///
/// ```no_run
/// # use i2plan_meshd::core::{Action, Mesh, Now, state::State};
/// # fn save(_: &State) -> std::io::Result<()> { Ok(()) }
/// # fn carry_out(_: Action) {}
/// /// After each event, and at the time that the last call has returned.
/// fn settle(mesh: &mut Mesh, now: Now) -> Option<std::time::Duration> {
///     if mesh.poll_timeout().is_some_and(|at| at <= now.monotonic) {
///         mesh.handle_timeout(now);
///     }
///     let turn = mesh.poll_turn();
///     match if turn.save { save(&mesh.state()) } else { Ok(()) } {
///         Ok(()) => turn.actions.into_iter().for_each(carry_out),
///         Err(error) => {
///             let rest = mesh.handle_save_failure(turn.actions, &error.to_string(), now);
///             for (command, error) in rest.failed {
///                 println!("command {command} has failed: {error}");
///             }
///             rest.actions.into_iter().for_each(carry_out);
///         }
///     }
///     mesh.poll_timeout()
/// }
/// ```
pub struct Mesh {
    cx: Context,
    situation: Situation,
}

impl Mesh {
    /// The mesh of the node `me`, as it was when its state was last saved.
    #[must_use]
    pub fn new(me: keyd::Identity, settings: Settings, mut state: State, seed: [u8; 32], now: Now) -> Self {
        let mut cx = Context::new(me, settings, (state.counter, state.former.take()), seed, now);
        let situation = match state.membership.take() {
            Some(membership) => {
                Situation::Member(Box::new(LocalMember::restore(membership, state, &mut cx, now)))
            }
            None => {
                cx.former_ending = state.endings.into_iter().next();
                cx.note_former_ending();
                Situation::Outside
            }
        };
        Self { cx, situation }
    }

    /// Goes on with other settings.
    pub fn reconfigure(&mut self, settings: Settings, now: Now) {
        self.cx.budget.set_rate(settings.control_rate);
        self.cx.peers_version += 1;
        let before = std::mem::replace(&mut self.cx.settings, settings);
        if let Situation::Member(member) = &mut self.situation {
            member.reconfigure(&self.cx, &before, now);
        }
    }

    /// A network that is founded from now on gets this subnet.
    pub fn prefer_subnet(&mut self, subnet: Ipv4Subnet) {
        self.cx.settings.subnet = subnet;
    }

    /// The network that is founded next gets this name.
    pub fn name_network(&mut self, name: NetworkName) {
        self.cx.network_name = Some(name);
    }

    /// The control session is open, for the first time or again: others are told that this node is there.
    pub fn handle_control_session(&mut self, now: Now) {
        self.cx.first_contacts.forget_answers();
        if let Situation::Member(member) = &mut self.situation
            && member.publication.record.is_some()
        {
            member.announcer.news(now.monotonic);
        }
    }

    /// The control session is in this state, and why, if it is not up. Until this is called it is taken to be up.
    pub fn handle_control_state(&mut self, state: meshd::SessionState, reason: Option<&str>, now: Now) {
        let cx = &mut self.cx;
        if state == meshd::SessionState::Up {
            let outage = cx.outage.take();
            if let (Some(outage), Situation::Joining(joining)) = (outage, &mut self.situation) {
                joining.handle_control_up(&outage, now.monotonic);
            }
            return;
        }
        let outage = cx.outage.get_or_insert(Outage { since: now.monotonic, opening: None, reason: None });
        outage.opening = (state == meshd::SessionState::Opening).then_some(now.monotonic);
        if let Some(reason) = reason {
            outage.reason = Some(reason.to_owned());
        }
    }

    /// The session for data is open under this destination.
    pub fn handle_data_session(&mut self, destination: Destination) {
        if self.cx.data.replace(destination) == Some(destination) {
            return;
        }
        if let Situation::Member(member) = &mut self.situation {
            member.renew(&mut self.cx);
        }
    }

    /// There is a fallback for the control destination, which nobody seems to reach, or there is none any more. Members
    /// learn of it by the record; an inviter is asked from both; invites go on naming the control destination.
    pub fn handle_fallback(&mut self, destination: Option<Destination>, now: Now) {
        let cx = &mut self.cx;
        if cx.fallback.map(|fallback| fallback.destination) == destination {
            return;
        }
        cx.fallback = destination.map(Into::into);
        cx.first_contacts.forget_answers();
        match &mut self.situation {
            Situation::Outside | Situation::Founding(_) => {}
            Situation::Joining(joining) => joining.handle_fallback(cx, now),
            Situation::Member(member) => member.renew(cx),
        }
    }

    /// Takes the result of an [`Action::LookUp`].
    pub fn handle_lookup(
        &mut self,
        hash: DestinationHash,
        destination: Result<Destination, String>,
        now: Now,
    ) {
        if let Situation::Joining(joining) = &mut self.situation {
            joining.handle_lookup(&mut self.cx, hash, destination, now);
        }
    }

    /// Takes a datagram that came to a control destination. The router vouches for the sender.
    pub fn handle_datagram(&mut self, from: &Destination, payload: &[u8], now: Now) {
        let Some(datagram) = self.admit_datagram(from, payload, now) else { return };
        self.cx.actions.extend(self.cx.first_contacts.heard(from.hash()));
        let standing = match (&mut self.situation, datagram) {
            (Situation::Joining(joining), Datagram { message: Message::JoinReply(reply), .. }) => {
                return match joining.handle_reply(from, reply, &self.cx.me) {
                    Outcome::Ignored => {}
                    Outcome::Refused(refusal) => self.give_up_joining(&MeshError::Refused(refusal)),
                    Outcome::Welcome(welcome) => self.enter(*welcome, now),
                };
            }
            (Situation::Member(member), datagram) => {
                let standing = member.handle_message(&mut self.cx, from, datagram, now);
                member.update_liveness(&mut self.cx, false, now);
                standing
            }
            _ => return,
        };
        self.apply(standing, now);
    }

    /// When [`Mesh::handle_timeout`] is to be called next, on the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let situation = match &self.situation {
            Situation::Outside | Situation::Founding(_) => None,
            Situation::Joining(joining) => Some(joining.poll_timeout(&self.cx)),
            Situation::Member(member) => Some(member.poll_timeout()),
        };
        situation.into_iter().chain(self.cx.first_contacts.poll_timeout()).chain(self.cx.poll_timeout()).min()
    }

    /// Does what is due by the clock.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = self.cx.first_contacts.poll_due(now.monotonic);
        self.cx.actions.extend(due);
        self.cx.handle_timeout(now);
        match &mut self.situation {
            Situation::Outside | Situation::Founding(_) => {}
            Situation::Joining(joining) => {
                if let Err(error) = joining.handle_timeout(&mut self.cx, now) {
                    self.give_up_joining(&error);
                }
            }
            Situation::Member(member) => {
                let standing = member.handle_timeout(&mut self.cx, now);
                self.apply(standing, now);
            }
        }
    }

    /// What is to be done. To be called after every event.
    pub fn poll_turn(&mut self) -> Turn {
        let cx = &mut self.cx;
        let save = std::mem::take(&mut cx.unsaved);
        let mut events = std::mem::take(&mut cx.events);
        if let Situation::Member(member) = &mut self.situation {
            if save {
                member.save_records_at = None;
            }
            events.extend(member.members.poll_events());
            events.extend(member.poll_ban_events());
        }
        let set_aside = std::mem::take(&mut cx.set_aside);
        Turn { save, actions: cx.actions.drain(..).collect(), events, set_aside }
    }

    /// Asks a few members for an answer: nothing is heard, and it is to be seen whether anything can be.
    pub fn ask_members(&mut self, now: Now) {
        if let Situation::Member(member) = &mut self.situation {
            member.ask_members(&mut self.cx, now);
        }
    }

    /// Looks whether these members are there, out of turn.
    pub fn probe_members(&mut self, nodes: &[NodeId], now: Now) {
        if let Situation::Member(member) = &mut self.situation {
            member.probe_members(&mut self.cx, nodes, now);
        }
    }

    /// Whether a member that should answer was asked for that since this was called last.
    pub fn poll_asked(&mut self) -> bool {
        std::mem::take(&mut self.cx.asked)
    }

    /// When a member last answered a question of this node, on the monotonic clock: it has heard this node.
    #[must_use]
    pub fn last_answered(&self) -> Option<Duration> {
        self.cx.last_answered
    }

    /// Who has given a sign of life since this was asked last: those whose tunnels are down are worth another
    /// attempt.
    pub fn poll_awake(&mut self) -> BTreeSet<NodeId> {
        match &mut self.situation {
            Situation::Member(member) => std::mem::take(&mut member.awake),
            _ => BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests;
