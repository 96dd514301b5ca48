//! How the node does, in one line for its supervisor.

use i2plan_ipc::Role;
use i2plan_ipc::api::meshd::{SessionState, Status};

use super::observer::HANDSHAKE_LASTS;

/// What is wrong and what to do about it, or else that nothing is. The first thing that others wait for counts.
pub(super) fn line(status: &Status) -> String {
    let daemon = |role: Role| {
        let found = status.daemons.iter().find(|daemon| daemon.name == role.to_string());
        found.and_then(|daemon| daemon.error.as_deref())
    };
    if let Some(error) = daemon(Role::Meshd) {
        return format!("{error}; make room, or make its directory writable");
    }
    if let Some(error) = daemon(Role::Keyd) {
        return format!("waiting for keyd: {error}");
    }
    for (name, session) in [("control", &status.sam.control), ("data", &status.sam.data)] {
        if session.state != SessionState::Up {
            let reason = session.error.as_deref().unwrap_or("it is being opened");
            return format!("waiting for the I2P {name} session: {reason}");
        }
    }
    if let Some(error) = daemon(Role::Tund) {
        return format!("waiting for tund: {error}");
    }
    match &status.network {
        Some(network) => format!("{} in a network of {} members", network.ipv4, network.members),
        None => "in no network yet: create an invite, or join".to_owned(),
    }
}

/// The same of an interface with static peers, which is in no mesh.
pub(super) fn static_line(status: &Status) -> String {
    for daemon in &status.daemons {
        if let Some(error) = &daemon.error {
            return format!("waiting for {}: {error}", daemon.name);
        }
    }
    let session = &status.sam.data;
    if session.state != SessionState::Up {
        let reason = session.error.as_deref().unwrap_or("it is being opened");
        return format!("waiting for the I2P session: {reason}");
    }
    let peers = status.static_interface.iter().flat_map(|interface| &interface.peers);
    let is_up = |age: &u64| *age < HANDSHAKE_LASTS;
    let (all, up) = peers.fold((0, 0), |(all, up), peer| {
        (all + 1, up + usize::from(peer.last_handshake.as_ref().is_some_and(is_up)))
    });
    format!("{up} of {all} static peers are connected")
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::{Network, Session};
    use i2plan_ipc::fixtures;

    use super::*;

    fn session(state: SessionState, error: Option<&str>) -> Session {
        Session { state, error: error.map(ToOwned::to_owned), ..fixtures::session() }
    }

    fn status() -> Status {
        Status {
            network: Some(Network { ipv4: [10, 42, 3, 4].into(), ..fixtures::network() }),
            daemons: [Role::Keyd, Role::Meshd, Role::Tund]
                .map(|role| fixtures::daemon(&role.to_string()))
                .into(),
            ..fixtures::status()
        }
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_told() {
        let mut status = status();
        assert_eq!(line(&status), "10.42.3.4 in a network of 3 members");
        status.network = None;
        assert!(line(&status).starts_with("in no network yet"));
        status.daemons[2].error = Some("there is no /dev/net/tun".to_owned());
        assert_eq!(line(&status), "waiting for tund: there is no /dev/net/tun");
        status.sam.data = session(SessionState::Opening, None);
        assert!(line(&status).contains("I2P data session: it is being opened"));
        status.sam.control = session(SessionState::Down, Some("no SAM bridge at 127.0.0.1:7656"));
        assert!(line(&status).ends_with("I2P control session: no SAM bridge at 127.0.0.1:7656"));
        status.daemons[0].error = Some("not reached yet".to_owned());
        assert_eq!(line(&status), "waiting for keyd: not reached yet");
        status.daemons[1].error = Some("cannot save the state: No space left on device".to_owned());
        assert!(line(&status).contains("No space left on device; make room"));
    }
}
