//! `i2planctl invite`.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::administrator::{Prepared, socket_beside};
use i2plan_ipc::api::meshd::{AllowInvite, CreateInvite, Invite, IssuedInvite, RevokeInvite};
use i2plan_ipc::api::order::{Executed, OrderTarget};
use i2plan_ipc::{ErrorKind, Node};
use i2plan_present::invite::{consequences, describe, render, table, users};
use i2plan_present::order::describe as describe_order;
use i2plan_present::qr::Qr;
use i2plan_present::text::clean;
use i2plan_proto::address::Ipv4Subnet;
use serde_json::json;

use super::completions;
use super::confirm::{can_ask, confirm};
use super::orders;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::output::qr::{Drawn as _, Ink, Style, blank_code};
use crate::values::{max_uses, parse_addresses, parse_expiry};

/// What `--help` adds to `create`.
const CREATE_HELP: &str = "\
The code alone is printed on standard output, all else on standard error. Whoever has it can join: \
send it over a channel that others do not read. An unlimited one, and one for more than 256 addresses, is an order: keyd \
says what it will sign, and asks.

Examples:
  i2planctl invite create
  i2planctl invite create --expires 7d --uses 5
  i2planctl invite create --addresses 1024      # for a deputy, which can invite many nodes
  i2planctl invite create --name office         # the first one: founds a network
  i2planctl invite create --qr
  i2planctl invite create > invite.txt";

/// What `--help` adds to `revoke`.
const REVOKE_HELP: &str = "\
The nodes that have used it stay members. With --with-members, their memberships and those of the members below them \
end too; the nodes can be invited again.

Examples:
  i2planctl invite revoke mq4xk2
  i2planctl invite revoke mq4xk2 --with-members";

/// `i2planctl invite …`
#[derive(Debug, clap::Subcommand)]
pub enum InviteCommand {
    /// Make an invite; the first one on a fresh node founds the network
    #[command(after_help = CREATE_HELP)]
    Create(InviteCreate),

    /// List the invites that this node has made
    List,

    /// Show one of them, and who has used it; the code itself is not kept
    Show {
        /// The invite's id, or the beginning of it
        #[arg(add = ArgValueCandidates::new(completions::invites))]
        id: String,
    },

    /// Let the users of an invite join although this node has delegated 256 addresses today
    Allow(InviteAllow),

    /// Revoke an invite: no other node can join with it
    #[command(after_help = REVOKE_HELP)]
    Revoke(InviteRevoke),
}

/// `i2planctl invite create`
#[derive(Debug, clap::Args)]
pub struct InviteCreate {
    /// How long it is good for: 90s, 30m, 24h, 7d or plain seconds
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_expiry)]
    pub expires: Duration,

    /// How many nodes may use it; -1 for any number
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub uses: i64,

    /// How many addresses each node gets, a power of two: its own, and the rest for nodes that it invites
    /// [default: 1/256 of this node's, at most 16; 1 if several may use the invite]
    #[arg(long, value_name = "N", value_parser = parse_addresses)]
    pub addresses: Option<u32>,

    /// The IPv4 subnet of the network that the first invite founds [default: mesh.tunnel_subnet, or one of which this
    /// host uses no address]
    #[arg(long, value_name = "SUBNET")]
    pub subnet: Option<Ipv4Subnet>,

    /// What the network is called that the first invite founds: 1 to 18 lower-case letters, digits and hyphens
    /// [default: this node's name, with -net]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Draw it as a QR code too: on a terminal, or anywhere if it is said with what
    #[arg(long, value_name = "STYLE", num_args = 0..=1, require_equals = true)]
    pub qr: Option<Option<Style>>,

    /// Do not ask, where that takes an order: for an unlimited invite, or more than 256 addresses
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl invite allow`
#[derive(Debug, clap::Args)]
pub struct InviteAllow {
    /// The invite's id, or the beginning of it
    #[arg(add = ArgValueCandidates::new(completions::invites))]
    pub id: String,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl invite revoke`
#[derive(Debug, clap::Args)]
pub struct InviteRevoke {
    /// The invite's id, or the beginning of it
    #[arg(add = ArgValueCandidates::new(completions::invites))]
    pub id: String,

    /// Revoke the memberships of the nodes that have used it, too
    #[arg(long)]
    pub with_members: bool,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Makes an invite: the code alone on standard output, all else on standard error.
///
/// # Errors
/// If the number of uses is none, or the node makes no invite.
pub async fn create(socket: Option<&Path>, json: bool, args: &InviteCreate) -> Result<(), Failure> {
    let max_uses = max_uses(args.uses)?;
    let style = args.qr.map(|style| qr_style(style, json)).transpose()?;
    let mut node = daemon::connect(socket).await?;
    let subnet = args.subnet.map(|subnet| subnet.to_string());
    let request = CreateInvite {
        expires_in: args.expires.as_secs(),
        max_uses,
        addresses: args.addresses,
        subnet,
        name: args.name.clone(),
    };
    let text = |_: &OrderTarget| {
        Ok("it is unlimited, or for more than 256 addresses: revoke it if it gets into wrong hands"
            .to_owned())
    };
    let done = orders::carry_out(&mut node, request, text, "invite", args.yes).await?;
    let invite = Invite { founded: done.reply.founded || done.founded, ..done.reply };
    if max_uses.is_none() {
        output::note("warning: any number of nodes can join with this invite until it expires");
    }
    let printed = if json {
        output::json::print(&invite)
    } else {
        output::print(&format!("{}\n", invite.invite.expose()))
    };
    if printed.is_err() || output::reader_is_gone() {
        return Err(undo(&mut node, invite, printed.err()).await);
    }
    if json {
        return Ok(());
    }
    output::note(&describe(&invite));
    let Some(style) = style else { return Ok(()) };
    let qr = Qr::new(invite.invite.expose())
        .ok_or_else(|| Failure::internal("the invite code is too long for a QR code"))?;
    output::print_as_it_is(&qr.draw(style, Ink::of_terminal()))
}

/// Revokes an invite whose code nobody has got.
async fn undo(node: &mut Node, invite: Invite, error: Option<Failure>) -> Failure {
    let why = error.map_or_else(|| "nobody reads standard output".to_owned(), |error| error.message);
    let id = clean(&invite.id).into_owned();
    match node.revoke_invite(invite.id).await {
        Ok(_) => {
            Failure::internal(format!("the code could not be printed, and the invite is revoked: {why}"))
        }
        Err(_) => Failure::internal(format!("the code could not be printed: {why}"))
            .with_hint(format!("`i2planctl invite revoke {id}` makes sure that nobody uses it")),
    }
}

/// What a QR code is to be drawn with. Found out before the invite is made, which would be for nothing.
fn qr_style(asked: Option<Style>, json: bool) -> Result<Style, Failure> {
    if json {
        return Err(Failure::usage("--qr draws for people, and --json prints for programs")
            .with_hint("leave one of them out"));
    }
    if let Some(style) = asked {
        return Ok(style);
    }
    if !io::stdout().is_terminal() {
        return Err(Failure::usage("--qr draws on a terminal, and standard output is none")
            .with_hint("say what to draw with, and it is drawn anywhere: --qr=blocks, or --qr=ascii"));
    }
    let style = Style::default();
    let size =
        rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    if let (Some(size), Some(qr)) = (size, Qr::new(&blank_code())) {
        too_small(qr.size(style), (size.ws_col.into(), size.ws_row.into()), style)?;
    }
    Ok(style)
}

fn too_small(needed: (usize, usize), given: (usize, usize), style: Style) -> Result<(), Failure> {
    // Below it there is the shell's next prompt.
    let ((columns, rows), (given_columns, given_rows)) = ((needed.0, needed.1 + 1), given);
    if given_columns >= columns && given_rows >= rows {
        return Ok(());
    }
    let hint = match style {
        Style::Blocks => {
            "make the window larger or its font smaller; --qr=blocks draws it whatever comes of it"
        }
        Style::Ascii => {
            "make the window larger or its font smaller; the locale says that UTF-8 cannot be shown here, and \
             where it can, --qr=blocks takes less room"
        }
    };
    Err(Failure::invalid(format!(
        "the QR code takes {columns} columns and {rows} lines, and the terminal has {given_columns} and \
         {given_rows}"
    ))
    .with_hint(hint))
}

/// Lists the invites that the node has made.
///
/// # Errors
/// If the node does not answer.
pub async fn list(socket: Option<&Path>, json: bool, dates: bool) -> Result<(), Failure> {
    let invites = issued(socket).await?;
    if json {
        return output::json::print(&json!({ "invites": invites }));
    }
    if invites.is_empty() {
        output::note("this node has made no invites that it remembers");
        return Ok(());
    }
    output::print_as_it_is(&table(&invites, &output::look(dates)))
}

/// Shows one of them.
///
/// # Errors
/// If there is none with this id.
pub async fn show(socket: Option<&Path>, json: bool, id: &str) -> Result<(), Failure> {
    let invite = choose(issued(socket).await?, id)?;
    if json {
        return output::json::print(&json!({ "invite": invite }));
    }
    output::print(&render(&invite))
}

/// Revokes one of them, with the memberships of the nodes that have used it if that is asked for.
///
/// # Errors
/// If there is none with this id, or it was not confirmed.
pub async fn revoke(socket: Option<&Path>, json: bool, args: &InviteRevoke) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let invite = choose(node.invites().await?, &args.id)?;
    let invite = if args.with_members {
        can_ask(args.yes)?;
        let request = RevokeInvite { id: invite.id.clone(), with_members: true };
        let text = |target: &OrderTarget| match target {
            OrderTarget::Invite { invite: ordered, .. } if ordered.to_string() == invite.id => {
                Ok(consequences(&invite))
            }
            _ => Err(Failure::internal("keyd would revoke another invite")),
        };
        orders::carry_out(&mut node, request, text, "revoke", args.yes).await?.reply
    } else {
        node.revoke_invite(invite.id).await?
    };
    if json {
        return output::json::print(&json!({ "invite": invite }));
    }
    let used = invite.used_by.len() as u64;
    let members = match (args.with_members, used) {
        (false, _) => String::new(),
        (true, 0) => "; no node had used it".to_owned(),
        (true, used) => format!(", with the memberships of {}", users(used)),
    };
    output::print(&format!("invite {} is revoked{members}\n", clean(&invite.id)))?;
    if !args.with_members && used > 0 {
        let stay = if used == 1 { "stays a member" } else { "stay members" };
        output::note(&format!("{} {stay}; --with-members revokes memberships too", users(used)));
    }
    Ok(())
}

/// Lets the users of an invite join, however many addresses were delegated today.
///
/// # Errors
/// If there is no such invite, or it was not confirmed.
pub async fn allow(socket: Option<&Path>, json: bool, id: &str, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let id = choose(node.invites().await?, id)?.id;
    let request = AllowInvite { id };
    let proposed = node.call(request.clone()).await?;
    can_ask(yes)?;
    let order = Prepared::new(socket_beside(node.socket()), &request.into(), &proposed).await?;
    confirm(&describe_order(order.target()), "allow", yes)?;
    let allowed = |executed| match executed {
        Executed::Allowed(invite) => Some(invite),
        _ => None,
    };
    let invite = order.confirm(allowed).await?;
    if json {
        return output::json::print(&json!({ "allowed": invite.to_string() }));
    }
    output::print(&format!("the users of invite {invite} can join\n"))
}

/// The invite that an id, or the beginning of one, means.
fn choose(invites: Vec<IssuedInvite>, text: &str) -> Result<IssuedInvite, Failure> {
    let mut found: Vec<_> =
        invites.into_iter().filter(|invite| !text.is_empty() && invite.id.starts_with(text)).collect();
    match found.pop() {
        Some(one) if found.is_empty() => Ok(one),
        Some(_) => Err(Failure::invalid(format!("the ids of several invites begin with {:?}", clean(text)))
            .with_hint("write more of it")),
        None => Err(Failure::new(ErrorKind::NotFound, "this node has made no invite with this id")
            .with_hint("`i2planctl invite list` shows those that it has made")),
    }
}

async fn issued(socket: Option<&Path>) -> Result<Vec<IssuedInvite>, Failure> {
    let mut node = daemon::connect(socket).await?;
    Ok(node.invites().await?)
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::InviteState;

    use super::*;

    #[test]
    fn an_invite_is_named_by_the_beginning_of_its_id() {
        let invites = ["aab", "aac", "b"].map(|id| IssuedInvite {
            id: id.to_owned(),
            state: InviteState::Open,
            created_at: 0,
            expires_at: 0,
            max_uses: None,
            addresses: 1,
            used_by: Vec::new(),
        });
        let choose = |text| choose(invites.to_vec(), text).map(|invite| invite.id);
        assert_eq!((choose("b"), choose("aac")), (Ok("b".to_owned()), Ok("aac".to_owned())));
        assert_eq!(choose("aa").unwrap_err().kind, ErrorKind::Invalid.into());
        for none in ["", "c", "aabb"] {
            assert_eq!(choose(none).unwrap_err().kind, ErrorKind::NotFound.into(), "{none}");
        }
    }

    #[test]
    fn a_terminal_too_small_for_a_qr_code_is_told() {
        assert_eq!(too_small((61, 31), (61, 32), Style::Blocks), Ok(()));
        for given in [(60, 50), (80, 31), (80, 24)] {
            let failure = too_small((61, 31), given, Style::Blocks).unwrap_err();
            assert!(failure.message.starts_with("the QR code takes 61 columns and 32 lines"), "{failure}");
            assert!(failure.message.ends_with(&format!("has {} and {}", given.0, given.1)), "{failure}");
        }
    }
}
