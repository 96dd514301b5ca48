//! Descriptions of interfaces with static peers, where they are, and what is wrong in them.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use i2plan_config::Config;
use i2plan_config::static_interface::{Fault, InterfaceFile, StaticConfig, StaticConfigError};
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::tund::StaticPeer;
use rustix::io::Errno;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::output;

/// How long an interface may take to change a peer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Wait before it is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Room for what is said of a peer: more than most take.
const MAX_CHANGE: usize = 8 * 1024;

/// Where the files of services are.
const FILES: &str = "/etc/i2plan/static";

/// Reads a file. The SAM bridge of the I2P router is at these addresses.
///
/// # Errors
/// What is wrong in it, with lines and remedies.
pub fn load(json: bool, file: &InterfaceFile, routers: &[IpAddr]) -> Result<StaticConfig, Failure> {
    file.load(routers).map_err(|error| match error {
        StaticConfigError::Faults(faults) => explain(json, &faults),
        StaticConfigError::Read { .. } => Failure::invalid(error.to_string()),
    })
}

/// The addresses of the SAM bridge, as far as the configuration has them.
#[must_use]
pub fn routers(config: &Config) -> Vec<IpAddr> {
    // Where another host of this name is, only the connector can find out.
    config.sam_address.host.known().unwrap_or_default()
}

/// Finds the file of the interface of this name: in the directory of services, or else the configuration.
///
/// # Errors
/// If there is none, or more than one.
pub fn find(json: bool, name: &str, config: &Config) -> Result<InterfaceFile, Failure> {
    find_in(Path::new(FILES), json, name, config)
}

fn find_in(directory: &Path, json: bool, name: &str, config: &Config) -> Result<InterfaceFile, Failure> {
    let [conf, toml] = ["conf", "toml"].map(|extension| directory.join(format!("{name}.{extension}")));
    // What cannot be looked at is told of when it is read.
    let exists = |path: &Path| {
        path.symlink_metadata().map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
    };
    match (exists(&conf), exists(&toml)) {
        // Where nobody but root may look, both seem to be there.
        (true, true) if directory.read_dir().is_err() => Ok(InterfaceFile::new(conf)),
        (true, true) => Err(Failure::invalid(format!(
            "both {} and {} describe the interface {name}",
            conf.display(),
            toml.display()
        ))
        .with_hint("remove one of them")),
        (true, false) => Ok(InterfaceFile::new(conf)),
        (false, true) => Ok(InterfaceFile::new(toml)),
        (false, false) => {
            let file = InterfaceFile::configuration(config.path().to_owned());
            if config.has_interface()
                && file.name(&load(json, &file, &routers(config))?).as_deref() == Ok(name)
            {
                return Ok(file);
            }
            Err(Failure::new(
                ErrorKind::NotFound,
                format!("there is no {} or {}", conf.display(), toml.display()),
            )
            .with_hint(
                "write one, or name the interface that config.toml describes; docs/static.md has examples",
            ))
        }
    }
}

/// The form of a file that somebody names: in the directory of services that of an interface alone, elsewhere TOML is a
/// configuration.
#[must_use]
pub fn file_at(path: PathBuf) -> InterfaceFile {
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    let is_service = std::path::absolute(&path).is_ok_and(|path| path.parent() == Some(Path::new(FILES)));
    if is_toml && !is_service { InterfaceFile::configuration(path) } else { InterfaceFile::new(path) }
}

/// The WireGuard socket of an interface, by which root changes its peers at run time.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// That of the interface of this name, among those in a directory.
    #[must_use]
    pub fn new(directory: &Path, interface: &str) -> Self {
        Self { path: directory.join(format!("{interface}.sock")) }
    }

    /// Adds a peer, or makes one that is there like this.
    ///
    /// # Errors
    /// If the interface does not take it.
    pub async fn add(&self, peer: &StaticPeer) -> Result<(), Failure> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_CHANGE));
        let _ = write!(text, "set=1\npublic_key={}\npreshared_key=", HEXLOWER.encode(&peer.public_key));
        HEXLOWER.encode_append(peer.preshared_key.as_ref().map_or(&[0; 32], |key| &key.0), &mut text);
        let _ = write!(text, "\npersistent_keepalive_interval={}\n", peer.keepalive);
        if let Some(endpoint) = &peer.endpoint {
            let _ = writeln!(text, "endpoint={endpoint}");
        }
        text.push_str("replace_allowed_ips=true\n");
        for prefix in &peer.allowed_ips {
            let _ = writeln!(text, "allowed_ip={}/{}", prefix.address(), prefix.length());
        }
        self.change(text).await
    }

    /// Removes a peer, if it is there.
    ///
    /// # Errors
    /// If the interface does not do it.
    pub async fn remove(&self, public_key: &[u8; 32]) -> Result<(), Failure> {
        let key = HEXLOWER.encode(public_key);
        self.change(Zeroizing::new(format!("set=1\npublic_key={key}\nremove=true\n"))).await
    }

    async fn change(&self, mut text: Zeroizing<String>) -> Result<(), Failure> {
        text.push('\n');
        let failed = |error: io::Error| {
            Failure::new(ErrorKind::Unavailable, format!("{}: {error}", self.path.display()))
        };
        let attempts = async {
            loop {
                match self.ask(&text).await {
                    // A tund that has just started has none yet.
                    Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                        sleep(RETRY).await;
                    }
                    result => return result,
                }
            }
        };
        timeout(DEADLINE, attempts)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)
    }

    async fn ask(&self, text: &str) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.path).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).take(64).read_line(&mut answer).await?;
        match answer.trim().strip_prefix("errno=").and_then(|number| number.parse::<i32>().ok()) {
            Some(0) => Ok(()),
            Some(number) => Err(io::Error::from_raw_os_error(number.saturating_abs())),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Makes one failure of all faults, of which there is at least one. For people all but the last are told at once, each with its remedy.
pub fn explain(json: bool, faults: &[Fault]) -> Failure {
    let single = |fault: &Fault| Failure::invalid(fault.to_string()).with_hint(fault.problem.remedy());
    match faults {
        [others @ .., last] if !json => {
            for fault in others {
                output::note(single(fault).to_string().trim_end());
            }
            single(last)
        }
        [only] => single(only),
        _ => {
            let join = |texts: Vec<String>, with| texts.join(with);
            let messages = faults.iter().map(ToString::to_string).collect();
            let hint = |fault: &Fault| match &fault.place {
                Some((_, line)) => format!("line {line}: {}", fault.problem.remedy()),
                None => fault.problem.remedy().to_owned(),
            };
            let hints = faults.iter().map(hint).collect();
            Failure::invalid(join(messages, "; ")).with_hint(join(hints, "\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn the_file_of_an_interface_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let configuration = |text: &str| {
            std::fs::write(path("config.toml"), text).unwrap();
            let name = |variable| (variable == "I2PLAN_NODE_NAME").then(|| "host".to_owned());
            Config::from_parts(&path("config.toml"), text, name).unwrap()
        };
        let find = |config: &Config| find_in(dir.path(), false, "wg1", config);
        let none = configuration("");
        let missing = find(&none).unwrap_err();
        assert!(missing.message.ends_with("wg1.toml") && missing.hint.is_some(), "{}", missing.message);
        let private = path("key");
        std::fs::write(&private, "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n").unwrap();
        std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let described = |name: &str| {
            format!(
                "[interface]\nname = \"{name}\"\nprivate_key_file = \"{}\"\naddresses = [\"10.9.0.1/24\"]\n\n[[peer]]\n\
                 public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n",
                private.display()
            )
        };
        assert_eq!(find(&configuration(&described("wg0"))).unwrap_err().message, missing.message);
        let config = configuration(&described("wg1"));
        assert_eq!(find(&config).unwrap(), InterfaceFile::configuration(path("config.toml")));
        std::fs::write(path("wg1.toml"), "").unwrap();
        assert_eq!(find(&config).unwrap(), InterfaceFile::new(path("wg1.toml")));
        std::fs::write(path("wg1.conf"), "").unwrap();
        assert!(find(&config).unwrap_err().message.starts_with("both "));
        std::fs::remove_file(path("wg1.toml")).unwrap();
        assert_eq!(find(&none).unwrap(), InterfaceFile::new(path("wg1.conf")));
    }

    /// Answers one request after the other so, and returns what was asked.
    fn serve(path: &Path, answers: &'static [i32]) -> Arc<Mutex<Vec<String>>> {
        let (asked, listener) = (Arc::new(Mutex::new(Vec::new())), UnixListener::bind(path).unwrap());
        let requests = Arc::clone(&asked);
        tokio::spawn(async move {
            for errno in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                while !text.ends_with("\n\n") {
                    let mut part = [0; 4096];
                    let len = stream.read(&mut part).await.unwrap();
                    text += str::from_utf8(&part[..len]).unwrap();
                }
                requests.lock().unwrap().push(text);
                stream.write_all(format!("errno={errno}\n\n").as_bytes()).await.unwrap();
            }
        });
        asked
    }

    #[tokio::test]
    async fn a_peer_is_told_as_the_protocol_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::new(dir.path(), "wg0");
        // At first there is no interface (ENODEV), at last it is refused (EINVAL).
        let asked = serve(&dir.path().join("wg0.sock"), &[-19, 0, 0, -22]);
        let endpoint = format!("{}.b32.i2p", "a".repeat(52));
        let peer = StaticPeer {
            public_key: [0xab; 32],
            preshared_key: None,
            endpoint: Some(endpoint.parse().unwrap()),
            allowed_ips: vec!["10.9.0.2/32".parse().unwrap()],
            keepalive: 25,
        };
        socket.add(&peer).await.unwrap();
        socket.remove(&[0xab; 32]).await.unwrap();
        let refused = socket.remove(&[0xab; 32]).await.unwrap_err();
        assert!(refused.message.contains("Invalid argument"), "{}", refused.message);
        let asked = asked.lock().unwrap();
        let key = "ab".repeat(32);
        let added = format!(
            "set=1\npublic_key={key}\npreshared_key={}\npersistent_keepalive_interval=25\nendpoint={endpoint}\n\
             replace_allowed_ips=true\nallowed_ip=10.9.0.2/32\n\n",
            "0".repeat(64)
        );
        assert_eq!(asked[..2], [added.clone(), added]);
        assert_eq!(asked[2], format!("set=1\npublic_key={key}\nremove=true\n\n"));
    }
}
