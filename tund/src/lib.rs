//! `i2plan-tund`: carries packets between a TUN interface and the SAM bridge, inside WireGuard.
//!
//! The protocol is in [`tunnel`], which does no input or output; [`io`] moves packets, [`service`] answers
//! meshd. The daemon is single-threaded: what takes time is the router, and a second thread would keep the
//! privileges that the first gives up.

use std::io::Error as IoError;
use std::sync::Arc;

use i2plan_ipc::Role;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::daemon::activation::ActivationError;
use i2plan_ipc::daemon::notify::Supervisor;
use i2plan_ipc::daemon::sandbox::SandboxError;
use i2plan_ipc::daemon::users::UnknownUser;
use i2plan_ipc::daemon::{activation, hardening, logging, users};
use i2plan_ipc::server::{Limits, serve};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub mod device;
pub mod interface;
pub mod io;
pub mod options;
pub mod privileges;
mod readiness;
pub mod service;
pub mod session;
pub mod tunnel;
pub mod walls;

/// Why the daemon does not start, or does not go on.
#[derive(Debug, Error)]
pub enum EndReason {
    /// The process cannot be hardened.
    #[error("cannot harden the process: {0}")]
    Harden(IoError),
    /// The log filter is wrong.
    #[error(transparent)]
    Log(#[from] logging::LogError),
    /// There is no such user.
    #[error("--meshd-user: {0}")]
    User(#[from] UnknownUser),
    /// There is no socket to listen on.
    #[error(transparent)]
    Listen(#[from] ActivationError),
    /// The runtime cannot start.
    #[error("cannot start: {0}")]
    Runtime(IoError),
    /// It has more privileges than it may have, or less than it needs.
    #[error(transparent)]
    Privileges(#[from] privileges::PrivilegeError),
    /// The walls do not stand.
    #[error(transparent)]
    Walls(#[from] SandboxError),
    /// Another interface is wanted than there is, or none, and the privilege to see to that is gone: the next process
    /// has it.
    #[error("the interface is to be another one: starting again")]
    AnotherInterface,
    /// The interface went away.
    #[error("the interface is gone: {0}")]
    Interface(IoError),
}

/// Runs the daemon until it is asked to stop.
///
/// # Errors
/// [`EndReason`].
pub fn run(options: &options::Options) -> Result<(), EndReason> {
    hardening::harden().map_err(EndReason::Harden)?;
    privileges::start()?;
    logging::init()?;
    let meshd = users::user_id(&options.meshd_user)?;
    hardening::lock_memory();
    let listener = activation::listener(options.listen.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(EndReason::Runtime)?;
    let supervisor = Supervisor::connect();
    runtime.block_on(async {
        listener.set_nonblocking(true).map_err(EndReason::Runtime)?;
        let listener = UnixListener::from_std(listener).map_err(EndReason::Runtime)?;
        let (fatal, mut reason) = mpsc::channel(1);
        let service = Arc::new(service::Tund::new(&options.keyd_socket, fatal));
        let access = Access::new([(Role::Meshd, Who::User(meshd))]);
        let mut terminate = signal(SignalKind::terminate()).map_err(EndReason::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(EndReason::Runtime)?;
        walls::before_the_interface()?;
        supervisor.ready();
        tokio::select! {
            () = serve(listener, Arc::clone(&service), access, Limits::default()) => {}
            Some(reason) = reason.recv() => return Err(reason),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        service.quit().await;
        Ok(())
    })
}
