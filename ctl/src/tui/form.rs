//! What is filled in: a new invite, a new ban.

use crossterm::event::{Event, KeyCode, KeyEvent};
use i2plan_ipc::api::meshd::Request;
use i2plan_ipc::member::{Candidate, look_up};
use tui_input::backend::crossterm::EventHandler as _;
use tui_input::{Input, InputRequest};

use super::list::List;
use super::rows::PeerRow;
use crate::failure::Failure;
use crate::values::{max_uses, parse_addresses, parse_ban_duration, parse_expiry};

/// Characters that a field takes; the longest reason has 200.
const LONGEST: usize = 200;

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Invite,
    Ban,
}

/// A line to fill in.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) label: &'static str,
    /// What may stand there.
    pub(super) help: &'static str,
    pub(super) input: Input,
}

impl Field {
    fn new(label: &'static str, help: &'static str, value: &str) -> Self {
        Self { label, help, input: value.into() }
    }
}

/// Lines to fill in.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) purpose: Purpose,
    pub(super) fields: Vec<Field>,
    /// The field in which is typed.
    pub(super) current: usize,
    /// What is wrong with it.
    pub(super) failure: Option<Failure>,
    /// The node was asked, and has not answered.
    waiting: bool,
}

/// What a key led to.
#[derive(Debug)]
pub(super) enum Outcome {
    Stay,
    Close,
    Ask(Request),
}

impl Form {
    /// A new invite.
    pub(super) fn invite() -> Self {
        let fields = vec![
            Field::new("Good for", "90s, 30m, 24h, 7d or plain seconds", "24h"),
            Field::new("Uses", "how many nodes may join with it; -1 for any number", "1"),
            Field::new("Addresses", "for each node, a power of two; nothing for the usual number", ""),
        ];
        Self { purpose: Purpose::Invite, fields, current: 0, failure: None, waiting: false }
    }

    /// A new ban, of this member if it is said.
    pub(super) fn ban(node: &str) -> Self {
        let fields = vec![
            Field::new("Member", "name, address, node id or the beginning of one", node),
            Field::new("For", "90s, 30m, 24h, 7d; nothing for until it is lifted", ""),
            Field::new("Reason", "for people", ""),
        ];
        let current = usize::from(!node.is_empty());
        Self { purpose: Purpose::Ban, fields, current, failure: None, waiting: false }
    }

    pub(super) fn title(&self) -> &'static str {
        match self.purpose {
            Purpose::Invite => "New invite",
            Purpose::Ban => "New ban",
        }
    }

    /// Whether the node is to answer yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// The node does not want it so.
    pub(super) fn refuse(&mut self, failure: Failure) {
        self.waiting = false;
        self.failure = Some(failure);
    }

    /// Text from the clipboard.
    pub(super) fn paste(&mut self, text: &str) {
        for c in text.chars().filter(|c| !c.is_control()) {
            self.insert(c);
        }
    }

    fn insert(&mut self, c: char) {
        let input = &mut self.fields[self.current].input;
        if input.value().chars().count() < LONGEST {
            input.handle(InputRequest::InsertChar(c));
        }
    }

    /// A key.
    pub(super) fn key(&mut self, key: KeyEvent, peers: &List<PeerRow>) -> Outcome {
        let count = self.fields.len();
        match key.code {
            KeyCode::Esc => return Outcome::Close,
            // What was asked cannot be changed any more.
            _ if self.waiting => {}
            KeyCode::Enter if self.current + 1 == count || self.purpose == Purpose::Invite => {
                return self.submit(peers);
            }
            KeyCode::Enter | KeyCode::Tab | KeyCode::Down => self.current = (self.current + 1) % count,
            KeyCode::BackTab | KeyCode::Up => self.current = (self.current + count - 1) % count,
            KeyCode::Char(c)
                if key.modifiers.is_empty() || key.modifiers == crossterm::event::KeyModifiers::SHIFT =>
            {
                self.insert(c);
            }
            _ => {
                self.fields[self.current].input.handle_event(&Event::Key(key));
            }
        }
        Outcome::Stay
    }

    fn submit(&mut self, peers: &List<PeerRow>) -> Outcome {
        match self.request(peers) {
            Ok(request) => {
                self.failure = None;
                self.waiting = true;
                Outcome::Ask(request)
            }
            Err((field, failure)) => {
                self.current = field;
                self.failure = Some(failure);
                Outcome::Stay
            }
        }
    }

    /// What to ask the node, or which field is wrong and why.
    fn request(&self, peers: &List<PeerRow>) -> Result<Request, (usize, Failure)> {
        let value = |field: usize| self.fields[field].input.value().trim();
        let wrong = |field| move |why: String| (field, Failure::invalid(why));
        match self.purpose {
            Purpose::Invite => {
                let expires_in = parse_expiry(value(0)).map_err(wrong(0))?.as_secs();
                let uses = value(1).parse::<i64>().map_err(|_| {
                    wrong(1)(
                        "write a number: how many nodes may join with it, or -1 for any number".to_owned(),
                    )
                })?;
                let max_uses = max_uses(uses).map_err(|failure| (1, failure))?;
                let addresses = match value(2) {
                    "" => None,
                    text => Some(parse_addresses(text).map_err(wrong(2))?),
                };
                Ok(Request::CreateInvite { expires_in, max_uses, addresses, subnet: None, name: None })
            }
            Purpose::Ban => {
                let members = peers.items().iter().map(|row| Candidate::from(&row.peer)).collect();
                let node_id = look_up(members, value(0)).map_err(|error| (0, error.into()))?.node_id;
                let duration = match value(1) {
                    "" => None,
                    text => Some(parse_ban_duration(text).map_err(wrong(1))?.as_secs()),
                };
                Ok(Request::AddBan { node_id, description: value(2).to_owned(), duration })
            }
        }
    }
}
