//! What is shown and what keys do, without a terminal and without a node.
//!
//! * [`node`]: what is known of the node, and how it comes.
//! * [`keys`]: what is typed.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crossterm::event::Event as TerminalEvent;
use i2plan_ipc::api::meshd::{Ban, IssuedInvite, Reply, Request, Route, Status, Traffic};
use i2plan_ipc::node::Notice;
use i2plan_ipc::secret::SecretText;

use super::events::{LogEntry, Show};
use super::form::Form;
use super::history::History;
use super::list::List;
use super::requests::Requests;
use super::rows::{PeerRow, SortBy};
use crate::failure::Failure;
use crate::output::qr::Ink;

mod keys;
mod node;

/// How long a message stays.
const MESSAGE_TIME: Duration = Duration::from_secs(12);

/// Spans of time that the graphs can show, seconds.
pub(super) const SPANS: [u64; 3] = [60, 300, 1800];

/// What the terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// More than ASCII.
    pub(super) utf8: bool,
    /// Colours, and nobody has said that they are not wanted.
    pub(super) colour: bool,
    /// What QR codes are drawn with.
    pub(super) ink: Ink,
}

/// The time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Now {
    /// Since the program started.
    pub(super) running: Duration,
    /// Unix time in milliseconds.
    pub(super) unix: u64,
}

/// What comes in.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// From the terminal.
    Terminal(TerminalEvent),
    /// A second is over.
    Tick,
    /// From the node's event stream.
    Notice(Notice),
    /// The node's answer to [`Effect::Ask`].
    Answer(Request, Result<Reply, Failure>),
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Ask the node.
    Ask(Request),
    /// Put it on the terminal's clipboard.
    Copy(SecretText),
    /// Stop until the shell's `fg`.
    Suspend,
    /// End.
    Quit,
}

/// The pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Status,
    Peers,
    Routes,
    Invites,
    Bans,
    Events,
}

impl Tab {
    pub(super) const ALL: [Self; 6] =
        [Self::Status, Self::Peers, Self::Routes, Self::Invites, Self::Bans, Self::Events];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Peers => "Peers",
            Self::Routes => "Routes",
            Self::Invites => "Invites",
            Self::Bans => "Bans",
            Self::Events => "Events",
        }
    }
}

/// The way to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeLink {
    /// It has not answered yet.
    Connecting,
    /// It answers.
    Up,
    /// It does not answer any more.
    Away {
        /// Since when, by [`Now::running`].
        since: Duration,
        /// Why.
        reason: String,
    },
}

/// What lies over the page.
#[derive(Debug)]
pub(super) enum Overlay {
    /// The keys.
    Help { scroll: usize },
    /// All about a peer.
    Peer { node_id: String, scroll: usize },
    /// All about an invite.
    Invite { id: String, scroll: usize },
    /// All about a ban.
    Ban { node_id: String, scroll: usize },
    /// All of an event.
    Entry { number: u64, scroll: usize },
    /// An invite's code, which is a secret.
    Code { id: String, until: Duration },
    /// Something to fill in.
    Form(Box<Form>),
    /// Something to be sure of.
    Confirm { question: String, request: Request },
    /// Something that went wrong.
    Failure(Failure),
}

/// A line about what was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) bad: bool,
    until: Duration,
}

/// All of it.
#[derive(Debug)]
pub(super) struct App {
    pub(super) look: Look,
    pub(super) now: Now,
    /// Columns and rows of the terminal.
    pub(super) size: (u16, u16),
    pub(super) tab: Tab,
    pub(super) overlay: Option<Overlay>,
    /// The text by which rows are chosen is being typed.
    pub(super) filtering: bool,
    pub(super) message: Option<Message>,
    pub(super) link: NodeLink,
    /// With the time at which it was so.
    pub(super) status: Option<(Status, Duration)>,
    pub(super) status_scroll: usize,
    pub(super) peers: List<PeerRow>,
    pub(super) sort: SortBy,
    pub(super) reverse: bool,
    pub(super) routes: List<Route>,
    pub(super) invites: List<IssuedInvite>,
    pub(super) bans: List<Ban>,
    pub(super) log: VecDeque<LogEntry>,
    /// Which of those are shown.
    pub(super) show: Show,
    pub(super) log_filter: String,
    /// The entry that is selected; none for the last, also when others come.
    pub(super) entry: Option<u64>,
    pub(super) history: History,
    pub(super) peer_history: HashMap<String, History>,
    /// Of [`SPANS`], what the graphs show.
    pub(super) span: usize,
    /// Codes of invites that were made here.
    codes: HashMap<String, SecretText>,
    traffic: Option<Traffic>,
    requests: Requests,
    next_entry: u64,
}

impl App {
    /// Before anything is known.
    pub(super) fn new(look: Look, size: (u16, u16)) -> Self {
        Self {
            look,
            now: Now::default(),
            size,
            tab: Tab::Status,
            overlay: None,
            filtering: false,
            message: None,
            link: NodeLink::Connecting,
            status: None,
            status_scroll: 0,
            peers: List::default(),
            sort: SortBy::Name,
            reverse: false,
            routes: List::default(),
            invites: List::default(),
            bans: List::default(),
            log: VecDeque::new(),
            show: Show::Events,
            log_filter: String::new(),
            entry: None,
            history: History::new(usize::try_from(SPANS[SPANS.len() - 1]).unwrap_or(usize::MAX)),
            peer_history: HashMap::new(),
            span: 1,
            codes: HashMap::new(),
            traffic: None,
            requests: Requests::new(),
            next_entry: 0,
        }
    }

    /// Takes in what happened, and tells what is to be done.
    pub(super) fn update(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.now = now;
        let mut effects = match input {
            Input::Terminal(event) => self.terminal(event),
            Input::Tick => {
                self.tick();
                Vec::new()
            }
            Input::Notice(notice) => {
                self.notice(notice);
                Vec::new()
            }
            Input::Answer(request, result) => {
                self.answer(&request, result);
                Vec::new()
            }
        };
        effects.extend(self.ask());
        effects
    }

    fn tick(&mut self) {
        if self.message.as_ref().is_some_and(|message| message.until <= self.now.running) {
            self.message = None;
        }
        if matches!(&self.overlay, Some(Overlay::Code { until, .. }) if *until <= self.now.running) {
            self.overlay = None;
            self.say("the code is hidden again; v shows it");
        }
    }

    /// The code of an invite, if it was made here and can still be used.
    pub(super) fn code(&self, id: &str) -> Option<&SecretText> {
        self.codes.get(id)
    }

    /// The second that it is, by the clock that the graphs go by.
    pub(super) fn second(&self) -> u64 {
        self.now.running.as_secs()
    }

    /// The name of a member, if it is known.
    pub(super) fn name_of(&self, node_id: &str) -> Option<&str> {
        let peer = self.peers.find(node_id).map(|row| row.peer.name.as_str());
        peer.or_else(|| self.routes.find(node_id).map(|route| route.name.as_str()))
    }

    /// Rows of a page.
    fn page(&self) -> usize {
        usize::from(self.size.1.saturating_sub(5)).max(1)
    }

    fn say(&mut self, text: impl Into<String>) {
        let until = self.now.running + MESSAGE_TIME;
        self.message = Some(Message { text: text.into(), bad: false, until });
    }

    fn complain(&mut self, text: impl Into<String>) {
        let until = self.now.running + MESSAGE_TIME;
        self.message = Some(Message { text: text.into(), bad: true, until });
    }

    /// The entries that are shown, oldest first.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        let filter = self.log_filter.to_lowercase();
        self.log.iter().filter(move |entry| {
            self.show.has(entry.kind) && (filter.is_empty() || entry.text.to_lowercase().contains(&filter))
        })
    }
}
