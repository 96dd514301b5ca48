//! What has happened, as it is listed.

use i2plan_ipc::api::meshd::{Event, EventKind};
use i2plan_present::event::{Level, describe};

/// What sort of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogKind {
    /// The node told it.
    Event,
    /// A line of the node's log.
    Log,
    /// This program noticed it.
    Local,
}

/// Which entries are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Events,
    Log,
    /// Both; the log has lines about most events.
    All,
}

impl Show {
    pub(super) fn has(self, kind: LogKind) -> bool {
        match self {
            Self::All => true,
            Self::Events => kind != LogKind::Log,
            Self::Log => kind != LogKind::Event,
        }
    }

    pub(super) fn next(self) -> Self {
        match self {
            Self::Events => Self::Log,
            Self::Log => Self::All,
            Self::All => Self::Events,
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::All => "events and log",
            Self::Events => "events",
            Self::Log => "log",
        }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEntry {
    /// Counted by this program.
    pub(super) number: u64,
    /// Unix time in milliseconds.
    pub(super) at: u64,
    /// Its number among the node's events, if it is one.
    pub(super) event: Option<u64>,
    pub(super) kind: LogKind,
    pub(super) level: Level,
    pub(super) text: String,
}

impl LogEntry {
    /// The entry of what the node told.
    pub(super) fn of(event: &Event, number: u64) -> Self {
        let (kind, text) = match &event.kind {
            EventKind::Log { target, message, .. } => (LogKind::Log, format!("{target}: {message}")),
            what => (LogKind::Event, describe(what)),
        };
        let level = Level::from(&event.kind);
        Self { number, at: event.at, event: Some(event.number), kind, level, text }
    }

    /// What sort of entry it is, in a word.
    pub(super) fn label(&self) -> &'static str {
        match (self.kind, self.level) {
            (LogKind::Event, _) => "event",
            (LogKind::Local, _) => "here",
            (LogKind::Log, Level::Info) => "info",
            (LogKind::Log, Level::Warn) => "warn",
            (LogKind::Log, Level::Error) => "error",
        }
    }
}
