//! `i2plan-webd`: web pages that show a node and control it.
//!
//! A process of its own, and an ordinary client of `meshd`: what parses HTTP from browsers and from everybody on this
//! host has none of `meshd`'s rights but those of the control group, and none of `rpcd`'s, which may give orders. It
//! holds no key of the node, writes nothing down and reads no file while it serves but a renewed certificate with its
//! key, on SIGHUP.
//!
//! Without I/O:
//! * [`sessions`]: one-time links, the sessions that they open, and what a session may do how often.
//! * [`access`]: which requests are looked at.
//! * [`form`]: what a form sends.
//! * [`history`]: what happened lately, and how much traffic there was.
//! * [`pages`]: the pages.
//!
//! Around it:
//! * [`server`]: the process.
//! * [`control`]: the unix socket, at which `i2planctl web` asks for links.
//! * [`http`]: the listener for browsers: paths, forms and what they lead to.
//! * [`programs`]: what programs ask for.
//! * [`live`]: follows the node, and tells pages that something has changed.
//! * [`site`]: where the pages are: the address, the names that lead there, and TLS.
//! * [`sandbox`]: what the process may do.

pub mod access;
pub mod control;
pub mod form;
pub mod history;
pub mod http;
pub mod live;
pub mod pages;
pub mod programs;
pub mod sandbox;
pub mod server;
pub mod sessions;
pub mod site;
