//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use i2plan_ipc::api::tund::{INTERFACE, check_interface_name};
use i2plan_ipc::bridge::{Bridge, BridgeAddress, parse_udp_port};
use i2plan_ipc::daemon::program::{self, Parsed};
use i2plan_ipc::paths;
use lexopt::ValueExt as _;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: i2plan-tund [OPTIONS]

Carries packets between a TUN interface and the SAM bridge, inside WireGuard.
Listens on the socket that its supervisor passes, or on --listen.

Options:
      --keyd-socket PATH     keyd's socket [default: /run/i2plan/keyd-tund.sock]
      --meshd-user USER      the user that may command it, by name or number [default: i2plan-meshd]
      --sam-address HOST:PORT
                             the only SAM bridge that its sockets may lead to [default: 127.0.0.1:7656]
      --sam-udp-port PORT    where that bridge takes datagrams, or auto [default: auto]
      --interface NAME       the interface, and the only name that it may have [default: i2plan0]
      --listen PATH          make a socket here, if none is passed
      --allow-overlap true|false
                             whether the interface may have addresses that the host uses otherwise, and so get the
                             host's packets for them [default: false]
  -V, --version              print the version
  -h, --help                 print this help

SIGTERM ends it, and leaves interface and I2P sessions for its next process with its supervisor, where that has an
fd store (systemd: FileDescriptorStoreMax=16; i2planctl up). SIGINT ends them too, and tells the router so
(systemd: KillSignal=SIGINT, RestartKillSignal=SIGTERM).

Exit status: 1 failed; 2 the command line or the environment is wrong; 75 another interface is wanted: start it again.

I2PLAN_LOG filters what is logged: error, warn, info, debug, or target=level, …; also I2PLAN_LOG_FORMAT (text, json,
journal), DEBUG_I2P, WARNFAIL_I2P and NO_COLOR.
";

/// How to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// keyd's socket.
    pub keyd_socket: PathBuf,
    /// Who may command this daemon, by name or number.
    pub meshd_user: String,
    /// Where its sockets may lead.
    pub bridge: Bridge,
    /// The name of the interface. Said by who starts the daemon: meshd must not be able to take another.
    pub interface: String,
    /// Where to listen if no socket is passed.
    pub listen: Option<PathBuf>,
    /// Whether the interface may have addresses that the host uses otherwise. Said by who starts the daemon: meshd must
    /// not be able to allow it.
    pub allow_overlap: bool,
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// [`lexopt::Error`], naming the argument that is wrong.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed<Options>, lexopt::Error> {
    let options = Options {
        keyd_socket: paths::system_socket(paths::KEYD_TUND_SOCKET),
        meshd_user: "i2plan-meshd".to_owned(),
        bridge: Bridge { address: BridgeAddress::DEFAULT, udp_port: None },
        interface: INTERFACE.to_owned(),
        listen: None,
        allow_overlap: false,
    };
    program::parse(args, options, |options, name, parser| {
        match name {
            "keyd-socket" => options.keyd_socket = parser.value()?.into(),
            "meshd-user" => options.meshd_user = parser.value()?.string()?,
            "sam-address" => options.bridge.address = parser.value()?.parse()?,
            "sam-udp-port" => {
                options.bridge.udp_port = parser.value()?.parse_with(parse_udp_port)?;
            }
            "interface" => {
                options.interface = parser.value()?.string()?;
                check_interface_name(&options.interface)
                    .map_err(|reason| format!("--interface: {reason}"))?;
            }
            "listen" => options.listen = Some(parser.value()?.into()),
            "allow-overlap" => options.allow_overlap = parser.value()?.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// The rate at which peers that report are sent to whatever they report, kbit/s. In the laboratory's part of the
/// environment, so that nobody sets it by mistake: a path whose rate is lower loses the rest.
pub const RATE_VARIABLE: &str = "I2PLAN_LAB_SENDING_RATE";

/// Reads [`RATE_VARIABLE`]; returns bytes a second.
///
/// # Errors
/// If the value is no rate.
pub fn fixed_rate(value: Option<OsString>) -> Result<Option<f64>, String> {
    let Some(value) = value else { return Ok(None) };
    let rate = value.to_str().and_then(|text| text.parse::<u32>().ok()).filter(|rate| *rate > 0);
    let rate =
        rate.ok_or_else(|| format!("{RATE_VARIABLE}={value:?}: must be a number of kbit/s, 1 or more"))?;
    Ok(Some(f64::from(rate) * 1000.0 / 8.0))
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
        assert_eq!(options.meshd_user, "i2plan-meshd");
        assert_eq!((options.interface.as_str(), options.allow_overlap), ("i2plan0", false));
        let arguments = ["--keyd-socket=/k", "--meshd-user", "7", "--listen", "/l", "--sam-udp-port=5"];
        let more = ["--sam-address", "[::1]:4", "--allow-overlap", "true", "--interface", "mesh7"];
        let Ok(Parsed::Run(options)) = read(&[&arguments[..], &more].concat()) else {
            panic!("these are the arguments")
        };
        let bridge = Bridge { address: "[::1]:4".parse().unwrap(), udp_port: Some(5) };
        assert_eq!(options.bridge, bridge);
        assert_eq!((options.interface.as_str(), options.allow_overlap), ("mesh7", true));
        assert_eq!((options.keyd_socket, options.listen), ("/k".into(), Some("/l".into())));
        assert!(read(&["--sam-address", "localhost"]).is_err());
        assert_eq!(read(&["--version"]), Ok(Parsed::Version));
        assert_eq!(read(&["-h"]), Ok(Parsed::Help));
    }

    #[test]
    fn a_fixed_rate_is_a_number_of_kbit_a_second() {
        assert_eq!(fixed_rate(None), Ok(None));
        assert_eq!(fixed_rate(Some("3880".into())), Ok(Some(485_000.0)));
        for bad in ["", "0", "-1", "4 Mbit/s"] {
            assert!(fixed_rate(Some(bad.into())).unwrap_err().contains(RATE_VARIABLE), "{bad:?}");
        }
    }

    #[test]
    fn faults_are_named() {
        assert!(read(&["--nonsense"]).unwrap_err().contains("--nonsense"));
        assert!(read(&["--listen"]).unwrap_err().contains("--listen"));
        assert!(read(&["--allow-overlap", "yes"]).unwrap_err().contains("yes"));
        assert!(read(&["--interface", "a/b"]).unwrap_err().contains("--interface: \"a/b\" is no name"));
        assert!(read(&["stray"]).unwrap_err().contains("stray"));
    }

    #[test]
    fn the_help_names_every_option() {
        for option in [
            "--keyd-socket",
            "--meshd-user",
            "--sam-address",
            "--sam-udp-port",
            "--interface",
            "--listen",
            "--allow-overlap",
            "--version",
            "--help",
        ] {
            assert!(HELP.contains(option), "{option}");
        }
    }
}
