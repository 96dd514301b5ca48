//! What happens at a node.

use i2plan_ipc::api::meshd::{
    BanReason, EventKind, JoinStep, Liveness, SessionHealth, SessionName, SessionState,
};

use i2plan_ipc::version::utc;

use super::member::{label, short};
use super::units;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It is as it should be.
    Info,
    /// Something may be wrong.
    Warn,
    /// Something is wrong.
    Error,
}

impl From<&EventKind> for Level {
    fn from(what: &EventKind) -> Self {
        match what {
            EventKind::Log { level, .. } => match level.as_str() {
                "error" => Self::Error,
                "warn" => Self::Warn,
                _ => Self::Info,
            },
            EventKind::DaemonDown { .. } | EventKind::NetworkLeft { revoked: true, .. } => Self::Error,
            EventKind::TunnelDown { .. }
            | EventKind::MemberLiveness { liveness: Liveness::Suspected | Liveness::Unreachable, .. }
            | EventKind::BanAdded { .. }
            | EventKind::HostOverlap { .. }
            | EventKind::InterfaceChanged { .. }
            | EventKind::Session { state: SessionState::Down, .. }
            | EventKind::SessionHealth { health: SessionHealth::Replacing, .. } => Self::Warn,
            _ => Self::Info,
        }
    }
}

/// A node by its name, if that is known, and its short id.
fn named(name: Option<&String>, node_id: &str) -> String {
    name.map_or_else(|| short(node_id).to_owned(), |name| label(name, node_id))
}

/// What happened, in a sentence.
#[must_use]
pub fn describe(what: &EventKind) -> String {
    let member = label;
    match what {
        EventKind::NetworkJoined { network, name, ipv4 } => {
            format!("this node is a member of {name} ({network}), at {ipv4}")
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
                Liveness::Suspected => "may be unreachable",
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
        EventKind::BanAdded { node_id, name, reason } => {
            let reason = match reason {
                BanReason::Manual => "by hand",
                BanReason::InvalidMessages => "for invalid messages",
            };
            format!("{} is banned {reason}", named(name.as_ref(), node_id))
        }
        EventKind::BanRemoved { node_id, name } => {
            format!("{} is not banned any more", named(name.as_ref(), node_id))
        }
        EventKind::Session { session, state, error } => {
            let session = name_of(*session);
            match error {
                Some(error) if *state == SessionState::Down => format!("the {session} is down: {error}"),
                // That was why it was down before.
                _ => format!("the {session} is {}", describe_state(*state)),
            }
        }
        EventKind::SessionHealth { session, replaced: true, .. } => {
            format!("another {} was opened in the place of the silent one", name_of(*session))
        }
        EventKind::SessionHealth { session, health, silent, replaced: false } => {
            let (session, silent) = (name_of(*session), units::duration(*silent));
            match health {
                SessionHealth::Fine => format!("the {session} carries traffic again"),
                SessionHealth::Testing => {
                    format!("nothing is heard through the {session} for {silent}: it is tested")
                }
                SessionHealth::Replacing => {
                    format!(
                        "nothing is heard through the {session} for {silent}: another is opened in its place"
                    )
                }
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
        EventKind::InterfaceChanged { faults } if faults.is_empty() => {
            "the interface is as it should be again".to_owned()
        }
        EventKind::InterfaceChanged { faults } => {
            format!("another program has changed the interface: {}", faults.join("; "))
        }
        EventKind::KeyRotated { epoch } => {
            format!("a new WireGuard key is published, valid from {}", utc(60 * u64::from(*epoch)))
        }
        EventKind::ConfigChanged { key, value } => format!("{key} is {value} now"),
        EventKind::JoinProgress { step } => format!("joining: {}", describe_step(*step)),
        EventKind::Log { level, target, message } => format!("{level} {target}: {message}"),
    }
}

fn name_of(session: SessionName) -> &'static str {
    match session {
        SessionName::Control => "control session",
        SessionName::Fallback => "fallback session",
        SessionName::Data => "data session",
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
        let banned = |name: Option<&str>| EventKind::BanRemoved {
            node_id: "abcdefghijk".to_owned(),
            name: name.map(str::to_owned),
        };
        assert_eq!(describe(&banned(Some("web"))), "web (abcdefghij) is not banned any more");
        assert_eq!(describe(&banned(None)), "abcdefghij is not banned any more");
        let fine = |replaced| EventKind::SessionHealth {
            session: SessionName::Control,
            health: SessionHealth::Fine,
            silent: 0,
            replaced,
        };
        assert_eq!(describe(&fine(false)), "the control session carries traffic again");
        assert_eq!(
            describe(&fine(true)),
            "another control session was opened in the place of the silent one"
        );
        let nameless = EventKind::TunnelUp { node_id: "abcdefghijk".to_owned(), name: String::new() };
        assert_eq!(describe(&nameless), "the tunnel to abcdefghij is up");
        assert_eq!(
            describe(&EventKind::JoinProgress { step: JoinStep::Asking }),
            "joining: found the inviter, asking it"
        );
    }
}
