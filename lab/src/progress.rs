//! Shows what is being done: in place on a terminal, line by line elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// What is being done, on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    /// Nothing is being done yet.
    #[must_use]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, started: Instant::now() }
    }

    /// This is being done now.
    pub fn step(&self, what: impl Into<String>) {
        let what = what.into();
        match &self.bar {
            Some(bar) => {
                // The step before stays above, with the time at which it ended.
                let before = bar.message();
                if !before.is_empty() {
                    bar.println(format!("✓ {:5.1} s  {before}", self.started.elapsed().as_secs_f64()));
                }
                bar.set_message(what);
            }
            None => eprintln!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64()),
        }
    }

    /// Nothing is being done any more.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            let last = bar.message();
            bar.finish_and_clear();
            eprintln!("✓ {:5.1} s  {last}", self.started.elapsed().as_secs_f64());
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
