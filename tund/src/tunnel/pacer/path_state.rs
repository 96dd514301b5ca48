//! What is known of the path to a peer that reports what arrives.

use std::time::Duration;

use crate::path::controller::{CEILING, Controller};
use crate::path::flow_queues::FlowQueues;
use crate::path::reporter::Reporter;

/// After which a silent peer's packets are looked at again, none of which may go.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Both parts of a peer: how fast it is sent to, and what it is told of what has come from it.
#[derive(Debug)]
pub(super) struct PathState {
    pub(super) controller: Controller,
    pub(super) reporter: Reporter,
    /// Before this, its queues have nothing that may go.
    stalled_until: Duration,
}

impl PathState {
    /// For a peer whose handshake took `round_trip`, if that is known; the epoch is random. It adapts unless it has a
    /// fixed rate, in bytes a second.
    pub(super) fn new(
        round_trip: Option<Duration>,
        fixed_rate: Option<f64>,
        epoch: u32,
        now: Duration,
    ) -> Self {
        let mut reporter = Reporter::new(epoch);
        if let Some(round_trip) = round_trip {
            reporter.set_round_trip(round_trip);
        }
        let controller = match fixed_rate {
            Some(rate) => Controller::without_reports(rate, now),
            None => Controller::new(round_trip, CEILING, now),
        };
        Self { controller, reporter, stalled_until: Duration::ZERO }
    }

    /// Has the queues follow the controller. Before the peer `has_answered`, other bounds hold than those for a silent one.
    pub(super) fn adapt(&mut self, queues: &mut FlowQueues, has_answered: bool) {
        let Self { controller, stalled_until, .. } = self;
        queues.hold(has_answered && controller.is_silent());
        if !controller.is_silent() {
            *stalled_until = Duration::ZERO;
            queues.adapt(controller.round_trip(), controller.rate(), controller.packet());
        }
    }

    /// The queues had nothing that may go, though they are not empty.
    pub(super) fn note_stalled(&mut self, now: Duration) {
        self.stalled_until = now + LOOK_AGAIN;
    }

    /// When a packet may go; none if that takes a report or a timer.
    pub(super) fn ready_at(&self, now: Duration) -> Option<Duration> {
        Some(self.controller.ready_at(now)?.max(self.stalled_until))
    }
}
