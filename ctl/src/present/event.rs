//! What happens at a node.

use i2plan_ipc::api::meshd::{BanReason, JoinStep, Life, SessionName, SessionState, What};

use super::member::{label, short};

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

impl From<&What> for Level {
    fn from(what: &What) -> Self {
        match what {
            What::Log { level, .. } => match level.as_str() {
                "error" => Self::Error,
                "warn" => Self::Warn,
                _ => Self::Info,
            },
            What::DaemonDown { .. } | What::NetworkLeft { revoked: true, .. } => Self::Error,
            What::TunnelDown { .. }
            | What::MemberLife { life: Life::Suspected | Life::Unreachable, .. }
            | What::BanAdded { .. }
            | What::Session { state: SessionState::Down, .. } => Self::Warn,
            _ => Self::Info,
        }
    }
}

/// What happened, in a sentence.
#[must_use]
pub fn describe(what: &What) -> String {
    let member = label;
    match what {
        What::NetworkJoined { network, ipv4 } => format!("this node is a member of {network}, at {ipv4}"),
        What::NetworkLeft { network, revoked: true } => {
            format!("this node's membership of {network} is revoked")
        }
        What::NetworkLeft { network, revoked: false } => format!("this node has left {network}"),
        What::AddressChanged { ipv4 } => format!("this node's address is {ipv4} now"),
        What::MemberAdded { node_id, name } => format!("{} is a member", member(name, node_id)),
        What::MemberChanged { node_id, name } => format!("{} has changed", member(name, node_id)),
        What::MemberRemoved { node_id, name } => format!("{} is no member any more", member(name, node_id)),
        What::MemberLife { node_id, name, life } => {
            let life = match life {
                Life::Present => "is there",
                Life::Suspected => "may be out of reach",
                Life::Unreachable => "is unreachable",
                Life::Away => "shuts down",
            };
            format!("{} {life}", member(name, node_id))
        }
        What::TunnelUp { node_id, name } => format!("the tunnel to {} is up", member(name, node_id)),
        What::TunnelDown { node_id, name } => format!("the tunnel to {} is down", member(name, node_id)),
        What::InviteCreated { id } => format!("invite {id} was made"),
        What::InviteUsed { id, node_id } => format!("invite {id} was used by {}", short(node_id)),
        What::InviteRevoked { id } => format!("invite {id} is revoked"),
        What::BanAdded { node_id, reason } => {
            let reason = match reason {
                BanReason::Manual => "by hand",
                BanReason::InvalidMessages => "for invalid messages",
            };
            format!("{} is banned {reason}", short(node_id))
        }
        What::BanRemoved { node_id } => format!("{} is not banned any more", short(node_id)),
        What::Session { session, state, error } => {
            let session = match session {
                SessionName::Control => "control session",
                SessionName::Substitute => "session in place of the control session",
                SessionName::Data => "data session",
            };
            match error {
                Some(error) if *state == SessionState::Down => format!("the {session} is down: {error}"),
                // That was why it was down before.
                _ => format!("the {session} is {}", describe_state(*state)),
            }
        }
        What::DaemonUp { daemon } => format!("{daemon} answers"),
        What::DaemonDown { daemon, error } => format!("{daemon} does not work: {error}"),
        What::InterfaceUp { interface } => format!("interface {interface} is up"),
        What::ForeignNumber { number } => format!(
            "this node's keys have signed number {number} elsewhere: another machine uses them, or a backup was restored"
        ),
        What::HostOverlap { overlaps } if overlaps.is_empty() => {
            "the host uses none of the network's addresses otherwise any more".to_owned()
        }
        What::HostOverlap { overlaps } => {
            format!("the host uses addresses of the network otherwise: {}", overlaps.join("; "))
        }
        What::KeyRotated { epoch } => format!("a new WireGuard key is published, epoch {epoch}"),
        What::ConfigChanged { key, value } => format!("{key} is {value} now"),
        What::JoinProgress { step } => format!("joining: {}", describe_step(*step)),
        What::Log { level, target, message } => format!("{level} {target}: {message}"),
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
        let event = What::MemberLife {
            node_id: "abcdefghijk".to_owned(),
            name: "web".to_owned(),
            life: Life::Unreachable,
        };
        assert_eq!(describe(&event), "web (abcdefghij) is unreachable");
        let session = What::Session {
            session: SessionName::Data,
            state: SessionState::Down,
            error: Some("gone".to_owned()),
        };
        assert_eq!(describe(&session), "the data session is down: gone");
        let again = What::Session {
            session: SessionName::Data,
            state: SessionState::Opening,
            error: Some("gone".to_owned()),
        };
        assert_eq!(describe(&again), "the data session is being opened");
        let nameless = What::TunnelUp { node_id: "abcdefghijk".to_owned(), name: String::new() };
        assert_eq!(describe(&nameless), "the tunnel to abcdefghij is up");
        assert_eq!(
            describe(&What::JoinProgress { step: JoinStep::Asking }),
            "joining: found the inviter, asking it"
        );
    }
}
