//! What a node is to be, and its start.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use i2plan_config::save::{SaveError, save};
use i2plan_config::{Config, ConfigError};
use i2plan_ipc::daemon::trusted::{self, Untrusted};
use i2plan_ipc::passphrase::Passphrase;
use i2plan_supervisor::users::{Accounts, UserError, UserNames};
use i2plan_supervisor::{ProgramError, Programs, SamLogin, SamLoginError, Sink};
use thiserror::Error;

use crate::node::Node;

/// The configuration of the node, in its data directory: made anew at each start.
const CONFIG: &str = "config.toml";

/// Why a node does not start. Nothing of it runs then.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is unknown, or its value is not one.
    #[error(transparent)]
    Setting(#[from] SaveError),
    /// The settings contradict each other, or an `I2PLAN_…` variable is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The SAM bridge's user and password cannot be had.
    #[error(transparent)]
    SamLogin(#[from] SamLoginError),
    /// The daemons have no users.
    #[error(
        "{0}; the packages make users for the daemons (packaging/sysusers.d), and Builder::users names others"
    )]
    User(#[from] UserError),
    /// This program's own file cannot be found.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Others could put something in the place of the configuration.
    #[error(transparent)]
    Directory(#[from] Untrusted),
    /// The configuration cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// It, or its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The daemons cannot be started.
    #[error(transparent)]
    Supervisor(#[from] i2plan_supervisor::StartError),
    /// There is no thread for them.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What a node is to be. What is not said is as the documentation of the configuration has it.
pub struct Builder {
    settings: Vec<(String, String)>,
    data: PathBuf,
    run: PathBuf,
    wireguard: Option<PathBuf>,
    programs: Option<PathBuf>,
    users: Option<String>,
    passphrase: Option<Passphrase>,
    log: Box<dyn FnMut(&str) + Send>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { settings, data, run, .. } = self;
        f.debug_struct("Builder")
            .field("settings", settings)
            .field("data", data)
            .field("run", run)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        let builder = Self {
            settings: Vec::new(),
            data: i2plan_ipc::paths::STATE_DIR.into(),
            run: i2plan_ipc::paths::RUN_DIR.into(),
            wireguard: None,
            programs: None,
            users: None,
            passphrase: None,
            log: Box::new(|lines| eprint!("{lines}")),
        };
        // One process less: the program has this crate.
        builder.setting("node.name", name).setting("rpc.enabled", false)
    }

    /// Gives a key of the configuration file, `section.key`, a value. Whether there is such a key is said at the start.
    #[must_use]
    pub fn setting(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Where the daemons keep their state: the keys among it. Each node has a directory of its own.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data = path.into();
        self
    }

    /// Where the sockets are. Each node that runs has a directory of its own.
    #[must_use]
    pub fn run_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.run = path.into();
        self
    }

    /// The directory in which `wg` looks for the interface's socket, `/var/run/wireguard` if it is not said.
    #[must_use]
    pub fn wireguard_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.wireguard = Some(path.into());
        self
    }

    /// Where the I2P router's SAM bridge is, as `host:port`.
    #[must_use]
    pub fn sam_address(self, address: &str) -> Self {
        self.setting("i2p.sam_address", address)
    }

    /// Hops of the I2P tunnels.
    #[must_use]
    pub fn tunnel_length(self, hops: u8) -> Self {
        self.setting("i2p.tunnel_length", hops)
    }

    /// The subnet of networks that the node founds.
    #[must_use]
    pub fn subnet(self, subnet: &str) -> Self {
        self.setting("mesh.tunnel_subnet", subnet)
    }

    /// Members with which it has tunnels at once.
    #[must_use]
    pub fn max_peers(self, peers: u32) -> Self {
        self.setting("mesh.max_peers", peers)
    }

    /// The name of the interface.
    #[must_use]
    pub fn interface(self, name: &str) -> Self {
        self.setting("tun.interface", name)
    }

    /// Has JSON-RPC at this path, or at one below the directory of the sockets. There is none unless this is said.
    #[must_use]
    pub fn rpc(self, socket: impl AsRef<Path>) -> Self {
        self.setting("rpc.enabled", true).setting("rpc.socket", socket.as_ref().display())
    }

    /// Has the web pages at an address of loopback.
    #[must_use]
    pub fn web(self, listen: SocketAddr) -> Self {
        self.setting("web.enabled", true).setting("web.listen", listen)
    }

    /// A directory with the daemons, in place of that of the program and those of packages.
    #[must_use]
    pub fn programs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.programs = Some(directory.into());
        self
    }

    /// What the names of the daemons' users begin with, `i2plan-` if it is not said: `PREFIXkeyd`, `PREFIXmeshd`,
    /// `PREFIXtund`, `PREFIXconnector`, and `PREFIXrpc`, `PREFIXweb`, `PREFIXnames`, `PREFIXrouterd` where those run.
    #[must_use]
    pub fn users(mut self, prefix: &str) -> Self {
        self.users = Some(prefix.to_owned());
        self
    }

    /// The passphrase of the keys, if they are or are to be sealed.
    #[must_use]
    pub fn passphrase(mut self, passphrase: Passphrase) -> Self {
        self.passphrase = Some(passphrase);
        self
    }

    /// What is done with the daemons' log lines, on a thread of their own. Unless this is said they go to standard error.
    #[must_use]
    pub fn log(mut self, write: impl FnMut(&str) + Send + 'static) -> Self {
        self.log = Box::new(write);
        self
    }

    /// Starts the daemons. They run when it returns, but have not opened their I2P sessions: [`Node::until_ready`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Node, StartError> {
        let config = self.write_config()?;
        let prefix = self.users.as_deref().unwrap_or("i2plan-");
        let user = |daemon: &str| format!("{prefix}{daemon}");
        let [keyd, meshd, tund, connector] = ["keyd", "meshd", "tund", "connector"].map(user);
        let [rpc, web, names, router] = ["rpc", "web", "names", "routerd"].map(user);
        let accounts = Accounts::find(&UserNames {
            keyd: &keyd,
            meshd: &meshd,
            tund: &tund,
            connector: &connector,
            rpc: config.rpc_enabled.then_some(&rpc),
            web: config.web_enabled.then_some(&web),
            names: config.names_enabled.then_some(&names),
            router: config.router_enabled.then_some(&router),
        })?;
        let mut programs = Programs::beside_this()?;
        if let Some(directory) = self.programs {
            programs.directories = vec![directory];
        }
        let mut node = i2plan_supervisor::Node::new(&config, accounts, programs);
        node.sam_login = SamLogin::read(&config)?;
        (node.data, node.run, node.passphrase) = (self.data, self.run, self.passphrase);
        if let Some(wireguard) = self.wireguard {
            node.wireguard = wireguard;
        }
        Node::start(node, Log(self.log)).await
    }

    /// Writes what the node is to be where its daemons read it, and reads it as they will.
    fn write_config(&self) -> Result<Config, StartError> {
        let (path, new) = (self.data.join(CONFIG), self.data.join("config.toml.new"));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Write { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o755).create(&self.data).map_err(failed(&self.data))?;
        // Before anything is written there as root.
        trusted::directory(&self.data)?;
        std::fs::write(&new, "").map_err(failed(&new))?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o644)).map_err(failed(&new))?;
        for (key, value) in &self.settings {
            save(&new, key, value)?;
        }
        std::fs::rename(&new, &path).map_err(failed(&path))?;
        Ok(Config::load(Some(&path))?)
    }
}

struct Log(Box<dyn FnMut(&str) + Send>);

impl Sink for Log {
    fn write(&mut self, lines: &str) {
        (self.0)(lines);
    }
}
