//! What is typed, and what it does.

use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use i2plan_ipc::api::meshd::{Peer, Request};
use i2plan_present::member::label;
use i2plan_present::route::is_local;

use super::{App, Effect, Overlay, SPANS, Tab};
use crate::tui::form::{Form, Outcome};
use crate::tui::list::Scroll;
use crate::tui::requests::Subject;
use crate::tui::rows::{SortBy, ban_order, invite_order, route_order};
use crate::tui::view::details;

/// How long a code stays on the screen.
const CODE_TIME: Duration = Duration::from_secs(60);

impl App {
    pub(super) fn terminal(&mut self, event: TerminalEvent) -> Vec<Effect> {
        match event {
            TerminalEvent::Resize(columns, rows) => self.size = (columns, rows),
            TerminalEvent::Paste(text) => {
                if let Some(Overlay::Form(form)) = &mut self.overlay {
                    form.paste(&text);
                } else if self.filtering {
                    let more = text.chars().filter(|c| !c.is_control());
                    let filter = self.filter().chars().chain(more).collect::<String>();
                    self.set_filter(&filter);
                }
            }
            TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => return self.key(key),
            _ => {}
        }
        Vec::new()
    }

    fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return vec![Effect::Quit],
                KeyCode::Char('z') => {
                    // Nobody is there to see it while the program sleeps.
                    if matches!(self.overlay, Some(Overlay::Code { .. })) {
                        self.overlay = None;
                    }
                    return vec![Effect::Suspend];
                }
                _ => {}
            }
        }
        if let Some(overlay) = self.overlay.take() {
            return self.overlay_key(overlay, key);
        }
        if self.filtering {
            self.filter_key(key);
            return Vec::new();
        }
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            return Vec::new();
        }
        self.message = None;
        if let Some(step) = Scroll::of(key.code) {
            self.go(step);
            return Vec::new();
        }
        match key.code {
            KeyCode::Char('q') => return vec![Effect::Quit],
            KeyCode::Char('?') | KeyCode::F(1) => self.overlay = Some(Overlay::Help { scroll: 0 }),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.turn(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='6') => {
                self.open(Tab::ALL[usize::from(digit as u8 - b'1')]);
            }
            KeyCode::Char('r') => {
                self.requests.want(&Subject::ALL);
                self.say("asked for everything again");
            }
            KeyCode::Char('/') if self.tab != Tab::Status => self.filtering = true,
            KeyCode::Esc => self.set_filter(""),
            _ => return self.tab_key(key.code),
        }
        Vec::new()
    }

    fn turn(&mut self, by: usize) {
        let place = (self.tab as usize + by) % Tab::ALL.len();
        self.open(Tab::ALL[place]);
    }

    fn open(&mut self, tab: Tab) {
        self.tab = tab;
        // What no event tells of: when members were last heard.
        match tab {
            Tab::Peers => self.requests.want(&[Subject::Peers]),
            Tab::Routes => self.requests.want(&[Subject::Routes]),
            _ => {}
        }
    }

    fn go(&mut self, step: Scroll) {
        let page = self.page();
        match self.tab {
            Tab::Status => {
                let lines = details::status(self, self.size.0).len();
                self.status_scroll = step.from(self.status_scroll, lines, page);
            }
            Tab::Peers => self.peers.go(step, page),
            Tab::Routes => self.routes.go(step, page),
            Tab::Invites => self.invites.go(step, page),
            Tab::Bans => self.bans.go(step, page),
            Tab::Events => {
                let numbers: Vec<_> = self.entries().map(|entry| entry.number).collect();
                let last = numbers.len().saturating_sub(1);
                let place =
                    self.entry.map_or(last, |number| numbers.partition_point(|other| *other < number));
                let place = step.from(place, numbers.len(), page);
                self.entry = if place >= last { None } else { numbers.get(place).copied() };
            }
        }
    }

    fn tab_key(&mut self, code: KeyCode) -> Vec<Effect> {
        match (self.tab, code) {
            (Tab::Status, KeyCode::Char('t')) => self.span = (self.span + 1) % SPANS.len(),
            (Tab::Peers, KeyCode::Char('s')) => {
                let place = SortBy::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
                self.sort = SortBy::ALL[(place + 1) % SortBy::ALL.len()];
                self.sort_peers();
            }
            (Tab::Peers, KeyCode::Char('S')) => {
                self.reverse = !self.reverse;
                self.sort_peers();
            }
            (Tab::Peers, KeyCode::Enter) => {
                if let Some(row) = self.peers.selected() {
                    self.overlay = Some(Overlay::Peer { node_id: row.peer.node_id.clone(), scroll: 0 });
                    self.requests.want(&[Subject::Peers]);
                }
            }
            (Tab::Peers, KeyCode::Char('b')) => {
                if let Some(row) = self.peers.selected() {
                    self.ban_or_lift(row.peer.clone());
                }
            }
            (Tab::Routes, KeyCode::Enter) => {
                if let Some(route) = self.routes.selected().filter(|route| !is_local(route)) {
                    self.overlay = Some(Overlay::Peer { node_id: route.node_id.clone(), scroll: 0 });
                    self.requests.want(&[Subject::Peers]);
                }
            }
            (Tab::Invites, KeyCode::Char('n')) => {
                self.overlay = Some(Overlay::Form(Box::new(Form::invite())));
            }
            (Tab::Invites, KeyCode::Char('v')) => self.show_code(),
            (Tab::Invites, KeyCode::Char('c')) => return self.copy_code(),
            (Tab::Invites, KeyCode::Char('x')) => {
                if let Some(invite) = self.invites.selected() {
                    let id = invite.id.clone();
                    let question = format!("Revoke invite {id}? Nobody can join with it any more.");
                    self.overlay = Some(Overlay::Confirm {
                        question,
                        request: Request::RevokeInvite { id, with_members: false },
                    });
                }
            }
            (Tab::Invites, KeyCode::Enter) => {
                if let Some(invite) = self.invites.selected() {
                    self.overlay = Some(Overlay::Invite { id: invite.id.clone(), scroll: 0 });
                }
            }
            (Tab::Bans, KeyCode::Char('a')) => self.overlay = Some(Overlay::Form(Box::new(Form::ban("")))),
            (Tab::Bans, KeyCode::Char('x')) => {
                if let Some(ban) = self.bans.selected() {
                    let (name, node_id) = (ban.name.clone().unwrap_or_default(), ban.node_id.clone());
                    self.lift(&name, node_id);
                }
            }
            (Tab::Bans, KeyCode::Enter) => {
                if let Some(ban) = self.bans.selected() {
                    self.overlay = Some(Overlay::Ban { node_id: ban.node_id.clone(), scroll: 0 });
                }
            }
            (Tab::Events, KeyCode::Char('f')) => {
                self.show = self.show.next();
                self.entry = None;
            }
            (Tab::Events, KeyCode::Enter) => {
                let number = self.entry.or_else(|| self.entries().next_back().map(|entry| entry.number));
                self.overlay = number.map(|number| Overlay::Entry { number, scroll: 0 });
            }
            _ => {}
        }
        Vec::new()
    }

    fn ban_or_lift(&mut self, peer: Peer) {
        if peer.banned {
            self.lift(&peer.name, peer.node_id);
        } else {
            self.overlay = Some(Overlay::Form(Box::new(Form::ban(&peer.node_id))));
        }
    }

    fn lift(&mut self, name: &str, node_id: String) {
        let question = format!("Lift the ban of {}?", label(name, &node_id));
        self.overlay = Some(Overlay::Confirm { question, request: Request::RemoveBan { node_id } });
    }

    fn show_code(&mut self) {
        let Some(invite) = self.invites.selected() else { return };
        let id = invite.id.clone();
        if self.codes.contains_key(&id) {
            self.overlay = Some(Overlay::Code { id, until: self.now.running + CODE_TIME });
        } else {
            self.complain(
                "the code is not kept: only where the invite was made it was seen; n makes a new one",
            );
        }
    }

    fn copy_code(&mut self) -> Vec<Effect> {
        let Some(invite) = self.invites.selected() else { return Vec::new() };
        let Some(code) = self.codes.get(&invite.id).cloned() else {
            self.show_code();
            return Vec::new();
        };
        self.say("sent to the terminal's clipboard; if nothing comes there, it does not allow that (OSC 52)");
        vec![Effect::Copy(code)]
    }

    fn filter(&self) -> &str {
        match self.tab {
            Tab::Status => "",
            Tab::Peers => self.peers.filter(),
            Tab::Routes => self.routes.filter(),
            Tab::Invites => self.invites.filter(),
            Tab::Bans => self.bans.filter(),
            Tab::Events => &self.log_filter,
        }
    }

    /// What the rows of this page are chosen by.
    pub(in crate::tui) fn shown_filter(&self) -> &str {
        self.filter()
    }

    fn set_filter(&mut self, filter: &str) {
        match self.tab {
            Tab::Status => {}
            Tab::Peers => {
                self.peers.set_filter(filter);
                self.sort_peers();
            }
            Tab::Routes => {
                self.routes.set_filter(filter);
                self.routes.rearrange(route_order);
            }
            Tab::Invites => {
                self.invites.set_filter(filter);
                self.invites.rearrange(invite_order);
            }
            Tab::Bans => {
                self.bans.set_filter(filter);
                self.bans.rearrange(ban_order);
            }
            Tab::Events => {
                filter.clone_into(&mut self.log_filter);
                self.entry = None;
            }
        }
    }

    fn filter_key(&mut self, key: KeyEvent) {
        let mut filter = self.filter().to_owned();
        match key.code {
            KeyCode::Enter => self.filtering = false,
            KeyCode::Esc => {
                self.filtering = false;
                self.set_filter("");
            }
            KeyCode::Backspace => {
                if filter.pop().is_none() {
                    self.filtering = false;
                }
                self.set_filter(&filter);
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => self.set_filter(""),
            KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
                filter.push(c);
                self.set_filter(&filter);
            }
            KeyCode::Up => self.go(Scroll::Up),
            KeyCode::Down => self.go(Scroll::Down),
            _ => {}
        }
    }

    fn overlay_key(&mut self, mut overlay: Overlay, key: KeyEvent) -> Vec<Effect> {
        let page = self.page();
        let lines = details::lines(self, &overlay).len();
        match &mut overlay {
            Overlay::Help { scroll }
            | Overlay::Peer { scroll, .. }
            | Overlay::Invite { scroll, .. }
            | Overlay::Ban { scroll, .. }
            | Overlay::Entry { scroll, .. } => {
                if let Some(step) = Scroll::of(key.code) {
                    *scroll = step.from(*scroll, lines, page);
                    self.overlay = Some(overlay);
                    return Vec::new();
                }
                match (overlay, key.code) {
                    (Overlay::Peer { node_id, .. }, KeyCode::Char('b')) => {
                        if let Some(row) = self.peers.find(&node_id) {
                            self.ban_or_lift(row.peer.clone());
                        }
                    }
                    (_, KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Char('q' | '?')) => {}
                    (overlay, _) => self.overlay = Some(overlay),
                }
            }
            Overlay::Code { id, .. } => {
                if key.code == KeyCode::Char('c') {
                    let code = self.codes.get(id).cloned();
                    self.say("sent to the terminal's clipboard, if the terminal allows it (OSC 52)");
                    self.overlay = Some(overlay);
                    return code.into_iter().map(Effect::Copy).collect();
                }
            }
            Overlay::Form(form) => match form.key(key, &self.peers) {
                Outcome::Stay => self.overlay = Some(overlay),
                Outcome::Close => {}
                Outcome::Ask(request) => {
                    self.overlay = Some(overlay);
                    return vec![Effect::Ask(request)];
                }
            },
            Overlay::Confirm { request, .. } => match key.code {
                KeyCode::Char('y' | 'Y') => return vec![Effect::Ask(request.clone())],
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => self.say("nothing was done"),
                _ => self.overlay = Some(overlay),
            },
            Overlay::Failure(_) => {}
        }
        Vec::new()
    }
}
