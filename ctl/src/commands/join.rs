//! `i2planctl join`.

use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead as _, IsTerminal as _, Read, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::meshd::{Network, Reply, Request};
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::terminal::Silence;
use i2plan_ipc::version::utc;
use i2plan_proto::invite::{Invite, InviteError};
use tokio::time::{Instant, interval};
use zeroize::Zeroizing;

use crate::args::Join;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output::{self, units};

/// Bytes that are read in search of a code, which has some 250.
const MAX_INPUT: u64 = 4096;

/// Joins a network.
///
/// # Errors
/// If the code is none, has expired, or does not lead into the network.
pub async fn run(socket: Option<&Path>, json: bool, args: &Join) -> Result<(), Failure> {
    let code = read_code(args.file.as_deref()).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let invite = check(&code, now)?;
    let what = format!("joining network {} through {}", invite.network.short(), invite.inviter.short());
    drop(invite);

    let mut client = daemon::connect(socket).await?;
    let request = Request::Join { invite: SecretText::new(code.trim().to_owned()) };
    let asking = daemon::ask(&mut client, request);
    let reply = if json { asking.await } else { with_progress(&what, asking).await };
    let Reply::Joined(network) = reply.map_err(explain)? else {
        return Err(daemon::unexpected());
    };
    if json {
        return output::json::print(&serde_json::json!({ "network": network }));
    }
    output::print(&describe(&network))
}

fn describe(network: &Network) -> String {
    let Network { id, ipv4, ipv6, subnet, members, .. } = network;
    format!(
        "joined network {}\nIPv4     {ipv4} in {}\nIPv6     {ipv6}\nmembers  {members}\n",
        output::clean(id),
        output::clean(subnet)
    )
}

/// Adds what helps most, where the node had no advice of its own.
fn explain(failure: Failure) -> Failure {
    match failure {
        Failure { kind: Kind::Timeout | Kind::Unavailable, hint: None, .. } => failure.with_hint(
            "the node that made the invite must be up and connected to I2P, and so must this one: \
             see `i2planctl status` here and there, then try again; the invite is not used up",
        ),
        _ => failure,
    }
}

/// The invite that a code is, if it can be used at all: the answer comes at once here, after minutes from the
/// other side of I2P.
fn check(code: &str, now: u64) -> Result<Invite, Failure> {
    let invite: Invite = code.parse().map_err(|error: InviteError| {
        let hint = match error {
            InviteError::Scheme => "paste all of what `i2planctl invite create` printed on the other node",
            InviteError::Truncated { .. } | InviteError::Damaged => {
                "copy it in one piece, without line breaks, or send it as a file"
            }
            InviteError::Version(_) => {
                "install the version of i2plan that the other node runs, or a newer one"
            }
        };
        Failure::invalid(error.to_string()).with_hint(hint)
    })?;
    if invite.expires_at <= now {
        return Err(Failure::invalid(format!(
            "the invite expired at {}, {} ago",
            utc(invite.expires_at),
            units::duration(now - invite.expires_at)
        ))
        .with_hint(format!(
            "have a new one made; if it should still be good, the clock may be wrong: it is {} here",
            utc(now)
        )));
    }
    Ok(invite)
}

async fn read_code(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    match file {
        Some(path) if path != Path::new("-") => {
            let unreadable =
                |error: io::Error| Failure::invalid(format!("cannot read {}: {error}", path.display()));
            read_text(File::open(path).map_err(unreadable)?).map_err(unreadable)
        }
        None if io::stdin().is_terminal() => prompt().await,
        _ => read_text(io::stdin().lock())
            .map_err(|error| Failure::invalid(format!("cannot read standard input: {error}"))),
    }
}

fn read_text(input: impl Read) -> io::Result<Zeroizing<String>> {
    // Read into a buffer that does not grow: growing leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_INPUT as usize + 1));
    input.take(MAX_INPUT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_INPUT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far too long to be an invite code"));
    }
    Ok(text)
}

/// Asks on the terminal, which does not show what is typed.
async fn prompt() -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| Failure::invalid(format!("cannot read from the terminal: {error}"));
    let silence = Silence::new().map_err(failed)?;
    let _ = write!(io::stderr(), "Invite code (it is not shown): ");
    // A thread of its own, which an interrupt can leave behind: a blocked read cannot be called off.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = Zeroizing::new(String::with_capacity(MAX_INPUT as usize + 1));
        let read = io::stdin().lock().take(MAX_INPUT).read_line(&mut line).map(|_| line);
        let _ = sender.send(read);
    });
    let line = tokio::select! {
        line = receiver => line.map_err(|_| Failure::internal("lost the terminal"))?.map_err(failed),
        _ = tokio::signal::ctrl_c() => Err(Failure::invalid("interrupted; nothing was joined")),
    };
    drop(silence);
    output::note("");
    line
}

/// Waits, and shows on standard error that it does.
async fn with_progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
    if !io::stderr().is_terminal() {
        output::note(&format!("{what}; this can take some minutes"));
        return work.await;
    }
    let started = Instant::now();
    let mut work = std::pin::pin!(work);
    let mut ticks = interval(Duration::from_millis(100));
    let mut frames = FRAMES.into_iter().cycle();
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                let _ = write!(io::stderr(), "\r\x1b[K");
                return result;
            }
            _ = ticks.tick() => {
                let elapsed = units::duration(started.elapsed().as_secs());
                let frame = frames.next().unwrap_or_default();
                let _ = write!(io::stderr(), "\r\x1b[K{frame} {what} … {elapsed}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_proto::destination::DestinationHash;
    use i2plan_proto::identity::{NetworkId, NodeId};
    use i2plan_proto::invite::InviteSecret;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn code(expires_at: u64) -> Zeroizing<String> {
        Invite {
            network: NetworkId([1; 32]),
            inviter: NodeId([2; 32]),
            control: DestinationHash([3; 32]),
            secret: InviteSecret([4; 32]),
            expires_at,
        }
        .to_code()
    }

    #[test]
    fn an_expired_invite_says_when_and_suspects_the_clock() {
        let failure = check(&code(NOW - 7200), NOW).unwrap_err();
        assert_eq!(failure.message, "the invite expired at 2027-01-15T06:00:00Z, 2h ago");
        assert!(failure.hint.unwrap().ends_with("the clock may be wrong: it is 2027-01-15T08:00:00Z here"));
        assert!(check(&code(NOW), NOW).is_err());
        assert!(check(&code(NOW + 1), NOW).is_ok());
    }

    #[test]
    fn what_is_no_code_is_named() {
        let code = code(NOW + 1);
        for (text, message) in [
            ("https://example.org/", "this is not an invite code"),
            (&code[..code.len() - 7], "the invite code is truncated: 7 of its"),
            (&code.replace("i2plan://", "i2plan://A"), "the invite code is damaged"),
        ] {
            let failure = check(text, NOW).unwrap_err();
            assert!(failure.message.starts_with(message), "{}", failure.message);
            assert_eq!(failure.exit_code(), 1);
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn endless_input_is_refused() {
        assert!(read_text(io::repeat(b'a')).is_err());
        assert_eq!(read_text(&b"abc\n"[..]).unwrap().as_str(), "abc\n");
    }
}
