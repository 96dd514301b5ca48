//! The first page: how the node is, and the graphs.

use i2plan_present::units;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Paragraph, Sparkline, Widget as _};

use super::details;
use super::text::{fill, put, spark};
use super::theme::Theme;
use crate::tui::app::{App, NodeLink, SPANS};
use crate::tui::history::{History, Sample};

/// One of the graphs.
struct Graph {
    title: &'static str,
    value: fn(&Sample) -> Option<u64>,
    show: fn(u64) -> String,
}

const GRAPHS: [Graph; 3] = [
    Graph { title: "Received", value: |sample| Some(sample.rx), show: rate },
    Graph { title: "Sent", value: |sample| Some(sample.tx), show: rate },
    Graph { title: "Round trip", value: |sample| sample.rtt, show: units::milliseconds },
];

fn rate(bytes: u64) -> String {
    units::bytes(bytes) + "/s"
}

pub(super) fn draw(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let lines = details::status(app, area.width);
    let text_height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let graph_height = match area.height {
        0..6 => 0,
        // A line each.
        6..12 => 3,
        height => height.saturating_sub(text_height + 1).clamp(5, 14),
    };
    let [text, graphs] = Layout::vertical([Constraint::Min(0), Constraint::Length(graph_height)]).areas(area);
    // Never past its end, which a larger window moves.
    let scroll = app.status_scroll.min(lines.len().saturating_sub(usize::from(text.height)));
    Paragraph::new(lines.into_iter().skip(scroll).collect::<Vec<_>>()).render(text, buf);
    if graph_height == 3 || area.width < 60 {
        for (graph, y) in GRAPHS.iter().zip(graphs.y..graphs.bottom()) {
            draw_graph_line(app, graph, buf, Rect { y, height: 1, ..graphs }, theme);
        }
    } else if graph_height > 0 {
        let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).spacing(2).areas(graphs);
        for (graph, area) in GRAPHS.iter().zip(areas) {
            draw_graph(app, graph, buf, area, theme);
        }
    }
}

fn latest(app: &App, graph: &Graph) -> String {
    let sample = if app.link == NodeLink::Up { app.history.latest() } else { None };
    units::or_dash(sample.and_then(|sample| (graph.value)(&sample)).map(graph.show))
}

fn draw_graph_line(app: &App, graph: &Graph, buf: &mut Buffer, area: Rect, theme: Theme) {
    let text = format!("{:<12}{:<12}", graph.title, latest(app, graph));
    put(buf, area, &text, Style::new());
    let used = (text.len() as u16).min(area.width);
    let rest = Rect { x: area.x + used, width: area.width - used, ..area };
    let values = app.history.columns(rest.width.into(), SPANS[app.span], app.second(), graph.value);
    put(buf, rest, &spark(&values), theme.graph());
}

fn draw_graph(app: &App, graph: &Graph, buf: &mut Buffer, area: Rect, theme: Theme) {
    let parts = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
    let [title, bars, axis] = Layout::vertical(parts).areas(area);
    let span = SPANS[app.span];
    let values = app.history.columns(area.width.into(), span, app.second(), graph.value);
    let highest = values.iter().flatten().max().copied();
    put(buf, title, &format!("{} {}", graph.title, latest(app, graph)), theme.title());
    Sparkline::default().data(values).max(highest.unwrap_or(0).max(1)).style(theme.graph()).render(bars, buf);
    fill(buf, axis, theme.quiet());
    // The title has the last second; a bar is a mean, and lower than what it is a mean of.
    let each = match History::each(area.width.into(), span) {
        1 => "at most".to_owned(),
        each => format!("{} means to", units::duration(each)),
    };
    let peak = highest.map_or_else(String::new, |highest| format!(", {each} {}", (graph.show)(highest)));
    put(buf, axis, &format!("{}{peak}", units::duration(span)), theme.quiet());
}
