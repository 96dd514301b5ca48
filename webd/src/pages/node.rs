//! The node itself: dashboard, doctor, events, settings, sessions.

use i2plan_ipc::api::meshd::{EventKind, Peer, Setting, Status};
use i2plan_ipc::api::webd::Session;
use i2plan_ipc::version::{Version, utc};
use i2plan_present::event::{Level, describe};
use i2plan_present::finding::{self, Finding};
use i2plan_present::status::{
    describe_addresses, describe_bridge, describe_briefly, describe_drops, describe_session, interface, role,
    warnings,
};
use i2plan_present::text::clean;
use i2plan_present::{doctor, peer, setting, static_interface, units};
use maud::{Markup, html};

use super::{Viewer, choice, facts, hint, table, text};
use crate::history::{History, Sample};

/// How far back graphs may reach: minutes, and the samples that there are in these.
pub const SPANS: [(u64, usize); 3] = [(1, 12), (5, 60), (30, 360)];

/// The state of the node, what is wrong first.
#[must_use]
pub fn dashboard(status: &Status, peers: &[Peer], history: &History, minutes: u64) -> Markup {
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
                        (hint(&warning.hint))
                    }
                }
            }
        }
        div.cards {
            section { h2 { "Network" } (network) }
            section {
                h2 { "Traffic and round trips" }
                (graphs(history, minutes))
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

/// The graphs of the last minutes, with the figures in words below, and links to other spans.
fn graphs(history: &History, minutes: u64) -> Markup {
    let (minutes, columns) = span(minutes);
    let samples: Vec<_> = history.samples(columns).collect();
    let of = |value: fn(&Sample) -> Option<u64>| samples.iter().map(value).collect::<Vec<_>>();
    let (received, sent) = (of(|sample| Some(sample.received)), of(|sample| Some(sample.sent)));
    let bytes = |count: Option<u64>| units::bytes(count.unwrap_or_default());
    let traffic = format!(
        "receiving {} a second (solid line), sending {} a second (dashed); at most {} a second",
        bytes(latest(&received)),
        bytes(latest(&sent)),
        bytes(received.iter().chain(&sent).copied().flatten().max())
    );
    html! {
        (graph(&traffic, columns, &[("received", &received), ("sent", &sent)]))
        (round_trips(columns, &of(|sample| sample.rtt)))
        (spans("/", minutes))
    }
}

/// The round trips to one member in the last minutes, likewise.
#[must_use]
pub fn round_trips_to(node: &str, history: &History, minutes: u64) -> Markup {
    let (minutes, columns) = span(minutes);
    html! {
        (round_trips(columns, &history.round_trips(node, columns).collect::<Vec<_>>()))
        (spans(&format!("/peers/{node}"), minutes))
    }
}

/// The span that is `minutes` long, or the usual one if there is none.
fn span(minutes: u64) -> (u64, usize) {
    SPANS.into_iter().find(|(each, _)| *each == minutes).unwrap_or(SPANS[1])
}

/// Links to a page with each of the spans.
fn spans(path: &str, minutes: u64) -> Markup {
    html! {
        nav.pages aria-label="How far back the graphs reach" {
            @for (each, _) in SPANS {
                a href={ (path) "?minutes=" (each) } aria-current=[(each == minutes).then_some("true")] {
                    (units::counted(each, "minute"))
                }
            }
        }
    }
}

fn latest(values: &[Option<u64>]) -> Option<u64> {
    values.last().copied().flatten()
}

/// Milliseconds over time, with the figures in words below.
fn round_trips(columns: usize, values: &[Option<u64>]) -> Markup {
    let (least, most) = (values.iter().flatten().min(), values.iter().flatten().max());
    let words = match (least, most) {
        (Some(least), Some(most)) => format!(
            "round trip {}; at least {}, at most {}",
            units::or_dash(latest(values).map(units::milliseconds)),
            units::milliseconds(*least),
            units::milliseconds(*most)
        ),
        _ => "no round trip was measured".to_owned(),
    };
    graph(&words, columns, &[("rtt", values)])
}

/// Values over time as lines, with a gap where there is none.
fn graph(words: &str, columns: usize, lines: &[(&str, &[Option<u64>])]) -> Markup {
    const WIDTH: usize = 480;
    const HEIGHT: u64 = 100;
    let most =
        lines.iter().flat_map(|(_, values)| values.iter().flatten()).max().copied().unwrap_or(1).max(1);
    let path = |values: &[Option<u64>]| {
        let first = columns.saturating_sub(values.len());
        let point = |index: usize, value: u64| {
            let height = u128::from(value) * u128::from(HEIGHT) / u128::from(most);
            let height = u64::try_from(height).unwrap_or(HEIGHT).min(HEIGHT);
            format!("{},{}", (first + index) * WIDTH / columns.saturating_sub(1).max(1), HEIGHT - height)
        };
        let mut path = String::new();
        let mut drawing = false;
        for (index, value) in values.iter().enumerate() {
            if let Some(value) = value {
                let point = point(index, *value);
                // One that stands alone is a dot.
                let part = if drawing { format!("L{point}") } else { format!("M{point}L{point}") };
                path.push_str(&part);
            }
            drawing = value.is_some();
        }
        path
    };
    html! {
        svg.graph viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(words) {
            @for (class, values) in lines { path class=(class) d=(path(values)) {} }
        }
        p { (words) "." }
    }
}

/// What is right and wrong with the node, as `i2planctl doctor` says it.
#[must_use]
pub fn examination(status: &Status, peers: &[Peer]) -> Markup {
    let mut findings = doctor::examine(status, peers, &Version::current(), None);
    finding::sort(&mut findings);
    let rows: Vec<_> = findings
        .iter()
        .map(|Finding { level, subject, message, hint: advice }| {
            let (level, class) = match level {
                finding::Level::Ok => ("ok", "info"),
                finding::Level::Note => ("note", "warning"),
                finding::Level::Problem => ("problem", "error"),
            };
            vec![
                html! { span class=(class) { (level) } },
                text(subject),
                html! {
                    (clean(message))
                    @if let Some(text) = advice { (hint(text)) }
                },
            ]
        })
        .collect();
    html! {
        (table("What the node reports of itself", &["Level", "Of", "Finding"], &rows))
        p {
            "This is what the node knows itself. As root on its host, " code { "i2planctl doctor" } " also looks at the \
             daemons' files and who may read them, their processes and sandboxes, the I2P router's SAM bridge, and this \
             host's clock."
        }
    }
}

/// Which events are shown.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// `events`, `log`, or both.
    pub show: String,
    /// The level of which they are at least: `info`, `warning` or `error`.
    pub level: String,
    /// What they contain, whatever its case.
    pub search: String,
}

const KINDS: [(&str, &str); 3] = [("", "events and log"), ("events", "events"), ("log", "log")];

const LEVELS: [(&str, &str); 3] = [("", "all"), ("warning", "warnings and errors"), ("error", "errors")];

impl EventFilter {
    fn passes(&self, kind: &EventKind, level: &str, words: &str) -> bool {
        let is_log = matches!(kind, EventKind::Log { .. });
        let shown = match self.show.as_str() {
            "events" => !is_log,
            "log" => is_log,
            _ => true,
        };
        let grave = match self.level.as_str() {
            "warning" => level != "info",
            "error" => level == "error",
            _ => true,
        };
        shown && grave && words.to_lowercase().contains(&self.search.to_lowercase())
    }
}

/// What happened lately and what was logged, the newest first.
#[must_use]
pub fn events(history: &History, filter: &EventFilter) -> Markup {
    let row = |event: &i2plan_ipc::api::meshd::Event| {
        let level = match Level::from(&event.kind) {
            Level::Info => "info",
            Level::Warn => "warning",
            Level::Error => "error",
        };
        let words = describe(&event.kind);
        filter.passes(&event.kind, level, &words).then(|| {
            vec![
                html! { time { (utc(event.at / 1000)) } },
                html! { span class=(level) { (level) } },
                text(&words),
            ]
        })
    };
    let rows: Vec<_> = history.events().filter_map(row).collect();
    html! {
        form.filter method="get" action="/events" role="search" {
            label { "Show " (choice("show", &KINDS, &filter.show)) }
            label { "Level " (choice("level", &LEVELS, &filter.level)) }
            label { "Search " input type="search" name="q" value=(filter.search) maxlength="100"; }
            button { "Show" }
        }
        @if rows.is_empty() { p { "Nothing of this kind has happened yet." } }
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
