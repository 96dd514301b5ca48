//! The node itself: dashboard, events, settings, sessions.

use i2plan_ipc::api::meshd::{Peer, Setting, Status};
use i2plan_ipc::api::webd::Session;
use i2plan_ipc::version::{Version, utc};
use i2plan_present::event::{Level, describe};
use i2plan_present::status::{
    describe_addresses, describe_bridge, describe_briefly, describe_drops, describe_session, interface, role,
    warnings,
};
use i2plan_present::text::clean;
use i2plan_present::{peer, setting, static_interface, units};
use maud::{Markup, html};

use super::{Viewer, facts, table, text};
use crate::history::{History, MAX_RATES, Rate};

/// The state of the node, what is wrong first.
#[must_use]
pub fn dashboard(status: &Status, peers: &[Peer], history: &History) -> Markup {
    let warnings = warnings(status, &Version::current());
    let up = peers.iter().filter(|peer| peer::is_up(peer)).count();
    let fallback = status.sam.fallback.as_ref().map_or_else(|| "not needed".to_owned(), describe_session);
    let network = match (&status.network, &status.static_interface) {
        (_, Some(interface)) => html! {
            p { "None: this is an interface with static peers. The pages of members and invites have nothing to show." }
            ul {
                @for peer in &interface.peers {
                    li {
                        code { (clean(&static_interface::short(peer))) } ": "
                        (clean(&static_interface::describe(peer)))
                    }
                }
            }
        },
        (Some(network), None) => facts(&[
            ("id", html! { code { (clean(&network.id)) } }),
            ("members", html! { (network.members) (role(network)) }),
            ("tunnels", html! { (up) " up of " (peers.len()) " other members" }),
            ("IPv4", html! { (network.ipv4) " in " (clean(&network.subnet)) }),
            ("IPv6", html! { (network.ipv6) }),
            ("addresses", text(&describe_addresses(network))),
        ]),
        (None, None) => html! {
            p { "None: " a href="/invites" { "make an invite" } " to found one, or " a href="/join" { "join one" } "." }
        },
    };
    html! {
        @if !warnings.is_empty() {
            section.warnings aria-label="Warnings" {
                @for warning in &warnings {
                    div role="alert" {
                        p { strong { (clean(&warning.message)) } }
                        p.hint { (clean(&warning.hint)) }
                    }
                }
            }
        }
        div.cards {
            section { h2 { "Network" } (network) }
            section {
                h2 { "Traffic" }
                (graph(&history.rates().collect::<Vec<_>>()))
            }
            section {
                h2 { "Node" }
                (facts(&[
                    ("name", text(&status.name)),
                    ("id", html! { code { (clean(status.node_id.as_deref().unwrap_or("not known yet"))) } }),
                    ("uptime", text(&units::duration(status.uptime))),
                    ("interface", text(interface(&status.tunnel))),
                    ("dropped", text(&describe_drops(&status.tunnel).unwrap_or_else(|| "nothing".to_owned()))),
                ]))
            }
            section {
                h2 { "I2P router" }
                (facts(&[
                    ("bridge", text(&describe_bridge(&status.sam))),
                    ("control", text(&describe_session(&status.sam.control))),
                    ("fallback", text(&fallback)),
                    ("data", text(&describe_session(&status.sam.data))),
                ]))
            }
            section {
                h2 { "Daemons" }
                ul { @for daemon in &status.daemons { li { (clean(&describe_briefly(daemon))) } } }
            }
        }
    }
}

/// Rates as a picture, with the figures in words beside it.
fn graph(rates: &[Rate]) -> Markup {
    const WIDTH: u64 = 480;
    const HEIGHT: u64 = 100;
    let now = rates.last().copied().unwrap_or_default();
    let most = rates.iter().map(|rate| rate.received.max(rate.sent)).max().unwrap_or_default().max(1);
    let line = |value: fn(&Rate) -> u64| {
        let first = MAX_RATES.saturating_sub(rates.len());
        let points = rates.iter().enumerate().map(|(index, rate)| {
            let x = (first + index) as u64 * WIDTH / (MAX_RATES as u64 - 1);
            let height = u128::from(value(rate)) * u128::from(HEIGHT) / u128::from(most);
            format!("{x},{}", HEIGHT - u64::try_from(height).unwrap_or(HEIGHT).min(HEIGHT))
        });
        points.collect::<Vec<_>>().join(" ")
    };
    let words = format!(
        "receiving {} a second, sending {} a second; at most {} a second in the last minutes",
        units::bytes(now.received),
        units::bytes(now.sent),
        units::bytes(if rates.is_empty() { 0 } else { most })
    );
    html! {
        svg.graph viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(words) {
            polyline.received points=(line(|rate| rate.received)) {}
            polyline.sent points=(line(|rate| rate.sent)) {}
        }
        p { (words) "." }
    }
}

/// What happened lately, the newest first.
#[must_use]
pub fn events(history: &History) -> Markup {
    let rows: Vec<_> = history
        .events()
        .map(|event| {
            let level = match Level::from(&event.kind) {
                Level::Info => "info",
                Level::Warn => "warning",
                Level::Error => "error",
            };
            vec![
                text(&utc(event.at / 1000)),
                html! { span class=(level) { (level) } },
                text(&describe(&event.kind)),
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "Nothing has happened yet." } }
        @else { (table("What happened, the newest first", &["Time (UTC)", "Level", "Event"], &rows)) }
    }
}

/// The configuration in force.
#[must_use]
pub fn settings(viewer: Viewer<'_>, settings: &[Setting]) -> Markup {
    let row = |setting: &Setting| {
        let value = setting.value.clone().unwrap_or_default();
        let shown = if setting.live && viewer.session.control {
            html! {
                form.inline method="post" action="/settings" {
                    (viewer.csrf())
                    input type="hidden" name="key" value=(setting.key);
                    input name="value" value=(value) aria-label={ "Value of " (setting.key) } maxlength="200";
                    button { "Set" }
                }
            }
        } else {
            text(&units::or_dash(setting.value.clone()))
        };
        vec![
            html! { code { (setting.key) } },
            shown,
            text(&setting::source(setting)),
            text(if setting.live { "live" } else { "at restart" }),
            text(&units::or_dash(setting.pending.clone())),
        ]
    };
    let rows: Vec<_> = settings.iter().map(row).collect();
    html! {
        p { "What is set here counts until meshd restarts; the configuration file is for what is to stay." }
        (table("Keys of the configuration", &["Key", "Value", "From", "Changes", "After a restart"], &rows))
    }
}

/// The sessions that are open.
#[must_use]
pub fn sessions(viewer: Viewer<'_>, sessions: &[Session]) -> Markup {
    let row = |session: &Session| {
        let own = session.id == viewer.session.id;
        vec![
            html! { code { (session.id) } @if own { " (this one)" } },
            text(if session.control { "control" } else { "view only" }),
            text(&units::ago(Some(session.age))),
            text(&units::ago(Some(session.idle))),
            text(&units::duration(session.expires_in)),
            html! {
                @if viewer.session.control || own {
                    (viewer.button(&format!("/sessions/{}/end", session.id), "End"))
                }
            },
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    html! {
        (table("Sessions that are open", &["Session", "May", "Opened", "Used", "Ends in", ""], &rows))
        (super::command("For a link that opens another session, run", "i2planctl web"))
    }
}
