//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use i2plan_ipc::bridge::{Bridge, BridgeAddress, parse_udp_port};
use i2plan_ipc::daemon::program::{self, Parsed};
use i2plan_ipc::paths;
use lexopt::ValueExt as _;

/// What `--help` prints.
pub const HELP: &str = "\
i2plan-connector: connects to the I2P router's SAM bridge for i2plan-keyd

Usage: i2plan-connector [OPTIONS]

Started by a service manager or by `i2planctl up`.

Options:
      --sam-address HOST:PORT
                             the SAM bridge (default: 127.0.0.1:7656)
      --sam-udp-port PORT    where that bridge takes datagrams, or auto (default: auto)
      --keyd-socket PATH     (default: /run/i2plan/keyd-connector.sock)
  -h, --help
  -V, --version

Exit status: 1 failed; 2 the command line or the environment is wrong.

Environment: I2PLAN_LOG (error, warn, info, debug, or target=level,...), I2PLAN_LOG_FORMAT (text, json, journal),
DEBUG_I2P, WARNFAIL_I2P, NO_COLOR.
";

/// How to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What to connect to.
    pub bridge: Bridge,
    /// keyd's socket.
    pub keyd_socket: PathBuf,
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// [`lexopt::Error`], naming the argument that is wrong.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed<Options>, lexopt::Error> {
    let options = Options {
        bridge: Bridge { address: BridgeAddress::DEFAULT, udp_port: None },
        keyd_socket: paths::system_socket(paths::KEYD_CONNECTOR_SOCKET),
    };
    program::parse(args, options, |options, name, parser| {
        match name {
            "sam-address" => options.bridge.address = parser.value()?.parse()?,
            "sam-udp-port" => options.bridge.udp_port = parser.value()?.parse_with(parse_udp_port)?,
            "keyd-socket" => options.keyd_socket = parser.value()?.into(),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Parsed<Options>, String> {
        parse(args.iter().map(Into::into)).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_read() {
        let Ok(Parsed::Run(options)) = read(&[]) else { panic!("no arguments are needed") };
        assert_eq!(options.bridge, Bridge::new("127.0.0.1:7656".parse().unwrap()));
        let arguments = ["--sam-address", "[::1]:4", "--sam-udp-port=5", "--keyd-socket", "/k"];
        let Ok(Parsed::Run(options)) = read(&arguments) else { panic!("these are the arguments") };
        let bridge = Bridge { address: "[::1]:4".parse().unwrap(), udp_port: Some(5) };
        assert_eq!(options, Options { bridge, keyd_socket: "/k".into() });
    }

    #[test]
    fn faults_are_named() {
        assert!(read(&["--nonsense"]).unwrap_err().contains("--nonsense"));
        assert!(read(&["--sam-address", "localhost"]).unwrap_err().contains("localhost"));
        assert!(read(&["stray"]).unwrap_err().contains("stray"));
    }
}
