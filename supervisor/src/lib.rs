//! Runs the daemons of one i2plan node on Linux without systemd, inside a program of the caller's.
//!
//! The daemons stay programs of their own (`i2plan-keyd` and the others): each runs as a user of its own, without
//! privileges, behind its sandbox. This crate makes their directories and sockets, starts them, keeps the descriptors
//! that they have it keep, starts those again that end, passes on what they print, and stops them. `i2planctl up` is a
//! program that uses it.
//!
//! # What a program calls
//!
//! 1. [`launch::intercept`], first in `main`: each daemon's process begins as a copy of the program.
//! 2. [`Accounts::find`](users::Accounts::find) for the users, [`Programs`] for the executables, and [`Node::new`], whose
//!    result it changes as it likes.
//! 3. [`Relay::start`], with a [`Sink`] for what is printed.
//! 4. [`Supervisor::start`], then [`Supervisor::failure`], [`reload`](Supervisor::reload) and at the end
//!    [`stop`](Supervisor::stop). To use the node it connects to `meshd.sock` below [`Node::run`] with `i2plan_ipc::Node`.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use i2plan_supervisor::users::{Accounts, UserNames, control_group};
//! use i2plan_supervisor::{Node, Programs, Relay, Sink, Supervisor, launch};
//!
//! fn main() -> ExitCode {
//!     if let Err(error) = launch::intercept(std::env::args_os()) {
//!         eprintln!("{error}");
//!         return ExitCode::from(launch::EXIT_STATUS);
//!     }
//!     // One thread: daemons end with the thread that started them.
//!     let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//!     match runtime.block_on(run()) {
//!         Ok(()) => ExitCode::SUCCESS,
//!         Err(error) => {
//!             eprintln!("{error}");
//!             ExitCode::FAILURE
//!         }
//!     }
//! }
//!
//! struct Log;
//!
//! impl Sink for Log {
//!     fn write(&mut self, lines: &str) {
//!         eprint!("{lines}");
//!     }
//! }
//!
//! async fn run() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = i2plan_config::Config::load(None)?;
//!     let accounts = Accounts::find(&UserNames {
//!         rpc: config.rpc_enabled.then_some("i2plan-rpc"),
//!         web: config.web_enabled.then_some("i2plan-web"),
//!         router: config.router_enabled.then_some("i2plan-routerd"),
//!         ..UserNames::default()
//!     })?;
//!     let mut node = Node::new(&config, accounts, Programs::beside_this()?);
//!     node.group = control_group(None)?;
//!
//!     // Dropped last: it writes what is left.
//!     let (lines, _writer) = Relay::start("example", Log);
//!     let events = lines.clone();
//!     let mut supervisor =
//!         Supervisor::start(&node, &lines, move |event| events.line(&format!("example: {event}"))).await?;
//!     tokio::select! {
//!         error = supervisor.failure() => {
//!             supervisor.stop().await;
//!             Err(error.into())
//!         }
//!         _ = tokio::signal::ctrl_c() => {
//!             supervisor.stop().await;
//!             Ok(())
//!         }
//!     }
//! }
//! ```
//!
//! # What it needs
//!
//! * Root, or in a user namespace the root of that: for the users of the daemons and CAP_NET_ADMIN of `tund`. Without it
//!   [`Supervisor::start`] fails with [`StartError::NotRoot`].
//! * A user for each daemon ([`users`]); none is root, and all differ. They must be able to execute the launcher and the
//!   daemons.
//! * Directories where no other user can put something else in the place of what is there ([`layout`]).
//! * A tokio runtime of one thread with all drivers enabled. The kernel ends a daemon with the thread that started it,
//!   so that no daemon outlives its supervisor; a program with more threads gives one of them to the node. That thread
//!   lives as long as the node.
//!
//! A program can run several nodes, each with a `data` and a `run` directory of its own.
//!
//! # What it changes in the process
//!
//! It sets the umask to 022 and takes SIGCHLD, as tokio does for every child process. It handles no other signal, reads
//! no standard input, and prints nothing but by the [`Sink`].
//!
//! Of the environment the daemons get `I2PLAN_…` variables, `PATH`, `LANG`, `TZ` and few more.
//!
//! # Keys of a node that does not run
//!
//! [`maintenance::StoppedNode`] seals them with a passphrase and unseals them.

#![cfg(target_os = "linux")]

mod backoff;
mod daemon;
mod error;
mod event;
pub mod launch;
pub mod layout;
pub mod maintenance;
mod node;
mod notify_receiver;
mod programs;
mod relay;
mod sam_login;
mod supervisor;
pub mod users;

pub use daemon::DaemonError;
pub use error::StartError;
pub use event::DaemonEvent;
pub use node::{Node, PeerSource, StaticNode};
pub use programs::{ProgramError, Programs};
pub use relay::{Relay, Sink, Writer};
pub use sam_login::{SamLogin, SamLoginError};
pub use supervisor::Supervisor;
