//! `i2planctl invite`.

use std::path::Path;

use i2plan_ipc::api::meshd::{Invite, Reply, Request};
use i2plan_ipc::version::utc;

use crate::args::InviteCreate;
use crate::daemon;
use crate::failure::Failure;
use crate::output::{self, units};

/// Makes an invite: the code alone on standard output, all else on standard error.
///
/// # Errors
/// If the number of uses is none, or the node makes no invite.
pub async fn create(socket: Option<&Path>, json: bool, args: &InviteCreate) -> Result<(), Failure> {
    let max_uses = max_uses(args.uses)?;
    let mut client = daemon::connect(socket).await?;
    let request = Request::CreateInvite { expires_in: args.expires.as_secs(), max_uses };
    let Reply::Invite(invite) = daemon::ask(&mut client, request).await? else {
        return Err(daemon::unexpected());
    };
    if max_uses.is_none() {
        output::note("warning: any number of nodes can join with this invite until it expires");
    }
    if json {
        return output::json::print(&invite);
    }
    output::print(&format!("{}\n", invite.invite.expose()))?;
    output::note(&describe(&invite));
    Ok(())
}

/// The limit that `--uses` sets; none for -1.
fn max_uses(uses: i64) -> Result<Option<u32>, Failure> {
    let hint = "choose how many nodes may join with it, or -1 for any number";
    match uses {
        -1 => Ok(None),
        0 => Err(Failure::usage("an invite with 0 uses invites nobody").with_hint(hint)),
        _ => u32::try_from(uses)
            .map(Some)
            .map_err(|_| Failure::usage(format!("{uses} is no number of uses")).with_hint(hint)),
    }
}

fn describe(invite: &Invite) -> String {
    let founded =
        if invite.founded { format!("founded network {}\n", invite.network) } else { String::new() };
    let uses = invite
        .max_uses
        .map_or_else(|| "any number of uses".to_owned(), |uses| units::counted(u64::from(uses), "use"));
    format!(
        "{founded}invite {}: {uses}, expires {}\nkeep it secret: whoever has this code can join",
        invite.id,
        utc(invite.expires_at)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_checked() {
        assert_eq!(max_uses(1), Ok(Some(1)));
        assert_eq!(max_uses(-1), Ok(None));
        assert_eq!(max_uses(i64::from(u32::MAX)), Ok(Some(u32::MAX)));
        assert_eq!(max_uses(0).unwrap_err().message, "an invite with 0 uses invites nobody");
        for wrong in [-2, i64::MIN, i64::from(u32::MAX) + 1] {
            assert_eq!(max_uses(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
