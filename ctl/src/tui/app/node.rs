//! What is known of the node, and how it comes.

use std::collections::{HashMap, HashSet};

use i2plan_ipc::api::Call;
use i2plan_ipc::api::meshd::{
    AddBan, CreateInvite, Event, GetStatus, Invite, InviteState, ListBans, ListInvites, ListPeers,
    ListRoutes, MeshdApi, Peer, PollEvents, RemoveBan, Reply, Request, RevokeInvite, Traffic,
};
use i2plan_ipc::node::Notice;
use i2plan_present::event::Level;
use i2plan_present::member::label;
use i2plan_present::units;

use super::{App, Effect, NodeLink, Overlay};
use crate::failure::Failure;
use crate::tui::events::{LogEntry, LogKind};
use crate::tui::form::Purpose;
use crate::tui::history::{History, Sample};
use crate::tui::requests::Subject;
use crate::tui::rows::{PeerRow, ban_order, invite_order, peer_order, route_order};

/// Entries of the log that are kept.
const LOG_KEPT: usize = 2000;

/// Seconds that are kept of each peer.
const PEER_SECONDS: usize = 300;

impl App {
    /// Asks for what is out of date, if the node is there.
    pub(super) fn ask(&mut self) -> Vec<Effect> {
        if matches!(self.link, NodeLink::Away { .. }) {
            return Vec::new();
        }
        self.requests.due(self.now.running).into_iter().map(Effect::Ask).collect()
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
                self.requests.start();
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
        self.requests.want(Subject::touched_by(&event.kind));
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
        self.requests.on_answer(request);
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
                self.requests.want_past(read::<PollEvents>(reply)?.next);
            }
            Request::Events { .. } => self.recall(&read::<PollEvents>(reply)?.events),
            Request::ListBans => self.bans.set(read::<ListBans>(reply)?, ban_order),
            // Orders are given where what keyd has verified can be shown.
            Request::CreateInvite { .. } => self.invite_made(read::<CreateInvite>(reply)?.done()?),
            Request::RevokeInvite { .. } => {
                let invite = read::<RevokeInvite>(reply)?.done()?;
                self.codes.remove(&invite.id);
                self.requests.want(&[Subject::Invites]);
                self.say(format!("invite {} is revoked", invite.id));
            }
            Request::AddBan { .. } => {
                let ban = read::<AddBan>(reply)?;
                self.close_form(Purpose::Ban);
                self.bans.expect(&ban.node_id);
                self.requests.want(&[Subject::Bans, Subject::Peers]);
                self.say(format!("{} is banned", label(&ban.name.unwrap_or_default(), &ban.node_id)));
            }
            Request::RemoveBan { .. } => {
                let ban = read::<RemoveBan>(reply)?;
                self.requests.want(&[Subject::Bans, Subject::Peers]);
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
        self.requests.want(&[Subject::Invites]);
        if made.founded {
            self.requests.want(&Subject::ALL);
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
