//! A datagram that makes the core panic costs that datagram, not what this process knows.

use std::time::Duration;

use i2plan_ipc::daemon::panics::{Throttle, contain};
use i2plan_proto::destination::DestinationHash;
use tracing::error;

/// Has datagrams handled, and logs those that panic.
///
/// The core may have done half of what a datagram asks for then. If that leaves it in a state that panics without a
/// datagram too, the daemon ends and reads its saved state again.
#[derive(Debug, Default)]
pub(super) struct DatagramContainment {
    throttle: Throttle,
}

impl DatagramContainment {
    /// Handles one that came at this time.
    pub(super) fn handle(
        &mut self,
        sender: impl FnOnce() -> DestinationHash,
        now: Duration,
        work: impl FnOnce(),
    ) {
        let Err(panicked) = contain(work) else { return };
        if let Some(suppressed) = self.throttle.admit(now) {
            error!(
                peer = %sender().short(),
                location = %panicked.location,
                error = %panicked.message,
                suppressed,
                "a datagram made the mesh panic"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Level, Metadata, Subscriber, span};

    use super::*;

    /// Counts errors, and adds up what they say was suppressed.
    #[derive(Default)]
    struct Errors {
        lines: AtomicU64,
        suppressed: AtomicU64,
    }

    struct Log(std::sync::Arc<Errors>);

    impl Visit for &Log {
        fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

        fn record_u64(&mut self, _: &Field, value: u64) {
            self.0.suppressed.fetch_add(value, Ordering::Relaxed);
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::ERROR
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            self.0.lines.fetch_add(1, Ordering::Relaxed);
            event.record(&mut &*self);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn datagrams_that_panic_are_logged_now_and_then_and_others_are_handled() {
        let errors = std::sync::Arc::<Errors>::default();
        let mut handled = 0;
        tracing::subscriber::with_default(Log(errors.clone()), || {
            let mut containment = DatagramContainment::default();
            let sender = || DestinationHash([7; 32]);
            for second in 0..20 {
                let now = Duration::from_millis(100 * second);
                containment.handle(sender, now, || panic!("datagram {second}"));
                containment.handle(sender, now, || handled += 1);
            }
            assert_eq!(errors.lines.load(Ordering::Relaxed), 5);
            containment.handle(sender, Duration::from_secs(120), || panic!("one more"));
        });
        assert_eq!(handled, 20);
        assert_eq!(
            (errors.lines.load(Ordering::Relaxed), errors.suppressed.load(Ordering::Relaxed)),
            (6, 15)
        );
    }
}
