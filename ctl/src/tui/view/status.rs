//! The first page: how the node is, and the graphs.

use i2plan_present::units;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Paragraph, Sparkline, Widget as _};

use super::details;
use super::text::{put, spark};
use super::theme::Theme;
use crate::tui::app::{App, NodeLink, SPANS};
use crate::tui::history::{History, Sample};

/// One of the graphs.
pub(super) struct Graph {
    pub(super) title: &'static str,
    pub(super) value: fn(&Sample) -> Option<u64>,
    pub(super) show: fn(u64) -> String,
}

pub(super) const GRAPHS: [Graph; 3] = [
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
    // Where there is room, the scale: the value of the highest column.
    let scale = if rest.width >= 2 * SCALE { SCALE } else { 0 };
    let [bars, top] = Layout::horizontal([Constraint::Min(0), Constraint::Length(scale)]).areas(rest);
    let values = app.history.columns(bars.width.into(), SPANS[app.span], app.second(), graph.value);
    put(buf, bars, &spark(&values), theme.graph());
    put(buf, top, &format!(" max {}", units::or_dash(highest(&values).map(graph.show))), theme.quiet());
}

/// Columns of the scale beside a graph of one line.
const SCALE: u16 = 15;

/// The value that a graph reaches up to.
pub(super) fn highest(values: &[Option<u64>]) -> Option<u64> {
    values.iter().flatten().max().copied()
}

fn draw_graph(app: &App, graph: &Graph, buf: &mut Buffer, area: Rect, theme: Theme) {
    let parts = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
    let [title, bars, axis] = Layout::vertical(parts).areas(area);
    put(buf, title, &format!("{} {}", graph.title, latest(app, graph)), theme.title());
    let span = SPANS[app.span];
    // The labels of the scale are as wide as the widest value, so that the columns stay where they are.
    let [scale, bars] = Layout::horizontal([Constraint::Length(LABELS), Constraint::Min(0)]).areas(bars);
    let axis = Rect { x: bars.x, width: bars.width, ..axis };
    let values = app.history.columns(bars.width.into(), span, app.second(), graph.value);
    let top = highest(&values);
    Sparkline::default().data(values).max(top.unwrap_or(0).max(1)).style(theme.graph()).render(bars, buf);
    let mut label = |y: u16, text: &str| {
        put(buf, Rect { y, height: 1, ..scale }, &format!("{text:>8}"), theme.quiet());
    };
    if let Some(top) = top.filter(|_| scale.height > 0) {
        label(scale.y, &(graph.show)(top));
        label(scale.bottom() - 1, "0");
    }
    put(buf, axis, &time_axis(axis.width.into(), span), theme.quiet());
}

/// Columns of the labels of a scale, with the gap to the graph.
const LABELS: u16 = 9;

/// What is below a graph: where its columns begin and end, and how long each is.
fn time_axis(width: usize, span: u64) -> String {
    let (first, last) = (format!("{} ago", units::duration(span)), "now");
    let each = match History::each(width, span) {
        1 => "1s a column".to_owned(),
        // A column is lower than the highest second in it.
        each => format!("{} a column, mean", units::duration(each)),
    };
    let room = width.saturating_sub(first.len() + last.len());
    // Without room for it, how long a column is matters less than where it is.
    let each = if each.len() + 2 <= room { each } else { String::new() };
    format!("{first}{each:^room$}{last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_says_when_and_how_long() {
        assert_eq!(time_axis(40, 300), "5m ago       8s a column, mean       now");
        assert_eq!(
            time_axis(60, 60).split_whitespace().collect::<Vec<_>>().join(" "),
            "1m ago 1s a column now"
        );
        assert_eq!(time_axis(16, 300), "5m ago       now");
        assert_eq!(time_axis(3, 300), "5m agonow");
    }
}
