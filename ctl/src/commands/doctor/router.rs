//! The I2P router's SAM bridge, as this program finds it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use i2plan_proto::sam::session::{GreetingError, HELLO, read_greeting};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a bridge may take for each step.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Longest line that is read, bytes.
const MAX_LINE: usize = 512;

/// What is known of a bridge.
#[derive(Debug)]
pub(super) struct Bridge {
    /// Its address, as it is configured.
    pub(super) address: String,
    /// The SAM version that it speaks, or why it does not.
    pub(super) version: Result<String, String>,
    /// It takes connections and says nothing.
    pub(super) hangs: bool,
    /// It wants a user and a password.
    pub(super) wants_login: bool,
    /// The program that listens there, if that can be seen.
    pub(super) program: Option<Program>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    name: String,
    pid: u32,
}

impl Program {
    #[cfg(test)]
    pub(super) fn new(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pid }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (pid {})", self.name, self.pid)
    }
}

impl Bridge {
    /// Greets the bridge and looks at who it is.
    pub(super) async fn probe(address: String) -> Self {
        let stream = connect(&address).await;
        let at =
            stream.as_ref().ok().and_then(|stream| stream.peer_addr().ok()).or_else(|| address.parse().ok());
        let mut wants_login = false;
        let (version, hangs) = match stream {
            Ok(stream) => match timeout(TIMEOUT, greet(stream)).await {
                Ok(version) => {
                    wants_login = matches!(version, Err(Ungreeted::Refused(GreetingError::LoginRequired)));
                    (version.map_err(|error| error.to_string()), false)
                }
                Err(_) => (Err(silence()), true),
            },
            Err(error) => (Err(error), false),
        };
        let here = at.filter(|at| at.ip().is_loopback());
        let program = here.and_then(|at| listener(Path::new("/proc"), at.port()));
        Self { address, version, hangs, wants_login, program }
    }

    /// The process id of the node's own router, if that is what listens there.
    pub(super) fn own_router(&self) -> Option<u32> {
        self.program.as_ref().filter(|program| program.name == "i2plan-routerd").map(|program| program.pid)
    }
}

fn silence() -> String {
    format!("it does not answer within {} s", TIMEOUT.as_secs())
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    match timeout(TIMEOUT, TcpStream::connect(address)).await.map_err(|_| silence())? {
        Ok(stream) => Ok(stream),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err("nothing listens there".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn greet(mut stream: TcpStream) -> Result<String, Ungreeted> {
    let exchange = async {
        stream.write_all(HELLO.as_bytes()).await?;
        let mut line = Vec::new();
        while line.len() < MAX_LINE {
            match stream.read_u8().await? {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        Ok::<_, std::io::Error>(line)
    };
    read_greeting(&exchange.await.map_err(Ungreeted::Ended)?).map_err(Ungreeted::Refused)
}

/// Why a bridge did not greet back.
enum Ungreeted {
    Ended(std::io::Error),
    Refused(GreetingError),
}

impl fmt::Display for Ungreeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(error) => write!(f, "it ends the connection: {error}"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// The program that listens on a TCP port, going by `proc(5)`: whose descriptors this user may see.
fn listener(proc: &Path, port: u16) -> Option<Program> {
    let tables = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(proc.join("net").join(name)));
    let inode = tables.iter().flatten().find_map(|table| inode_of(table, port))?;
    let link = format!("socket:[{inode}]");
    let processes = std::fs::read_dir(proc).ok()?.flatten();
    let mut numbered = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = numbered.find(|pid| {
        let descriptors = std::fs::read_dir(proc.join(pid.to_string()).join("fd"));
        let mut links =
            descriptors.into_iter().flatten().flatten().map(|entry| std::fs::read_link(entry.path()));
        links.any(|target| target.is_ok_and(|target| target.as_os_str() == link.as_str()))
    })?;
    let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok()?;
    Some(Program { name: name.trim_end().to_owned(), pid })
}

/// The inode of the socket that listens on a port, from a table of the kernel's (`/proc/net/tcp`).
fn inode_of(table: &str, port: u16) -> Option<u64> {
    const LISTENING: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (local == port && *fields.get(3)? == LISTENING).then(|| fields.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What a bridge that sends this is found to be.
    async fn probe(reply: &'static [u8]) -> Bridge {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let bridge = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = vec![0; HELLO.len()];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(reply).await.unwrap();
        };
        tokio::join!(Bridge::probe(address), bridge).0
    }

    #[tokio::test]
    async fn a_bridge_says_its_version_and_others_are_none() {
        let bridge = probe(b"HELLO REPLY RESULT=OK VERSION=3.2\n").await;
        assert_eq!(bridge.version, Ok("3.2".to_owned()));
        assert_eq!(bridge.own_router(), None);
        let own = |program: Program| program.pid == std::process::id();
        assert!(!cfg!(target_os = "linux") || bridge.program.is_some_and(own));
        let refused = probe(b"HELLO REPLY RESULT=NOVERSION\n").await.version;
        assert!(refused.is_err_and(|error| error.contains("NOVERSION")));
        let locked = probe(b"HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"USER and PASSWORD required\"\n").await;
        assert!(locked.wants_login && !bridge.wants_login);
        assert!(probe(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.version.is_err());
        assert!(probe(b"").await.version.is_err_and(|error| error.starts_with("it ends the connection")));
    }

    #[tokio::test]
    async fn a_port_without_listener_is_said_to_be_one() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        assert_eq!(Bridge::probe(address).await.version, Err("nothing listens there".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bridge_that_takes_connections_and_says_nothing_hangs() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bridge = Bridge::probe(listener.local_addr().unwrap().to_string()).await;
        assert!(bridge.hangs && bridge.version.is_err_and(|error| error.contains("does not answer")));
    }

    #[test]
    fn tables_of_any_form_are_read() {
        for table in ["", "x", "h\n 0: 0100007F:1DE8", "h\n 0: zz zz 0A", "h\n 0: :1DE8 x 0A 1 2 3 4 5 y"] {
            assert_eq!(inode_of(table, 7656), None, "{table}");
        }
        let table =
            "h\n   0: 0100007F:1DE8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 77 1 0 \n";
        assert_eq!(inode_of(table, 7656), Some(77));
    }
}
