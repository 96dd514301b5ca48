//! What outlives this process: the interface, the sessions' descriptors, and what is needed to go on with them.
//!
//! The supervisor keeps them (the fd store of systemd, or of `i2planctl up`): the interface, the descriptors
//! of each session, and a sealed memory file with a [`State`]. The [`FdStore`] gives them there; [`found`] looks at
//! what comes back. No key is among them: they are leased from `keyd` again.
//!
//! Whenever the process ends, what is in the store fits together: a new state is stored before what only the one
//! before needs is let go.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use i2plan_ipc::api::tund::{self, Interface};
use i2plan_ipc::daemon::notify::Supervisor;
use i2plan_ipc::frame::{FrameError, decode_body, encode_body};
use i2plan_proto::endpoint::Endpoint;
use i2plan_proto::identity::NodeId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::roster::StoredMembers;
use crate::session::Session;

#[cfg(target_os = "linux")]
pub mod found;
mod memory;

/// The encoding that this version writes and reads.
const FORMAT: u32 = 4;

/// Longest encoding of a state, bytes: of ten thousand members with two certificates each, and room for the rest.
const MAX_STATE: usize = 9 * 1024 * 1024;

/// The interface's name in the store.
const TUN: &str = "tun";

/// What a state's name in the store begins with. There are two while one takes the place of the other.
const STATE: &str = "state.";

/// What the names of sessions' descriptors begin with. Not the session's id follows but a number: whoever knows the
/// id can send in the session's name, and the names pass through places that others can see.
const SOCKETS: [&str; 2] = ["udp.", "tcp."];

/// What is needed to go on with what is in the fd store. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// The highest is the newest.
    number: u64,
    /// With the epoch of the WireGuard key.
    interface: Option<(Interface, u32)>,
    data: Option<SessionInfo>,
    control: Option<SessionInfo>,
    members: StoredMembers,
    /// Where static peers are.
    #[serde(default)]
    destinations: Vec<PeerPlace>,
}

/// A static peer, by its WireGuard key, and its destination.
pub type PeerPlace = (NodeId, Endpoint);

/// A session, and what its descriptors must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SessionInfo {
    /// In the names of its descriptors.
    number: u64,
    session: tund::Session,
    /// What its UDP socket is bound to.
    local: SocketAddr,
    /// What its control connection is connected to.
    bridge: SocketAddr,
}

impl State {
    fn empty() -> Self {
        Self {
            format: FORMAT,
            number: 0,
            interface: None,
            data: None,
            control: None,
            members: StoredMembers::default(),
            destinations: Vec::new(),
        }
    }

    /// Reads a state.
    ///
    /// # Errors
    /// [`FrameError`] if the bytes are none, or another version's.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > MAX_STATE {
            return Err(FrameError::TooLong { len: bytes.len(), max: MAX_STATE });
        }
        let state: Self = decode_body(bytes)?;
        if state.format != FORMAT {
            return Err(FrameError::Body(format!("its format is {}, not {FORMAT}", state.format)));
        }
        Ok(state)
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`FrameError`] if it cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        encode_body(self).map(|body| body.to_vec())
    }
}

/// The two sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// For data.
    Data,
    /// For control messages.
    Control,
}

/// What the supervisor keeps in its fd store, since it outlives this process.
#[derive(Debug)]
pub struct FdStore {
    supervisor: &'static Supervisor,
    state: Mutex<State>,
}

impl FdStore {
    /// One with nothing to keep yet.
    #[must_use]
    pub fn new(supervisor: &'static Supervisor) -> Self {
        Self { supervisor, state: Mutex::new(State::empty()) }
    }

    /// Keeps the interface.
    pub fn interface(&self, interface: &Interface, epoch: u32, device: BorrowedFd<'_>) {
        if cfg!(target_os = "linux") {
            self.supervisor.keep(TUN, device, true);
        }
        self.set_interface(Some((interface.clone(), epoch)));
    }

    /// Keeps an interface with static peers. What it is to be the next process is told again.
    #[cfg(target_os = "linux")]
    pub fn static_interface(&self, device: BorrowedFd<'_>) {
        self.supervisor.keep(TUN, device, true);
    }

    /// Notes another epoch of the WireGuard key.
    pub fn epoch(&self, epoch: u32) {
        let interface = self.state().interface.clone();
        self.set_interface(interface.map(|(interface, _)| (interface, epoch)));
    }

    /// Notes the members.
    pub fn members(&self, members: StoredMembers) {
        let mut state = self.state();
        if state.members != members {
            state.members = members;
            self.store(&mut state);
        }
    }

    /// Notes where static peers are.
    pub fn destinations(&self, destinations: Vec<PeerPlace>) {
        let mut state = self.state();
        if state.destinations != destinations {
            state.destinations = destinations;
            self.store(&mut state);
        }
    }

    /// Keeps a session in place of the one before. False if it is this one that is kept already.
    pub fn session(&self, kind: SessionKind, session: &Session) -> bool {
        let mut state = self.state();
        let before = of_kind(&mut state, kind).take();
        let number = before.as_ref().map_or(0, |before| before.number);
        let Some(kept) = SessionInfo::new(session, number) else {
            // Its connection has ended already.
            *of_kind(&mut state, kind) = before;
            return true;
        };
        if before.as_ref() == Some(&kept) {
            *of_kind(&mut state, kind) = before;
            return false;
        }
        let kept = SessionInfo { number: state.number + 1, ..kept };
        if cfg!(target_os = "linux") {
            let [udp, tcp] = names(kept.number);
            // What is left of an ICMP error is no end of a UDP socket.
            self.supervisor.keep(&udp, session.udp.as_fd(), false);
            self.supervisor.keep(&tcp, session.control(), true);
        }
        *of_kind(&mut state, kind) = Some(kept);
        self.store(&mut state);
        for name in before.iter().flat_map(|before| names(before.number)) {
            self.supervisor.forget(&name);
        }
        true
    }

    /// Lets go of everything: it is over, or another interface is wanted.
    pub fn nothing(&self) {
        let mut state = self.state();
        self.supervisor.forget(&state_name(state.number));
        for kept in [state.data.take(), state.control.take()].into_iter().flatten() {
            for name in names(kept.number) {
                self.supervisor.forget(&name);
            }
        }
        if state.interface.take().is_some() {
            self.supervisor.forget(TUN);
        }
        state.members = StoredMembers::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_interface(&self, interface: Option<(Interface, u32)>) {
        let mut state = self.state();
        if state.interface != interface {
            state.interface = interface;
            self.store(&mut state);
        }
    }

    /// Stores the state in place of the one before.
    fn store(&self, state: &mut State) {
        let before = state_name(state.number);
        state.number += 1;
        if !self.supervisor.is_there() || !cfg!(target_os = "linux") {
            return;
        }
        let encoded = state.encode().map_err(std::io::Error::other);
        match encoded.and_then(|bytes| memory::sealed(&bytes)) {
            Ok(file) => self.supervisor.keep(&state_name(state.number), file.as_fd(), false),
            // What is stored does not fit any more; the next process begins anew.
            Err(error) => {
                warn!(%error, "a restart of this daemon will be noticed: its state cannot be put into the fd store");
            }
        }
        self.supervisor.forget(&before);
    }
}

impl SessionInfo {
    fn new(session: &Session, number: u64) -> Option<Self> {
        let local = session.udp.local_addr().ok()?;
        Some(Self { number, session: session.describe(), local, bridge: session.connected_to()? })
    }
}

fn of_kind(state: &mut State, kind: SessionKind) -> &mut Option<SessionInfo> {
    match kind {
        SessionKind::Data => &mut state.data,
        SessionKind::Control => &mut state.control,
    }
}

fn state_name(number: u64) -> String {
    format!("{STATE}{number}")
}

fn names(number: u64) -> [String; 2] {
    SOCKETS.map(|socket| format!("{socket}{number}"))
}
