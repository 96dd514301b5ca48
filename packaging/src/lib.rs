//! What i2plan's packages hold besides its programs and the files beside this crate.
//!
//! * [`pages`]: manual pages: of `i2planctl` from its command line's definition, of the daemons from their `--help`, of
//!   the configuration from the README's table.
//! * [`completions`]: for bash, zsh and fish.

pub mod completions;
pub mod pages;
pub mod roff;
