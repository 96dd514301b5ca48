//! What the node is asked for, and when.

use std::time::Duration;

use i2plan_ipc::api::meshd::{Cursor, EventKind, Request};

/// How soon a list is asked for again at the earliest, however many events touch it.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Events from before the program knew of them that are asked for.
const PAST: u64 = 500;

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

    pub(super) fn of(request: &Request) -> Option<Self> {
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
    pub(super) fn touched_by(what: &EventKind) -> &'static [Self] {
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
            | EventKind::SessionHealth { .. }
            | EventKind::DaemonUp { .. }
            | EventKind::DaemonDown { .. }
            | EventKind::InterfaceUp { .. }
            | EventKind::HostOverlap { .. }
            | EventKind::InterfaceChanged { .. }
            | EventKind::KeyRotated { .. }
            | EventKind::ForeignNumber { .. }
            | EventKind::ConfigChanged { .. } => &[Self::Status],
            EventKind::JoinProgress { .. } | EventKind::Log { .. } => &[],
        }
    }
}

/// Whether something is asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Refresh {
    /// What is known of it is out of date.
    wanted: bool,
    /// The answer is on its way.
    waiting: bool,
    /// When it was asked for last.
    at: Option<Duration>,
}

/// How far the program is with what happened before it followed the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// The end of the event log is to be asked for.
    Where,
    /// What happened after this cursor is.
    After(Cursor),
    /// There is nothing to ask.
    Complete,
}

/// What is out of date, and what was asked for.
#[derive(Debug)]
pub(super) struct Requests {
    refreshes: [Refresh; Subject::ALL.len()],
    past: Past,
}

impl Requests {
    /// Before the node has answered for the first time.
    pub(super) fn new() -> Self {
        Self { refreshes: Default::default(), past: Past::Complete }
    }

    /// Has everything asked for, and what has happened before: the node answers, or something was missed.
    pub(super) fn start(&mut self) {
        self.refreshes = Default::default();
        self.want(&Subject::ALL);
        self.past = Past::Where;
    }

    /// Has what is known of these asked for again.
    pub(super) fn want(&mut self, subjects: &[Subject]) {
        for subject in subjects {
            self.refreshes[*subject as usize].wanted = true;
        }
    }

    /// Has the events before this cursor asked for, as far back as they are shown.
    pub(super) fn want_past(&mut self, next: Cursor) {
        let number = next.number.saturating_sub(PAST);
        self.past = Past::After(Cursor { number, ..next });
    }

    /// What is to be asked for now: each once at a time, and not over and over while much happens.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Request> {
        let mut requests = Vec::new();
        let events = |after| Request::Events { after, wait: 0, traffic: false };
        match std::mem::replace(&mut self.past, Past::Complete) {
            Past::Where => requests.push(events(None)),
            Past::After(cursor) => requests.push(events(Some(cursor))),
            Past::Complete => {}
        }
        for subject in Subject::ALL {
            let refresh = &mut self.refreshes[subject as usize];
            let early = refresh.at.is_some_and(|at| now < at + ASK_AGAIN);
            if refresh.wanted && !refresh.waiting && !early {
                *refresh = Refresh { wanted: false, waiting: true, at: Some(now) };
                requests.push(subject.request());
            }
        }
        requests
    }

    /// A request was answered, or has failed.
    pub(super) fn on_answer(&mut self, request: &Request) {
        if let Some(subject) = Subject::of(request) {
            self.refreshes[subject as usize].waiting = false;
        }
    }
}
