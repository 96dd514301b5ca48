//! Texts of labels and values, as lines that fit.

use i2plan_ipc::api::meshd::Session;
use i2plan_ipc::version::{Version, utc};
use i2plan_present::ban::reason;
use i2plan_present::text::{clean, wrap};
use i2plan_present::{invite, peer, status, units};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::keys;
use super::status::{GRAPHS, Graph, highest};
use super::text::spark;
use super::theme::Theme;
use crate::tui::app::{App, Overlay};

/// Columns of a label.
const LABEL: usize = 12;

/// Lines, and the width that they may have.
struct Text {
    lines: Vec<Line<'static>>,
    width: usize,
    theme: Theme,
}

impl Text {
    fn new(width: usize, theme: Theme) -> Self {
        Self { lines: Vec::new(), width, theme }
    }

    fn paragraph(&mut self, text: &str, style: Style) {
        self.lines.extend(wrap(&clean(text), self.width).into_iter().map(|line| Line::styled(line, style)));
    }

    fn field(&mut self, label: &str, value: &str) {
        self.styled(label, value, Style::new());
    }

    fn styled(&mut self, label: &str, value: &str, style: Style) {
        let room = self.width.saturating_sub(LABEL).max(1);
        for (number, line) in wrap(&clean(value), room).into_iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            let label = Span::styled(format!("{label:<LABEL$}"), self.theme.quiet());
            self.lines.push(Line::from(vec![label, Span::styled(line, style)]));
        }
    }
}

/// The lines of what lies over the page, if that is a text.
pub(in crate::tui) fn lines(app: &App, overlay: &Overlay) -> Vec<Line<'static>> {
    let theme = Theme { colour: app.look.colour };
    // Between the borders, where there are some.
    let mut text = Text::new(usize::from(app.size.0.saturating_sub(2)), theme);
    match overlay {
        Overlay::Help { .. } => help(&mut text, app),
        Overlay::Peer { node_id, .. } => peer(&mut text, app, node_id),
        Overlay::Invite { id, .. } => issued(&mut text, app, id),
        Overlay::Ban { node_id, .. } => ban(&mut text, app, node_id),
        Overlay::Entry { number, .. } => entry(&mut text, app, *number),
        Overlay::Code { .. } | Overlay::Form(_) | Overlay::Confirm { .. } | Overlay::Failure(_) => {}
    }
    text.lines
}

fn help(text: &mut Text, app: &App) {
    for (title, keys) in keys::all(app.tab) {
        if !text.lines.is_empty() {
            text.lines.push(Line::default());
        }
        text.paragraph(title, text.theme.title());
        for (key, what) in keys {
            text.field(key, what);
        }
    }
}

/// The text of the first page.
pub(in crate::tui) fn status(app: &App, width: u16) -> Vec<Line<'static>> {
    let theme = Theme { colour: app.look.colour };
    let mut text = Text::new(width.into(), theme);
    let Some((status, at)) = &app.status else {
        text.paragraph("asking the node …", theme.quiet());
        return text.lines;
    };
    for warning in status::warnings(status, &Version::current()) {
        text.paragraph(&format!("warning: {}", warning.message), theme.bad());
        text.paragraph(&format!("   hint: {}", warning.hint), Style::new());
    }
    let uptime = status.uptime + app.now.running.saturating_sub(*at).as_secs();
    let id = status.node_id.as_deref().unwrap_or("not known yet");
    text.field("Node", &format!("{}, up {}", status.name, units::duration(uptime)));
    text.field("Id", id);
    match &status.network {
        Some(network) => {
            let members = units::counted(network.members, "member");
            text.field("Network", &format!("{members}{}", status::role(network)));
            text.field("", &network.id);
            text.field("Address", &format!("{} in {}, {}", network.ipv4, network.subnet, network.ipv6));
            text.field("Holds", &status::describe_addresses(network));
        }
        None => text.field(
            "Network",
            "none: found one with a first invite (page 4, n), or join one with `i2planctl join`",
        ),
    }
    let tunnel = &status.tunnel;
    text.field("Interface", &format!("{}, MTU {}", status::interface(tunnel), tunnel.mtu));
    if let Some(drops) = status::describe_drops(tunnel) {
        text.field("Dropped", &drops);
    }
    let sam = &status.sam;
    text.field("I2P router", &status::describe_bridge(sam));
    text.field("Control", &session(&sam.control));
    if let Some(fallback) = &sam.fallback {
        text.field("Fallback", &session(fallback));
    }
    text.field("Data", &session(&sam.data));
    let daemons: Vec<_> = status.daemons.iter().map(status::describe_briefly).collect();
    text.field("Daemons", &daemons.join(", "));
    text.lines
}

/// Without the space that lines up columns.
fn session(session: &Session) -> String {
    status::describe_session(session).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn gone(text: &mut Text, what: &str) {
    text.paragraph(what, text.theme.quiet());
}

fn peer(text: &mut Text, app: &App, node_id: &str) {
    let Some(row) = app.peers.find(node_id) else {
        gone(
            text,
            if app.peers.is_known() { "this member is not known any more" } else { "asking the node …" },
        );
        return;
    };
    let peer = &row.peer;
    let now = app.now.unix / 1000;
    text.field("Name", &peer.name);
    text.field("State", peer::state(peer));
    text.field("IPv4", &peer.ipv4.to_string());
    text.field("IPv6", &peer.ipv6.to_string());
    text.field("Holds", &peer.ranges.join(", "));
    text.field("Handshake", &units::ago(peer.last_handshake));
    text.field("Heard at", &units::time(peer.last_heard.map(|age| now.saturating_sub(age))));
    text.field("Round trip", &units::or_dash(peer.rtt.map(units::milliseconds)));
    let (rx, tx) = row.rate.unwrap_or_default();
    let packets = |count| units::counted(count, "packet");
    text.field(
        "Received",
        &format!(
            "{} in {}, {} a second now",
            units::bytes(peer.rx_bytes),
            packets(peer.rx_packets),
            units::bytes(rx)
        ),
    );
    text.field(
        "Sent",
        &format!(
            "{} in {}, {} a second now",
            units::bytes(peer.tx_bytes),
            packets(peer.tx_packets),
            units::bytes(tx)
        ),
    );
    text.field("Drops", &peer::drops(peer));
    if let Some(history) = app.peer_history.get(node_id) {
        text.field("", "");
        let mut tops = Vec::new();
        for Graph { title, value, show } in GRAPHS {
            let columns = history.columns(text.width.saturating_sub(LABEL), 300, app.second(), value);
            text.styled(title, &spark(&columns), text.theme.graph());
            tops.extend(highest(&columns).map(show));
        }
        let scale = if tops.is_empty() { String::new() } else { format!(", up to {}", tops.join(", ")) };
        text.field("", &format!("the last five minutes{scale}"));
    }
    text.field("", "");
    text.field("Node id", &peer.node_id);
    text.field("Key", &peer.public_key);
    text.field("Endpoint", &peer.endpoint);
    text.field("Invited", &format!("{} from the founder", units::counted(peer.depth, "step")));
}

fn issued(text: &mut Text, app: &App, id: &str) {
    let Some(issued) = app.invites.find(id) else { return gone(text, "this invite is forgotten") };
    text.field("Invite", &issued.id);
    text.field("State", invite::state(issued));
    text.field("Uses", &invite::uses(issued));
    text.field("Addresses", &invite::each(issued.addresses, issued.max_uses));
    text.field("Created", &utc(issued.created_at));
    text.field("Expires", &utc(issued.expires_at));
    text.field(
        "Code",
        if app.code(id).is_some() { "kept until this program ends; v shows it" } else { "not kept" },
    );
    for node_id in &issued.used_by {
        let name = app.name_of(node_id).map(|name| format!("{name} ")).unwrap_or_default();
        text.field("Used by", &format!("{name}{node_id}"));
    }
}

fn ban(text: &mut Text, app: &App, node_id: &str) {
    let Some(ban) = app.bans.find(node_id) else { return gone(text, "this ban is over") };
    text.field("Name", ban.name.as_deref().unwrap_or("not known"));
    text.field("Node id", &ban.node_id);
    text.field("Why", &reason(ban));
    text.field("Since", &utc(ban.created_at));
    text.field("Until", &ban.expires_at.map_or_else(|| "it is lifted".to_owned(), utc));
    text.field("Reason", if ban.description.is_empty() { "-" } else { &ban.description });
}

fn entry(text: &mut Text, app: &App, number: u64) {
    let Some(entry) = app.log.iter().find(|entry| entry.number == number) else {
        return gone(text, "this was too long ago to be kept");
    };
    text.field("At", &utc(entry.at / 1000));
    text.field("What", entry.label());
    text.paragraph("", Style::new());
    text.paragraph(&entry.text, Style::new());
}
