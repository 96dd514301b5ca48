//! Prometheus' text exposition format, version 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::fmt::Write as _;

use i2plan_ipc::histogram::{BOUNDS, Histogram};

/// The media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It goes up, and begins anew at 0.
    Counter,
    /// Counts by size.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// Names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

/// A document.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// A family of one gauge without labels.
    pub fn gauge(&mut self, name: &str, what: &str, value: u64) {
        self.family(name, Kind::Gauge, what, [(Vec::new(), value)]);
    }

    /// A family of one counter without labels.
    pub fn counter(&mut self, name: &str, what: &str, value: u64) {
        self.family(name, Kind::Counter, what, [(Vec::new(), value)]);
    }

    /// A family of whole numbers.
    pub fn family(
        &mut self,
        name: &str,
        kind: Kind,
        what: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.begin(name, kind, what);
        for (labels, value) in samples {
            self.sample(name, &labels, &value.to_string());
        }
    }

    /// A family of times, given in microseconds.
    pub fn seconds(
        &mut self,
        name: &str,
        kind: Kind,
        what: &str,
        samples: impl IntoIterator<Item = (Labels, u128)>,
    ) {
        self.begin(name, kind, what);
        for (labels, micros) in samples {
            self.sample(name, &labels, &in_seconds(micros));
        }
    }

    /// A family of one histogram of times without labels.
    pub fn histogram(&mut self, name: &str, what: &str, histogram: &Histogram) {
        self.begin(name, Kind::Histogram, what);
        let mut count = 0;
        for (bound, in_bucket) in BOUNDS.iter().zip(&histogram.buckets) {
            count += in_bucket;
            let labels = vec![("le", in_seconds(bound.as_micros()))];
            self.sample(&format!("{name}_bucket"), &labels, &count.to_string());
        }
        let all = histogram.count.to_string();
        self.sample(&format!("{name}_bucket"), &vec![("le", "+Inf".to_owned())], &all);
        self.sample(&format!("{name}_sum"), &Vec::new(), &in_seconds(histogram.micros.into()));
        self.sample(&format!("{name}_count"), &Vec::new(), &all);
    }

    /// The document.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }

    fn begin(&mut self, name: &str, kind: Kind, what: &str) {
        let what = what.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {what}\n# TYPE {name} {}", kind.name());
    }

    fn sample(&mut self, name: &str, labels: &Labels, value: &str) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

fn in_seconds(micros: u128) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
