//! Runs an i2plan node inside another program, on Linux.
//!
//! [`Node::builder`] says what the node is to be, and [`Builder::start`] starts its daemons: the same programs as those of
//! the packages, each with a user and a sandbox of its own. They are looked for beside the program, where packages put
//! them (`/usr/libexec/i2plan`), or in a directory that is named. [`Node`] then asks and changes what `i2planctl` can,
//! and tells what happens. [`Node::stop`] stops the daemons, and dropping the node kills them.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use i2plan::{Happening, Node};
//!
//! // A daemon begins as a copy of this program: before there is a thread, so not under #[tokio::main].
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     i2plan::become_daemon_if_asked();
//!     tokio::runtime::Runtime::new()?.block_on(run())
//! }
//!
//! async fn run() -> Result<(), Box<dyn std::error::Error>> {
//!     let node = Node::builder("game-server").data_dir("/var/lib/game/node").run_dir("/run/game").start().await?;
//!     let mut happenings = node.happenings();
//!     node.until_ready(Duration::from_secs(300)).await?;
//!     let invite = node.create_invite(Duration::from_secs(3600), Some(1)).await?;
//!     println!("give this to a friend: {}", invite.invite.expose());
//!     loop {
//!         match happenings.next().await {
//!             Happening::Mesh(event) => println!("{:?}", event.kind),
//!             Happening::Daemon(event) => println!("{event}"),
//!             Happening::Missed(count) => println!("{count:?} events were missed"),
//!             Happening::State(state) if state.is_over() => break,
//!             Happening::State(_) => {}
//!         }
//!     }
//!     node.stop().await;
//!     Ok(())
//! }
//! ```
//!
//! # What it needs
//!
//! Root, the users of the daemons (those of the packages, or [`Builder::users`]), an I2P router with a SAM bridge, and that
//! every user can execute the program. What else must hold, and what changes in the process, says `i2plan-supervisor`,
//! whose thread this crate gives the node. `I2PLAN_…` variables win over what the builder is told, as they do over a
//! configuration file.

#![cfg(target_os = "linux")]

mod builder;
mod happenings;
mod node;

pub use builder::{Builder, StartError};
pub use happenings::{Happening, Happenings};
pub use i2plan_ipc::api::meshd as api;
pub use i2plan_ipc::client::ClientError;
pub use i2plan_ipc::node::Node as Client;
pub use i2plan_ipc::passphrase::Passphrase;
pub use i2plan_ipc::secret::SecretText;
pub use i2plan_supervisor::{DaemonError, DaemonEvent, Sink};
pub use node::{Node, State};

/// Becomes a daemon if this process was started for that, else does nothing. To be called first in `main`, before there is
/// another thread. If it cannot become one, it says why on standard error and ends the process.
pub fn become_daemon_if_asked() {
    if let Err(error) = i2plan_supervisor::launch::intercept(std::env::args_os()) {
        eprintln!("{error}");
        std::process::exit(i2plan_supervisor::launch::EXIT_STATUS.into());
    }
}
