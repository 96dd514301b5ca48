//! A data path that adapts to the path: what a receiver reports, how fast a sender sends, and what waits meanwhile.
//!
//! Nothing here does input or output or reads a clock: time comes in with each call, as the duration since a moment
//! that the caller chooses once.

pub mod controller;
mod delays;
mod ecn;
pub mod emulation;
mod flight;
pub mod flow_queues;
pub mod node_limit;
pub mod reporter;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

/// Datagram bytes for which a receiver may send one byte of reports.
const REPORT_SHARE: f64 = 100.0;

/// Datagrams for which a receiver may send one report.
const PACKETS_PER_REPORT: f64 = 16.0;

/// Length of the longest report as a WireGuard message, bytes.
const REPORT_LEN: f64 = (i2plan_proto::path_report::PathReport::MAX_PACKET + 32) as f64;

/// What a datagram of `len` bytes adds to the reports that its receiver may send.
fn report_credit(len: usize) -> f64 {
    (len as f64 / (REPORT_SHARE * REPORT_LEN)).min(1.0 / PACKETS_PER_REPORT)
}
