//! What happened on an emulated path over time, as a picture.

use std::fmt::Write as _;

use i2plan_tund::path::emulation::Spec;

use super::link::{SLICE, Slice};

/// What is drawn of one load.
#[derive(Debug)]
pub struct Drawn<'a> {
    /// Its name.
    pub name: &'a str,
    /// What the path counted.
    pub slices: &'a [Slice],
    /// The round-trip times of pings, milliseconds; none for one that was not answered.
    pub pings: &'a [Option<f64>],
    /// Seconds between these.
    pub ping_every: f64,
}

/// Of the picture, and of the graphs in it, SVG's pixels.
const WIDTH: f64 = 900.0;
const GRAPH: f64 = 110.0;
const TITLE: f64 = 34.0;
const GAP: f64 = 22.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 130.0;

/// Slices that become one point of a rate: half a second.
const POINT: usize = 5;

/// Values over time. Those that are missing interrupt the line.
struct Line {
    label: &'static str,
    color: &'static str,
    points: Vec<(f64, Option<f64>)>,
}

/// Draws rate, queue and round-trip time of each load over time, one below the other, as SVG.
#[must_use]
pub fn svg(title: &str, spec: &Spec, seconds: f64, loads: &[Drawn<'_>]) -> String {
    let height = TITLE + loads.len() as f64 * (TITLE + 3.0 * (GRAPH + GAP));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let mut top = TITLE;
    for load in loads {
        let _ = writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"{:.0}\" font-size=\"13\" font-weight=\"bold\">{}</text>",
            top + 22.0,
            escaped(load.name)
        );
        top += TITLE;
        for (unit, lines) in graphs(spec, seconds, load) {
            draw(&mut out, top, unit, seconds, &lines);
            top += GRAPH + GAP;
        }
    }
    out.push_str("</svg>\n");
    out
}

fn graphs(spec: &Spec, seconds: f64, load: &Drawn<'_>) -> [(&'static str, Vec<Line>); 3] {
    let rate = |what: fn(&Slice) -> u64| {
        let points = load.slices.chunks(POINT).enumerate().map(|(index, slices)| {
            let bytes: u64 = slices.iter().map(what).sum();
            let (from, long) = ((index * POINT) as f64 * SLICE, slices.len() as f64 * SLICE);
            (from + long / 2.0, Some(bytes as f64 * 8.0 / long / 1e6))
        });
        points.collect()
    };
    let moments = || (0..=(seconds * 2.0) as u32).map(|half| f64::from(half) / 2.0);
    let there = |time: f64| if (spec.outage)(time) { 0.0 } else { (spec.rate)(time) };
    let path = moments().map(|time| (time, Some(there(time) / 1e6))).collect();
    let queue = load.slices.iter().enumerate().map(|(index, slice)| {
        let time = index as f64 * SLICE;
        (time, Some(slice.queue as f64 * 8.0 / (spec.rate)(time).max(1.0)))
    });
    let pings = load.pings.iter().enumerate();
    let pings = pings.map(|(index, ping)| (index as f64 * load.ping_every, ping.map(|ms| ms / 1000.0)));
    [
        (
            "Mbit/s",
            vec![
                Line { label: "path", color: "#999", points: path },
                Line { label: "sent", color: "#d95f02", points: rate(|slice| slice.offered) },
                Line { label: "arrived", color: "#1b7837", points: rate(|slice| slice.delivered) },
            ],
        ),
        ("s", vec![Line { label: "queue of the path", color: "#7570b3", points: queue.collect() }]),
        (
            "s",
            vec![
                Line {
                    label: "empty path",
                    color: "#999",
                    points: moments().map(|time| (time, Some(spec.round_trip))).collect(),
                },
                Line { label: "ping", color: "#2166ac", points: pings.collect() },
            ],
        ),
    ]
}

fn draw(out: &mut String, top: f64, unit: &str, seconds: f64, lines: &[Line]) {
    let values = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
    let most = scale(values.fold(0.0, f64::max));
    let (bottom, right) = (top + GRAPH, WIDTH - RIGHT);
    let x = |time: f64| LEFT + (time / seconds).clamp(0.0, 1.0) * (right - LEFT);
    let y = |value: f64| bottom - (value / most).min(1.0) * GRAPH;
    for (value, text) in [(0.0, "0".to_owned()), (most / 2.0, number(most / 2.0)), (most, number(most))] {
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{1:.0}\" y=\"{2:.1}\" text-anchor=\"end\">{text} {unit}</text>",
            y(value),
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    for part in 0..=6 {
        let time = seconds * f64::from(part) / 6.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{time:.0} s</text>",
            x(time),
            bottom + 13.0
        );
    }
    for (index, Line { label, color, points }) in lines.iter().enumerate() {
        let (mut path, mut is_down) = (String::new(), false);
        for (time, value) in points.iter().filter(|(time, _)| *time <= seconds) {
            if let Some(value) = value {
                let _ = write!(path, "{}{:.1} {:.1}", if is_down { 'L' } else { 'M' }, x(*time), y(*value));
            }
            is_down = value.is_some();
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.2\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" fill=\"{color}\">{label}</text>",
            right + 8.0,
            top + 12.0 + 14.0 * index as f64
        );
    }
}

/// The end of an axis: 1, 2 or 5 times a power of ten.
fn scale(most: f64) -> f64 {
    let power = 10f64.powf(most.max(1e-3).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= most).unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use i2plan_tund::path::emulation;

    use super::*;

    #[test]
    fn what_happened_is_drawn() {
        let slices = [Slice { offered: 50_000, delivered: 40_000, queue: 1000, ..Slice::default() }; 100];
        let pings = [Some(300.0), None, Some(900.0)];
        let load = Drawn { name: "udp <2x>", slices: &slices, pings: &pings, ping_every: 0.25 };
        let svg = svg("good", &emulation::good(), 10.0, &[load]);
        assert!(svg.contains("udp &lt;2x&gt;") && !svg.contains("<2x>"));
        // One line each for what the path has, what was sent and what arrived; the queue; the empty path and pings.
        assert_eq!(svg.matches("<path d=").count(), 6);
        // A ping that was not answered interrupts its line.
        let line = svg.lines().find(|line| line.contains(">ping<")).unwrap();
        assert_eq!(line.matches('M').count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [0.0, 0.3, 1.0, 3.9, 60.0, 101.0].map(scale);
        assert_eq!(ends.map(|end| (end * 1e3).round() / 1e3), [0.001, 0.5, 1.0, 5.0, 100.0, 200.0]);
        assert_eq!((number(0.5), number(2.0), number(0.125)), ("0.5".into(), "2".into(), "0.125".into()));
    }
}
