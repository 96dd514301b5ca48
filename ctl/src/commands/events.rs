//! `i2planctl events`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::meshd::{BanReason, Event, EventKind, JoinStep, Liveness, SessionName, SessionState};
use i2plan_ipc::node::Notice;
use i2plan_ipc::version::utc;
use serde::Serialize;

use super::member::{label, short};
use crate::args::EventsArgs;
use crate::daemon;
use crate::failure::Failure;
use crate::output::{self, clean};

/// What is told of the stream itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum OfTheStream<'a> {
    /// Something happened that is not told: what is known of the node is to be asked for anew.
    EventsMissed,
    /// The node does not answer any more.
    NodeLost { error: &'a str },
    /// It answers again. What happened in between is not told.
    NodeBack,
}

/// Streams the events of the node, until the user or the reader wants no more.
///
/// # Errors
/// If the node is not there in the beginning.
pub async fn run(socket: Option<&Path>, json: bool, args: &EventsArgs) -> Result<(), Failure> {
    let mut interrupt = std::pin::pin!(output::interrupt()?);
    // A node that is not there is an error now, and waited for later.
    let mut stream = tokio::select! {
        node = daemon::connect(socket) => node?.events(),
        () = &mut interrupt => return Ok(()),
    };
    let begin = match args.since {
        None => 0,
        Some(since) => {
            stream = stream.with_past();
            now().saturating_sub(since).as_millis()
        }
    };
    let mut unread = std::pin::pin!(output::reader_leaves());
    let (mut begun, mut away, mut told) = (false, false, 0);
    while args.count.is_none_or(|count| told < count) && !output::reader_is_gone() {
        let notice = tokio::select! {
            notice = stream.next() => notice,
            () = &mut interrupt => break,
            () = &mut unread => break,
        };
        match notice {
            Notice::Event(event) if is_log(&event) && !args.log => {}
            Notice::Event(event) if u128::from(event.at) < begin => {}
            Notice::Event(event) => {
                told += 1;
                let line = format!("{}  {}\n", utc(event.at / 1000), clean(&describe(&event.kind)));
                tell(json, &event, &line)?;
            }
            // It begins.
            Notice::Resync if !std::mem::replace(&mut begun, true) && !away => {}
            Notice::Resync if std::mem::take(&mut away) => {
                let line = "the node answers again; what happened in between is not told\n";
                of_the_stream(json, &OfTheStream::NodeBack, line)?;
            }
            Notice::Resync => {
                let line = "events were missed: too many happened at once\n";
                of_the_stream(json, &OfTheStream::EventsMissed, line)?;
            }
            Notice::Lost(error) => {
                away = true;
                let line = format!("the node does not answer: {}; waiting for it\n", clean(&error));
                of_the_stream(json, &OfTheStream::NodeLost { error: &error }, &line)?;
            }
            // It was not asked for.
            Notice::Traffic(_) => {}
        }
    }
    Ok(())
}

fn tell(json: bool, value: &impl Serialize, line: &str) -> Result<(), Failure> {
    if json { output::json::print_line(value) } else { output::print(line) }
}

/// With the time, which events of the node bring themselves.
fn of_the_stream(json: bool, what: &OfTheStream<'_>, line: &str) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Timed<'a> {
        at: u64,
        #[serde(flatten)]
        what: &'a OfTheStream<'a>,
    }
    let now = now();
    let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    tell(json, &Timed { at, what }, &format!("{}  {line}", utc(now.as_secs())))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn is_log(event: &Event) -> bool {
    matches!(event.kind, EventKind::Log { .. })
}

/// What happened, in a sentence.
#[must_use]
pub fn describe(what: &EventKind) -> String {
    let member = label;
    match what {
        EventKind::NetworkJoined { network, ipv4 } => {
            format!("this node is a member of {network}, at {ipv4}")
        }
        EventKind::NetworkLeft { network, revoked: true } => {
            format!("this node's membership of {network} is revoked")
        }
        EventKind::NetworkLeft { network, revoked: false } => format!("this node has left {network}"),
        EventKind::AddressChanged { ipv4 } => format!("this node's address is {ipv4} now"),
        EventKind::MemberAdded { node_id, name } => format!("{} is a member", member(name, node_id)),
        EventKind::MemberChanged { node_id, name } => format!("{} has changed", member(name, node_id)),
        EventKind::MemberRemoved { node_id, name } => {
            format!("{} is no member any more", member(name, node_id))
        }
        EventKind::MemberLiveness { node_id, name, liveness } => {
            let liveness = match liveness {
                Liveness::Present => "is there",
                Liveness::Suspected => "may be out of reach",
                Liveness::Unreachable => "is unreachable",
                Liveness::Away => "shuts down",
            };
            format!("{} {liveness}", member(name, node_id))
        }
        EventKind::TunnelUp { node_id, name } => format!("the tunnel to {} is up", member(name, node_id)),
        EventKind::TunnelDown { node_id, name } => format!("the tunnel to {} is down", member(name, node_id)),
        EventKind::InviteCreated { id } => format!("invite {id} was made"),
        EventKind::InviteUsed { id, node_id } => format!("invite {id} was used by {}", short(node_id)),
        EventKind::InviteRevoked { id } => format!("invite {id} is revoked"),
        EventKind::BanAdded { node_id, reason } => {
            let reason = match reason {
                BanReason::Manual => "by hand",
                BanReason::InvalidMessages => "for invalid messages",
            };
            format!("{} is banned {reason}", short(node_id))
        }
        EventKind::BanRemoved { node_id } => format!("{} is not banned any more", short(node_id)),
        EventKind::Session { session, state, error } => {
            let session = match session {
                SessionName::Control => "control session",
                SessionName::Fallback => "fallback session",
                SessionName::Data => "data session",
            };
            match error {
                Some(error) if *state == SessionState::Down => format!("the {session} is down: {error}"),
                // That was why it was down before.
                _ => format!("the {session} is {}", describe_state(*state)),
            }
        }
        EventKind::DaemonUp { daemon } => format!("{daemon} answers"),
        EventKind::DaemonDown { daemon, error } => format!("{daemon} does not work: {error}"),
        EventKind::InterfaceUp { interface } => format!("interface {interface} is up"),
        EventKind::ForeignNumber { number } => format!(
            "this node's keys have signed number {number} elsewhere: another machine uses them, or a backup was restored"
        ),
        EventKind::HostOverlap { overlaps } if overlaps.is_empty() => {
            "the host uses none of the network's addresses otherwise any more".to_owned()
        }
        EventKind::HostOverlap { overlaps } => {
            format!("the host uses addresses of the network otherwise: {}", overlaps.join("; "))
        }
        EventKind::KeyRotated { epoch } => format!("a new WireGuard key is published, epoch {epoch}"),
        EventKind::ConfigChanged { key, value } => format!("{key} is {value} now"),
        EventKind::JoinProgress { step } => format!("joining: {}", describe_step(*step)),
        EventKind::Log { level, target, message } => format!("{level} {target}: {message}"),
    }
}

fn describe_state(state: SessionState) -> &'static str {
    match state {
        SessionState::Down => "down",
        SessionState::Opening => "being opened",
        SessionState::Up => "up",
    }
}

/// How far a node is on its way into a network.
#[must_use]
pub fn describe_step(step: JoinStep) -> &'static str {
    match step {
        JoinStep::LookingUp => "looking for the inviter",
        JoinStep::Asking => "found the inviter, asking it",
        JoinStep::Admitted => "the inviter has admitted this node",
        JoinStep::Addressed => "the interface is up",
        JoinStep::Connected => "the first tunnel to a member is up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sentences() {
        let event = EventKind::MemberLiveness {
            node_id: "abcdefghijk".to_owned(),
            name: "web".to_owned(),
            liveness: Liveness::Unreachable,
        };
        assert_eq!(describe(&event), "web (abcdefghij) is unreachable");
        let session = EventKind::Session {
            session: SessionName::Data,
            state: SessionState::Down,
            error: Some("gone".to_owned()),
        };
        assert_eq!(describe(&session), "the data session is down: gone");
        let again = EventKind::Session {
            session: SessionName::Data,
            state: SessionState::Opening,
            error: Some("gone".to_owned()),
        };
        assert_eq!(describe(&again), "the data session is being opened");
        let nameless = EventKind::TunnelUp { node_id: "abcdefghijk".to_owned(), name: String::new() };
        assert_eq!(describe(&nameless), "the tunnel to abcdefghij is up");
        assert_eq!(
            describe(&EventKind::JoinProgress { step: JoinStep::Asking }),
            "joining: found the inviter, asking it"
        );
    }

    #[test]
    fn what_is_told_of_the_stream_has_the_form_of_an_event() {
        let json = serde_json::to_value(OfTheStream::NodeLost { error: "gone" }).unwrap();
        assert_eq!(json, serde_json::json!({ "event": "node_lost", "error": "gone" }));
    }
}
