//! What i2plan's packages hold besides its programs and the files beside this crate.
//!
//! * [`pages`]: manual pages: of `i2planctl` from its command line's definition, of the daemons from their `--help`, of
//!   the configuration from its table of keys.
//! * [`completions`]: for bash, zsh and fish.
//! * [`roff`]: text as manual pages want it.

pub mod completions;
pub mod pages;
pub mod roff;
