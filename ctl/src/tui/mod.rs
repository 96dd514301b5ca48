//! `i2planctl tui`: the node on the whole terminal.
//!
//! * `app`: what is known, what is shown, and what keys do. It takes what comes in, with the time, and tells
//!   what is to be done: no terminal, no node, no clock.
//! * `view`: how that looks.
//! * `shell`: the terminal, the node and the clock around it.
//! * [`screen`]: the terminal, and how it is left as it was.
//! * `requests`: what the node is asked for, and when.
//! * `list`, `rows`, `history`, `events`, `form`: what the pages are made of.

mod app;
mod events;
mod form;
mod history;
mod list;
mod requests;
mod rows;
pub mod screen;
mod shell;
mod view;

#[cfg(test)]
mod tests;

pub use shell::run;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Press ? there for the keys. A secret is on the screen only when it was asked for, and not for long.";
