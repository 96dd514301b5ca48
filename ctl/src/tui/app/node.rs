//! What is known of the node, and how it comes.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use i2plan_ipc::api::Call;
use i2plan_ipc::api::meshd::{
    AddBan, Ban, CreateInvite, Cursor, Event, EventKind, GetStatus, Invite, InviteState, IssuedInvite,
    ListBans, ListInvites, ListPeers, ListRoutes, MeshdApi, Peer, PollEvents, RemoveBan, Reply, Request,
    RevokeInvite, Route, Traffic,
};
use i2plan_ipc::node::Notice;

use super::{App, Effect, NodeLink, Overlay, SortBy};
use crate::commands::member::label;
use crate::commands::{invite, peers};
use crate::failure::Failure;
use crate::output::units;
use crate::tui::events::{Level, LogEntry, LogKind};
use crate::tui::form::Purpose;
use crate::tui::history::{History, Sample};
use crate::tui::list::Row;

/// Entries of the log that are kept.
const LOG_KEPT: usize = 2000;

/// How soon a list is asked for again at the earliest, however many events touch it.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Events from before the program knew of them that are asked for.
const PAST: u64 = 500;

/// Seconds that are kept of each peer.
const PEER_SECONDS: usize = 300;

/// A peer and how fast it is at present.
#[derive(Debug, Clone)]
pub(in crate::tui) struct PeerRow {
    pub(in crate::tui) peer: Peer,
    /// Bytes in a second, from it and to it.
    pub(in crate::tui) rate: Option<(u64, u64)>,
}

impl Row for PeerRow {
    fn key(&self) -> &str {
        &self.peer.node_id
    }

    fn contains(&self, text: &str) -> bool {
        let Peer { name, node_id, ipv4, ipv6, .. } = &self.peer;
        name.to_lowercase().contains(text)
            || node_id.contains(text)
            || ipv4.to_string().contains(text)
            || ipv6.to_string().contains(text)
            || peers::state(&self.peer).contains(text)
    }
}

impl Row for Route {
    fn key(&self) -> &str {
        &self.node_id
    }

    fn contains(&self, text: &str) -> bool {
        self.name.to_lowercase().contains(text)
            || self.node_id.contains(text)
            || self.ipv4.to_string().contains(text)
            || self.ipv6.to_string().contains(text)
    }
}

impl Row for IssuedInvite {
    fn key(&self) -> &str {
        &self.id
    }

    fn contains(&self, text: &str) -> bool {
        self.id.contains(text) || invite::state(self).contains(text)
    }
}

impl Row for Ban {
    fn key(&self) -> &str {
        &self.node_id
    }

    fn contains(&self, text: &str) -> bool {
        self.name.as_ref().is_some_and(|name| name.to_lowercase().contains(text))
            || self.node_id.contains(text)
            || self.description.to_lowercase().contains(text)
    }
}

/// What is asked for as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Status,
    Peers,
    Routes,
    Invites,
    Bans,
}

impl Subject {
    pub(super) const ALL: [Self; 5] = [Self::Status, Self::Peers, Self::Routes, Self::Invites, Self::Bans];

    fn request(self) -> Request {
        match self {
            Self::Status => Request::Status,
            Self::Peers => Request::Peers,
            Self::Routes => Request::Routes,
            Self::Invites => Request::ListInvites,
            Self::Bans => Request::ListBans,
        }
    }

    fn of(request: &Request) -> Option<Self> {
        Some(match request {
            Request::Status => Self::Status,
            Request::Peers => Self::Peers,
            Request::Routes => Self::Routes,
            Request::ListInvites => Self::Invites,
            Request::ListBans => Self::Bans,
            _ => return None,
        })
    }

    /// What an event makes out of date.
    fn touched_by(what: &EventKind) -> &'static [Self] {
        match what {
            EventKind::NetworkJoined { .. } | EventKind::NetworkLeft { .. } => &Self::ALL,
            EventKind::AddressChanged { .. }
            | EventKind::MemberAdded { .. }
            | EventKind::MemberChanged { .. }
            | EventKind::MemberRemoved { .. } => &[Self::Status, Self::Peers, Self::Routes],
            EventKind::MemberLiveness { .. } => &[Self::Peers, Self::Routes],
            EventKind::TunnelUp { .. } | EventKind::TunnelDown { .. } => &[Self::Peers],
            EventKind::InviteCreated { .. }
            | EventKind::InviteUsed { .. }
            | EventKind::InviteRevoked { .. } => &[Self::Invites],
            EventKind::BanAdded { .. } | EventKind::BanRemoved { .. } => &[Self::Bans, Self::Peers],
            EventKind::Session { .. }
            | EventKind::DaemonUp { .. }
            | EventKind::DaemonDown { .. }
            | EventKind::InterfaceUp { .. }
            | EventKind::HostOverlap { .. }
            | EventKind::KeyRotated { .. }
            | EventKind::ForeignNumber { .. }
            | EventKind::ConfigChanged { .. } => &[Self::Status],
            EventKind::JoinProgress { .. } | EventKind::Log { .. } => &[],
        }
    }
}

/// Whether something is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refresh {
    /// What is known of it is out of date.
    wanted: bool,
    /// The answer is on its way.
    waiting: bool,
    /// When it was asked for last.
    at: Option<Duration>,
}

/// How far the program is with what happened before it followed the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// The end of the event log is to be asked for.
    Where,
    /// What happened after this cursor is.
    After(Cursor),
    /// There is nothing to ask.
    Complete,
}

impl App {
    pub(super) fn want(&mut self, subjects: &[Subject]) {
        for subject in subjects {
            self.refreshes[*subject as usize].wanted = true;
        }
    }

    /// Asks for what is out of date: each once at a time, and not over and over while much happens.
    pub(super) fn ask(&mut self) -> Vec<Effect> {
        if matches!(self.link, NodeLink::Away { .. }) {
            return Vec::new();
        }
        let now = self.now.running;
        let mut effects = Vec::new();
        let events = |after| Effect::Ask(Request::Events { after, wait: 0, traffic: false });
        match std::mem::replace(&mut self.past, Past::Complete) {
            Past::Where => effects.push(events(None)),
            Past::After(cursor) => effects.push(events(Some(cursor))),
            Past::Complete => {}
        }
        for subject in Subject::ALL {
            let refresh = &mut self.refreshes[subject as usize];
            let early = refresh.at.is_some_and(|at| now < at + ASK_AGAIN);
            if refresh.wanted && !refresh.waiting && !early {
                *refresh = Refresh { wanted: false, waiting: true, at: Some(now) };
                effects.push(Effect::Ask(subject.request()));
            }
        }
        effects
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Resync => {
                if let NodeLink::Away { since, .. } = self.link {
                    let away = units::duration((self.now.running - since).as_secs());
                    let text = format!("the node answers again, after {away}");
                    self.note(Level::Info, text.clone());
                    self.say(text);
                }
                self.link = NodeLink::Up;
                self.traffic = None;
                self.refreshes = Default::default();
                self.want(&Subject::ALL);
                self.past = Past::Where;
            }
            Notice::Lost(reason) => {
                self.note(Level::Error, format!("the node does not answer: {reason}"));
                self.link = NodeLink::Away { since: self.now.running, reason };
            }
            Notice::Event(event) => self.event(&event),
            Notice::Traffic(traffic) => self.take_traffic(traffic),
        }
    }

    fn event(&mut self, event: &Event) {
        self.want(Subject::touched_by(&event.kind));
        let entry = LogEntry::of(event, self.next_entry);
        self.push(entry);
    }

    fn note(&mut self, level: Level, text: String) {
        let (number, at) = (self.next_entry, self.now.unix);
        let entry = LogEntry { number, at, event: None, kind: LogKind::Local, level, text };
        self.push(entry);
    }

    fn push(&mut self, entry: LogEntry) {
        self.next_entry += 1;
        if self.log.len() == LOG_KEPT {
            self.log.pop_front();
        }
        self.log.push_back(entry);
    }

    /// Takes in what happened before, as far as it is not known.
    fn recall(&mut self, events: &[Event]) {
        let known: HashSet<_> = self.log.iter().filter_map(|entry| Some((entry.at, entry.event?))).collect();
        let mut entries: Vec<_> = std::mem::take(&mut self.log).into();
        for event in events.iter().filter(|event| !known.contains(&(event.at, event.number))) {
            entries.push(LogEntry::of(event, self.next_entry));
        }
        entries.sort_by_key(|entry| (entry.at, entry.event));
        // What is selected stays so under its new number.
        let selected = match &self.overlay {
            Some(Overlay::Entry { number, .. }) => Some(*number),
            _ => self.entry,
        };
        for mut entry in entries {
            let number = self.next_entry;
            if selected == Some(std::mem::replace(&mut entry.number, number)) {
                match &mut self.overlay {
                    Some(Overlay::Entry { number: selected, .. }) => *selected = number,
                    _ => self.entry = Some(number),
                }
            }
            self.push(entry);
        }
    }

    fn take_traffic(&mut self, traffic: Traffic) {
        let Some(before) = self.traffic.take().filter(|before| before.at <= traffic.at) else {
            self.traffic = Some(traffic);
            return;
        };
        let millis = traffic.at - before.at;
        if millis == 0 {
            self.traffic = Some(before);
            return;
        }
        let rate =
            |bytes: u64| u64::try_from(u128::from(bytes) * 1000 / u128::from(millis)).unwrap_or(u64::MAX);
        // A counter that is smaller than before has begun anew, with tund.
        let since = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
        let known: HashMap<&str, (u64, u64)> =
            before.peers.iter().map(|peer| (peer.node_id.as_str(), (peer.rx_bytes, peer.tx_bytes))).collect();
        let second = self.now.running.as_secs();
        let mut rates = HashMap::new();
        let mut total = Sample { rx: 0, tx: 0, rtt: None };
        let mut trips = Vec::new();
        for peer in &traffic.peers {
            let (rx, tx) = known.get(peer.node_id.as_str()).copied().unwrap_or_default();
            let sample = Sample {
                rx: rate(since(peer.rx_bytes, rx)),
                tx: rate(since(peer.tx_bytes, tx)),
                rtt: peer.rtt,
            };
            total.rx = total.rx.saturating_add(sample.rx);
            total.tx = total.tx.saturating_add(sample.tx);
            trips.extend(sample.rtt);
            rates.insert(peer.node_id.as_str(), (peer, sample));
            let history = self.peer_history.entry(peer.node_id.clone());
            history.or_insert_with(|| History::new(PEER_SECONDS)).push(second, sample);
        }
        trips.sort_unstable();
        total.rtt = trips.get(trips.len() / 2).copied();
        self.history.push(second, total);
        self.peer_history.retain(|node_id, _| rates.contains_key(node_id.as_str()));
        for row in self.peers.items_mut() {
            let Some((now, sample)) = rates.get(row.peer.node_id.as_str()) else {
                row.rate = None;
                continue;
            };
            row.rate = Some((sample.rx, sample.tx));
            row.peer.rx_bytes = now.rx_bytes;
            row.peer.tx_bytes = now.tx_bytes;
            row.peer.last_handshake = now.last_handshake;
            row.peer.rtt = now.rtt;
        }
        self.sort_peers();
        self.traffic = Some(traffic);
    }

    pub(super) fn answer(&mut self, request: &Request, result: Result<Reply, Failure>) {
        if let Some(subject) = Subject::of(request) {
            self.refreshes[subject as usize].waiting = false;
        }
        if let Err(failure) = result.and_then(|reply| self.take_in(request, reply)) {
            self.failed(request, failure);
        }
    }

    fn take_in(&mut self, request: &Request, reply: Reply) -> Result<(), Failure> {
        fn read<C: Call<Api = MeshdApi>>(reply: Reply) -> Result<C::Reply, Failure> {
            Ok(C::reply(reply, Vec::new())?)
        }
        match request {
            Request::Status => self.status = Some((read::<GetStatus>(reply)?, self.now.running)),
            Request::Peers => {
                let peers = read::<ListPeers>(reply)?;
                let rates: HashMap<_, _> =
                    self.peers.items().iter().map(|row| (row.peer.node_id.clone(), row.rate)).collect();
                let row = |peer: Peer| PeerRow { rate: rates.get(&peer.node_id).copied().flatten(), peer };
                self.peers.set(peers.into_iter().map(row).collect(), peer_order(self.sort, self.reverse));
            }
            Request::Routes => self.routes.set(read::<ListRoutes>(reply)?, route_order),
            Request::ListInvites => {
                let invites = read::<ListInvites>(reply)?;
                let over = |id: &String| {
                    invites.iter().any(|invite| invite.id == *id && invite.state != InviteState::Open)
                };
                self.codes.retain(|id, _| !over(id));
                self.invites.set(invites, invite_order);
            }
            Request::Events { after: None, .. } => {
                let next = read::<PollEvents>(reply)?.next;
                self.past = Past::After(Cursor { number: next.number.saturating_sub(PAST), ..next });
            }
            Request::Events { .. } => self.recall(&read::<PollEvents>(reply)?.events),
            Request::ListBans => self.bans.set(read::<ListBans>(reply)?, ban_order),
            // Orders are given where what keyd has verified can be shown.
            Request::CreateInvite { .. } => self.invite_made(read::<CreateInvite>(reply)?.done()?),
            Request::RevokeInvite { .. } => {
                let invite = read::<RevokeInvite>(reply)?.done()?;
                self.codes.remove(&invite.id);
                self.want(&[Subject::Invites]);
                self.say(format!("invite {} is revoked", invite.id));
            }
            Request::AddBan { .. } => {
                let ban = read::<AddBan>(reply)?;
                self.close_form(Purpose::Ban);
                self.bans.expect(&ban.node_id);
                self.want(&[Subject::Bans, Subject::Peers]);
                self.say(format!("{} is banned", label(&ban.name.unwrap_or_default(), &ban.node_id)));
            }
            Request::RemoveBan { .. } => {
                let ban = read::<RemoveBan>(reply)?;
                self.want(&[Subject::Bans, Subject::Peers]);
                let name = label(&ban.name.unwrap_or_default(), &ban.node_id);
                self.say(format!("{name} is not banned any more"));
            }
            // Nothing else is asked here.
            _ => {}
        }
        Ok(())
    }

    fn invite_made(&mut self, made: Invite) {
        self.close_form(Purpose::Invite);
        self.invites.expect(&made.id);
        self.want(&[Subject::Invites]);
        if made.founded {
            self.want(&Subject::ALL);
        }
        let founded = if made.founded { "network founded; " } else { "" };
        self.say(format!("{founded}invite {} made: v shows its code, c copies it", made.id));
        self.codes.insert(made.id, made.invite);
    }

    fn failed(&mut self, request: &Request, failure: Failure) {
        if Subject::of(request).is_some() || matches!(request, Request::Events { .. }) {
            // While the node is away this says no more than the page does.
            if self.link == NodeLink::Up {
                self.complain(failure.message);
            }
            return;
        }
        self.note(Level::Error, failure.message.clone());
        match &mut self.overlay {
            Some(Overlay::Form(form)) if form.is_waiting() => form.refuse(failure),
            // What is being read or typed stays.
            Some(_) => self.complain(failure.message),
            None => self.overlay = Some(Overlay::Failure(failure)),
        }
    }

    fn close_form(&mut self, purpose: Purpose) {
        if matches!(&self.overlay, Some(Overlay::Form(form)) if form.is_waiting() && form.purpose == purpose)
        {
            self.overlay = None;
        }
    }

    pub(super) fn sort_peers(&mut self) {
        self.peers.rearrange(peer_order(self.sort, self.reverse));
    }
}

fn peer_order(sort: SortBy, reverse: bool) -> impl Fn(&PeerRow, &PeerRow) -> Ordering {
    move |a, b| {
        let (a, b) = (&a.peer, &b.peer);
        // What was never measured comes last.
        let measured = |a: Option<u64>, b: Option<u64>| a.unwrap_or(u64::MAX).cmp(&b.unwrap_or(u64::MAX));
        let order = match sort {
            SortBy::Name => Ordering::Equal,
            SortBy::Address => a.ipv4.cmp(&b.ipv4),
            SortBy::State => peers::state(a).cmp(peers::state(b)),
            SortBy::Handshake => measured(a.last_handshake, b.last_handshake),
            SortBy::Rtt => measured(a.rtt, b.rtt),
            // The largest first: that is what is looked for.
            SortBy::Received => b.rx_bytes.cmp(&a.rx_bytes),
            SortBy::Sent => b.tx_bytes.cmp(&a.tx_bytes),
        };
        let order = order.then_with(|| a.name.cmp(&b.name));
        if reverse { order.reverse() } else { order }
    }
}

pub(super) fn route_order(a: &Route, b: &Route) -> Ordering {
    (a.ipv4, a.ipv6).cmp(&(b.ipv4, b.ipv6))
}

/// The newest first.
pub(super) fn invite_order(a: &IssuedInvite, b: &IssuedInvite) -> Ordering {
    b.created_at.cmp(&a.created_at)
}

/// The newest first.
pub(super) fn ban_order(a: &Ban, b: &Ban) -> Ordering {
    b.created_at.cmp(&a.created_at)
}
