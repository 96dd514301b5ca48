//! `i2planctl rpc`.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2plan_ipc::api::meshd::{Daemon, Status};
use i2plan_ipc::api::webd::{GetCertificateExpiry, WebdApi};
use i2plan_ipc::client::{Client, Endpoint};
use i2plan_ipc::hello::HelloReply;
use i2plan_ipc::paths;
use i2plan_ipc::{ErrorKind, Node, Role};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output;
use i2plan_present::remedy::sentence;
use i2plan_rpcd::error::Code;
use i2plan_rpcd::message::MAX_DOCUMENT;
use i2plan_rpcd::methods::Gateway;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Prints the result as JSON. The socket is rpc.sock beside the control socket, unless --socket names another.

An invite code is a secret: give it on standard input.

Examples:
  i2planctl rpc status
  i2planctl rpc bans.add '{\"node_id\": \"web\", \"duration\": \"1h\"}'
  i2planctl rpc events.poll '[null, 10000]'
  i2planctl rpc invite.accept - < params.json";

/// `i2planctl rpc`
#[derive(Debug, clap::Args)]
pub struct Rpc {
    /// The method; rpc.discover describes all of them
    pub method: String,

    /// Its parameters, a JSON object or array; - reads them from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub params: Option<String>,
}

/// Longer than the longest call, which is a join.
const DEADLINE: Duration = Duration::from_secs(200);

/// How long it may take to say what it is.
const SHORT_DEADLINE: Duration = Duration::from_secs(5);

/// Longest answer that is taken in, bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// Calls a method and prints its result.
///
/// # Errors
/// The gateway's error, or that it does not answer.
pub async fn run(socket: Option<&Path>, args: &Rpc) -> Result<(), Failure> {
    let request = request(args)?;
    let path = socket.map_or_else(|| beside(&daemon::default_socket()), beside);
    let text = timeout(DEADLINE, exchange(&path, &request)).await.map_err(|_| silent())??;
    let result = read(&text)?;
    output::json::print(&result)
}

/// The node's daemons with those that need not run, as far as they shall.
pub(super) async fn with_optional(optional: &Optional, mut daemons: Vec<Daemon>) -> Vec<Daemon> {
    if let Some(path) = &optional.rpcd {
        daemons.push(gateway(path).await);
    }
    if let Some(path) = &optional.webd {
        daemons.push(web(path).await);
    }
    let named = Role::Named.to_string();
    if optional.named && daemons.iter().all(|daemon| daemon.name != named) {
        daemons.push(Daemon { error: Some("it is not connected to meshd".to_owned()), ..unknown(&named) });
    }
    daemons
}

/// The daemons that run only where the configuration says so.
pub(super) struct Optional {
    /// Where `rpcd` listens, if it shall run.
    pub(super) rpcd: Option<PathBuf>,
    /// Where `webd` does, likewise.
    pub(super) webd: Option<PathBuf>,
    /// Whether `named` shall run. It has no socket, and is a client of `meshd`.
    named: bool,
}

impl Optional {
    /// Those of a node with this status. An interface with static peers has none.
    pub(super) async fn of(node: &mut Node, status: &Status, socket: &Path) -> Self {
        let settings = node.config().await.unwrap_or_default();
        let setting = |key| settings.iter().find(|setting| setting.key == key)?.value.as_deref();
        let runs = |key| status.static_interface.is_none() && setting(key) == Some("true");
        // One that is named by its absolute path is there, whatever is before it.
        let rpcd = socket.with_file_name(setting("rpc.socket").unwrap_or(paths::RPC_SOCKET));
        Self {
            rpcd: runs("rpc.enabled").then_some(rpcd),
            webd: runs("web.enabled").then(|| socket.with_file_name(paths::WEB_SOCKET)),
            named: runs("names.enabled"),
        }
    }
}

/// A daemon of which nothing is known.
fn unknown(name: &str) -> Daemon {
    Daemon { name: name.to_owned(), pid: None, version: None, landlock: None, error: None, hint: None }
}

/// What `webd` says of itself.
async fn web(path: &Path) -> Daemon {
    let daemon = unknown(&Role::Webd.to_string());
    match Client::<WebdApi>::connect(Endpoint::resolved(path, Role::Webd), Role::Client).await {
        Ok(webd) => {
            let HelloReply { pid, version, landlock, .. } = webd.daemon().clone();
            Daemon { pid: Some(pid), version: Some(version), landlock: Some(landlock), ..daemon }
        }
        Err(error) => Daemon { error: Some(error.to_string()), ..daemon },
    }
}

/// When the certificate of the pages expires, in seconds since 1970; none if `webd` has none, or does not answer.
pub(super) async fn certificate_expiry(path: &Path) -> Option<u64> {
    let endpoint = Endpoint::resolved(path, Role::Webd);
    let mut webd = Client::<WebdApi>::connect(endpoint, Role::Client).await.ok()?;
    webd.call(GetCertificateExpiry).await.ok().flatten()
}

/// What asks `rpcd` what it is.
pub(super) fn question() -> Result<Vec<u8>, Failure> {
    request(&Rpc { method: "version".to_owned(), params: None }).map(|line| line.to_vec())
}

/// The gateway's user where it is installed.
const USER: &str = "i2plan-rpc";

/// What the gateway says of itself.
async fn gateway(path: &Path) -> Daemon {
    const NAME: &str = "rpcd";
    #[derive(Deserialize)]
    struct Versions {
        rpcd: Gateway,
    }
    let ask = async {
        let args = Rpc { method: "version".to_owned(), params: None };
        let text =
            timeout(SHORT_DEADLINE, exchange(path, &request(&args)?)).await.map_err(|_| silent())??;
        let answer = read(&text)?;
        serde_json::from_value::<Versions>(answer).map_err(|_| Failure::internal("it is of another version"))
    };
    let daemon = unknown(NAME);
    match ask.await {
        Ok(Versions { rpcd: Gateway { version, pid, landlock } }) => {
            Daemon { pid: Some(pid), version: Some(version), landlock: Some(landlock), ..daemon }
        }
        Err(failure) => Daemon { error: Some(failure.message), ..daemon },
    }
}

fn silent() -> Failure {
    Failure::new(ErrorKind::Timeout, "rpcd does not answer").with_hint("see the node's log, then try again")
}

/// `meshd`'s socket stands for the node: the gateway's is beside it.
fn beside(socket: &Path) -> PathBuf {
    if socket.file_name().is_some_and(|name| name == "meshd.sock") {
        socket.with_file_name(paths::RPC_SOCKET)
    } else {
        socket.to_owned()
    }
}

/// One line. It may hold an invite code.
fn request(args: &Rpc) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let params = match args.params.as_deref() {
        None => None,
        Some("-") => Some(read_input()?),
        Some(text) => Some(Zeroizing::new(text.to_owned())),
    };
    let mut line = Zeroizing::new(Vec::with_capacity(2 * MAX_DOCUMENT));
    line.extend_from_slice(br#"{"jsonrpc":"2.0","id":1,"method":"#);
    line.extend_from_slice(Value::from(args.method.as_str()).to_string().as_bytes());
    if let Some(params) = params {
        let given: &RawValue = serde_json::from_str(&params).map_err(|error| {
            Failure::usage(format!(
                "the parameters are no JSON: wrong at line {}, column {}",
                error.line(),
                error.column()
            ))
            .with_hint("write an object or an array, in single quotes for the shell")
        })?;
        line.extend_from_slice(br#","params":"#);
        // A line ends the document, and means nothing in it: within strings JSON has none.
        line.extend(given.get().bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
    }
    line.extend_from_slice(b"}\n");
    if line.len() > MAX_DOCUMENT {
        return Err(Failure::usage(format!(
            "the parameters are too long: a call has at most {MAX_DOCUMENT} bytes"
        )));
    }
    Ok(line)
}

fn read_input() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_DOCUMENT + 1));
    io::stdin()
        .lock()
        .take(MAX_DOCUMENT as u64)
        .read_to_string(&mut text)
        .map_err(|error| Failure::invalid(format!("cannot read standard input: {error}")))?;
    Ok(text)
}

async fn exchange(path: &Path, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut stream = UnixStream::connect(path).await.map_err(|error| explain(path, &error))?;
    Endpoint::from(path).check(&stream, USER)?;
    let lost =
        |error: io::Error| Failure::new(Kind::Unreachable, format!("lost the connection to rpcd: {error}"));
    // Where it has no place for one more it has answered already.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut text = Zeroizing::new(Vec::new());
    stream.take(MAX_ANSWER).read_to_end(&mut text).await.map_err(lost)?;
    if text.is_empty() {
        return Err(Failure::new(Kind::Unreachable, "rpcd has closed the connection without an answer")
            .with_hint(
                "it may just have been restarted: try again; if that does not help, see the node's log",
            ));
    }
    Ok(text)
}

fn explain(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            Kind::Unreachable,
            format!("nobody answers JSON-RPC on {}", path.display()),
        )
        .with_hint(
            "start the node, with rpc.enabled in its configuration; if its socket is elsewhere (rpc.socket), name it \
             with --socket",
        ),
        _ => daemon::explain_connect(path, error),
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Value>,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: i64,
    message: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    hint: Option<String>,
    remedy: Option<Value>,
}

impl Data {
    /// What to do about it; in the gateway's words where its remedy is one of another version.
    fn into_hint(self) -> Option<String> {
        let remedy = self.remedy.and_then(|remedy| serde_json::from_value(remedy).ok());
        remedy.as_ref().map(sentence).or(self.hint)
    }
}

fn read(text: &[u8]) -> Result<Value, Failure> {
    match serde_json::from_slice(text) {
        Ok(Answer { error: Some(AnswerError { code, message, data }), .. }) => {
            let kind = Code::of(code).map_or(ErrorKind::Internal, Code::in_api).into();
            Err(Failure { kind, message, hint: data.and_then(Data::into_hint) })
        }
        Ok(Answer { result: Some(result), .. }) => Ok(result),
        _ => Err(Failure::internal("what listens there does not answer as JSON-RPC 2.0 does")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(params: Option<&str>) -> Result<String, Failure> {
        let args = Rpc { method: "a\"b".to_owned(), params: params.map(str::to_owned) };
        request(&args).map(|line| String::from_utf8(line.to_vec()).unwrap())
    }

    #[test]
    fn a_request_is_one_line() {
        assert_eq!(line(None).unwrap(), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\\\"b\"}\n");
        let spread = line(Some("{\n \"x\": \"\\n\"\n}")).unwrap();
        assert!(spread.ends_with("\"params\":{  \"x\": \"\\n\" }}\n"), "{spread}");
        assert_eq!(line(Some("{")).unwrap_err().exit_code(), 2);
        let long = format!("[\"{}\"]", "x".repeat(MAX_DOCUMENT));
        assert!(line(Some(&long)).unwrap_err().message.contains("too long"));
    }

    #[test]
    fn errors_have_the_exit_codes_of_other_commands() {
        for (code, exit) in [
            (-32_601, 1),
            (-32_602, 1),
            (-32_001, 4),
            (-32_002, 1),
            (-32_003, 5),
            (-32_004, 6),
            (-32_006, 6),
            (7, 1),
        ] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"m","data":{{"kind":"k","hint":"h"}}}}}}"#
            );
            let failure = read(text.as_bytes()).unwrap_err();
            assert_eq!((failure.exit_code(), failure.message.as_str()), (exit, "m"));
            assert_eq!(failure.hint.as_deref(), Some("h"));
        }
        for (remedy, hint) in [(r#"{"name":"list_bans"}"#, "`i2planctl ban list`"), (r#"{"name":"?"}"#, "h")]
        {
            let data = format!(r#"{{"kind":"k","hint":"h","remedy":{remedy}}}"#);
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-32003,"message":"m","data":{data}}}}}"#
            );
            let failure = read(text.as_bytes()).unwrap_err();
            assert!(failure.hint.unwrap().starts_with(hint), "{remedy}");
        }
        assert_eq!(read(br#"{"jsonrpc":"2.0","id":1,"result":7}"#).unwrap(), 7);
        assert!(read(b"HTTP/1.1 400 Bad Request").is_err());
    }

    #[test]
    fn the_gateway_is_beside_the_node() {
        assert_eq!(beside(Path::new("/x/meshd.sock")), Path::new("/x/rpc.sock"));
        assert_eq!(beside(Path::new("/x/other")), Path::new("/x/other"));
    }
}
