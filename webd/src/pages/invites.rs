//! Invites, and joining by one.

use data_encoding::BASE64;
use i2plan_ipc::api::meshd::{Invite, IssuedInvite, Network, Peer};
use i2plan_present::look::{Times, now};
use i2plan_present::qr::Qr;
use i2plan_present::text::clean;
use i2plan_present::{invite, join};
use maud::{Markup, html};

use super::members::references;
use super::{Viewer, table, text};

/// What became of the last attempt to join.
#[derive(Debug, Clone, Default)]
pub enum Joining {
    /// None was made.
    #[default]
    None,
    /// It goes on.
    Running,
    /// It has failed: why, and what to do.
    Failed(String, Option<String>),
    /// The node is a member.
    Done,
}

/// The invites that this node has made, and a form for another.
#[must_use]
pub fn list(viewer: Viewer<'_>, invites: &[IssuedInvite], peers: &[Peer], has_network: bool) -> Markup {
    let times = Times::From(now());
    let rows: Vec<_> = invites
        .iter()
        .map(|issued| {
            let row = invite::Row::new(issued, times);
            vec![
                html! { code { (clean(&row.id)) } },
                text(row.state),
                text(&row.uses),
                text(&row.addresses),
                text(&row.expires),
                text(&row.created),
                references(&issued.used_by, peers, None, ", "),
                html! {
                    @if viewer.session.control && row.state == "open" {
                        (viewer.button(&format!("/invites/{}/revoke", issued.id), "Revoke"))
                    }
                },
            ]
        })
        .collect();
    html! {
        @if viewer.session.control {
            section {
                h2 { (if has_network { "New invite" } else { "New invite, which founds a network" }) }
                form method="post" action="/invites" {
                    (viewer.csrf())
                    label { "Expires in " input name="expiry" value="24h" required maxlength="10"; }
                    label { "Uses, -1 for any number " input name="uses" type="number" min="-1" value="1" required; }
                    label { "Addresses for each " input name="addresses" type="number" min="1" placeholder="as usual"; }
                    @if !has_network {
                        label { "Name of the network " input name="network" placeholder="from its id" maxlength="63"; }
                    }
                    button { "Make" }
                }
            }
        }
        @if rows.is_empty() { p { "This node has made no invites that it remembers." } }
        @else {
            (table(
                "Invites that this node has made",
                &["Id", "State", "Uses", "Addresses", "Expires", "Created", "Used by", ""],
                &rows,
            ))
        }
    }
}

/// A new invite, whose code is hidden until it is asked for. It is shown on this page alone.
#[must_use]
pub fn made(made: &Invite) -> Markup {
    let code = made.invite.expose();
    html! {
        @for line in invite::describe(made).lines() { p { (clean(line)) } }
        details {
            summary { "Show the code" }
            p { code.secret id="code" { (code) } }
            button.scripted type="button" data-copy="code" { "Copy" }
            @if let Some(qr) = Qr::new(code) {
                (picture(&qr))
                @if let Some(png) = png(&qr) {
                    p {
                        a download={ "i2plan-invite-" (clean(&made.id)) ".png" }
                            href={ "data:image/png;base64," (BASE64.encode(&png)) }
                        { "Save the QR code as PNG" }
                    }
                }
            }
        }
        p.hint { "The code is not kept: it is not shown again once this page is left." }
        p { a href="/invites" { "To the invites" } }
    }
}

/// A QR code as a picture that scales.
fn picture(qr: &Qr) -> Markup {
    let edge = qr.edge();
    let mut path = String::new();
    for y in 0..edge {
        for x in (0..edge).filter(|x| qr.is_dark(*x, y)) {
            path.push_str(&format!("M{x} {y}h1v1h-1z"));
        }
    }
    html! {
        svg.qr viewBox={ "0 0 " (edge) " " (edge) } shape-rendering="crispEdges" role="img"
            aria-label="The code as a QR code"
        {
            rect width=(edge) height=(edge) fill="#fff" {}
            path d=(path) fill="#000" {}
        }
    }
}

/// A QR code as a PNG file.
fn png(qr: &Qr) -> Option<Vec<u8>> {
    /// Pixels of a module.
    const SCALE: usize = 8;
    let edge = qr.edge() * SCALE;
    // A bit for each pixel: a module is a byte.
    let rows = (0..qr.edge()).flat_map(|y| {
        let row: Vec<u8> = (0..qr.edge()).map(|x| if qr.is_dark(x, y) { 0 } else { 0xff }).collect();
        std::iter::repeat_n(row, SCALE).flatten()
    });
    let mut out = Vec::new();
    let edge = u32::try_from(edge).ok()?;
    let mut encoder = png::Encoder::new(&mut out, edge, edge);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header().ok()?.write_image_data(&rows.collect::<Vec<_>>()).ok()?;
    Some(out)
}

/// A form for a code, and what became of the last one.
#[must_use]
pub fn joining(viewer: Viewer<'_>, network: Option<&Network>, joining: &Joining) -> Markup {
    html! {
        @match joining {
            Joining::None => {}
            Joining::Running => {
                p role="status" {
                    "Joining: this takes up to some minutes. " a href="/events" { "The events" } " tell the steps."
                }
            }
            Joining::Failed(why, hint) => {
                div.warnings {
                    p role="alert" { strong { (clean(why)) } }
                    @if let Some(text) = hint { (super::hint(text)) }
                }
            }
            Joining::Done => p role="status" { "This node has joined." },
        }
        @if let Some(network) = network {
            p { "This node is a member of a network:" }
            pre { (clean_lines(&join::describe(network))) }
            (super::command("To leave it, which is an order of an administrator:", "i2planctl leave"))
        } @else if viewer.session.control && !matches!(joining, Joining::Running) {
            form method="post" action="/join" {
                (viewer.csrf())
                label {
                    "Invite code"
                    textarea name="code" rows="5" required maxlength="4096" autocomplete="off" spellcheck="false" {}
                }
                button { "Look at it" }
            }
            section.scripted data-keep {
                h2 { "From a QR code" }
                p { "Pictures are read in this browser, and sent to nobody." }
                p { label { "A picture of the QR code " input type="file" accept="image/*" id="scan-file"; } }
                p { button type="button" id="scan-camera" { "Use the camera" } }
                video id="scan-video" muted playsinline hidden aria-label="What the camera sees" {}
                p role="status" id="scan-result" {}
            }
        } @else if !viewer.session.control {
            p { "This session may not change anything." }
        }
    }
}

/// What is to be joined, before it is.
#[must_use]
pub fn confirm(viewer: Viewer<'_>, parsed: &i2plan_proto::invite::Invite, code: &str) -> Markup {
    html! {
        pre { (clean_lines(&join::describe_invite(parsed))) }
        form method="post" action="/join" {
            (viewer.csrf())
            input type="hidden" name="code" value=(code);
            input type="hidden" name="confirmed" value="yes";
            button { "Join this network" }
        }
        p { a href="/join" { "Do not" } }
    }
}

fn clean_lines(lines: &str) -> Markup {
    html! { (i2plan_present::text::lines(lines)) }
}
