//! Few datagrams to a destination from which nothing has come on this node's present control session.
//!
//! Until both routers have agreed on a session, each datagram is encrypted like a first one, at several times the cost,
//! and i2pd takes no more than one of them in 200 ms for each destination (since 2.55): of two that go together, one is
//! lost. So they go one by one, at the distance of [`SPACING`], until something comes. What is already an answer is not
//! held up: the router of the other has begun a session, and takes it as part of that.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use i2plan_proto::destination::DestinationHash;
use tracing::debug;

use super::Action;

/// Distance of the datagrams to a destination that has not answered: more than 200 ms by as much as the time that they
/// take may differ.
const SPACING: Duration = Duration::from_millis(250);

/// Datagrams that wait for one destination at most: two seconds' worth. Gossip finds later what is lost now.
const MAX_WAITING: usize = 8;

/// Datagrams that wait for all destinations together at most.
const MAX_WAITING_IN_ALL: usize = 256;

/// Destinations that are remembered to have answered at most. If strangers make them more, all have to answer again.
const MAX_ANSWERED: usize = 16_384;

/// A destination, and whether it is the control session that sends there although there is a fallback: the routers agree
/// on a session for each pair of destinations.
type Flow = (DestinationHash, bool);

/// One datagram went to it a moment ago.
#[derive(Debug)]
struct Unanswered {
    /// When the next may go.
    next: Duration,
    waiting: VecDeque<Action>,
}

/// Which destinations have answered, and what waits for others.
#[derive(Debug, Default)]
pub(super) struct FirstContacts {
    answered: HashSet<DestinationHash>,
    /// Only those to which something waits or may not go yet.
    unanswered: BTreeMap<Flow, Unanswered>,
    waiting: usize,
}

impl FirstContacts {
    /// There is another control session: none has answered on it.
    pub(super) fn forget_answers(&mut self) {
        self.answered.clear();
    }

    /// A datagram is to go to a destination. Returns it if it may go now.
    pub(super) fn send(&mut self, to: DestinationHash, action: Action, now: Duration) -> Option<Action> {
        if self.answered.contains(&to) {
            return Some(action);
        }
        let flow = (to, matches!(action, Action::Send { as_control: true, .. }));
        if let Some(contact) = self.unanswered.get_mut(&flow)
            && (now < contact.next || !contact.waiting.is_empty())
        {
            if contact.waiting.len() < MAX_WAITING && self.waiting < MAX_WAITING_IN_ALL {
                contact.waiting.push_back(action);
                self.waiting += 1;
            } else {
                debug!(to = %to.short(), "dropped a control message: too many wait for an answer");
            }
            return None;
        }
        self.unanswered.retain(|_, contact| now < contact.next || !contact.waiting.is_empty());
        self.unanswered.insert(flow, Unanswered { next: now + SPACING, waiting: VecDeque::new() });
        Some(action)
    }

    /// Lets a destination that has not answered send first: what is sent there waits until something comes, or until
    /// then.
    pub(super) fn yield_to(&mut self, to: DestinationHash, until: Duration) {
        if !self.answered.contains(&to) {
            self.unanswered
                .entry((to, false))
                .or_insert(Unanswered { next: until, waiting: VecDeque::new() });
        }
    }

    /// Something has come from a destination. Returns what has waited for it.
    pub(super) fn heard(&mut self, from: DestinationHash) -> VecDeque<Action> {
        if self.answered.len() >= MAX_ANSWERED {
            self.answered.clear();
        }
        self.answered.insert(from);
        let contacts =
            [true, false].into_iter().filter_map(|as_control| self.unanswered.remove(&(from, as_control)));
        let waited: VecDeque<_> = contacts.flat_map(|contact| contact.waiting).collect();
        self.waiting -= waited.len();
        waited
    }

    /// When [`FirstContacts::poll_due`] has something, on the monotonic clock.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let waiting = self.unanswered.values().filter(|contact| !contact.waiting.is_empty());
        waiting.map(|contact| contact.next).min()
    }

    /// What may go by now.
    pub(super) fn poll_due(&mut self, now: Duration) -> Vec<Action> {
        let mut due = Vec::new();
        for contact in self.unanswered.values_mut().filter(|contact| contact.next <= now) {
            if let Some(action) = contact.waiting.pop_front() {
                contact.next = now + SPACING;
                self.waiting -= 1;
                due.push(action);
            }
        }
        due
    }

    /// All that waits, since there is no time left.
    pub(super) fn take_all(&mut self) -> Vec<Action> {
        self.waiting = 0;
        std::mem::take(&mut self.unanswered).into_values().flat_map(|contact| contact.waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use i2plan_proto::destination::Destination;
    use proptest::prelude::*;

    use super::*;

    fn hash(number: u8) -> DestinationHash {
        DestinationHash([number; 32])
    }

    fn datagram(number: u8) -> Action {
        let to = Destination { padding: [1; 32], signing_key: [1; 32] };
        Action::Send { to, message: vec![number], as_control: false }
    }

    fn number(action: &Action) -> u8 {
        let Action::Send { message, .. } = action else { panic!("a datagram") };
        message[0]
    }

    #[test]
    fn what_waits_goes_in_order_with_the_answer() {
        let mut contacts = FirstContacts::default();
        assert!(contacts.send(hash(1), datagram(0), Duration::ZERO).is_some());
        for sent in 1..4 {
            assert!(contacts.send(hash(1), datagram(sent), Duration::ZERO).is_none());
        }
        assert!(contacts.send(hash(2), datagram(9), Duration::ZERO).is_some(), "others do not wait");
        let waited: Vec<_> = contacts.heard(hash(1)).iter().map(number).collect();
        assert_eq!((waited, contacts.poll_timeout()), (vec![1, 2, 3], None));
        assert!(contacts.send(hash(1), datagram(4), Duration::ZERO).is_some());
        assert!(contacts.send(hash(1), datagram(5), Duration::ZERO).is_some());
        // Not on another session.
        contacts.forget_answers();
        assert!(contacts.send(hash(1), datagram(6), Duration::ZERO).is_some());
        assert!(contacts.send(hash(1), datagram(7), Duration::ZERO).is_none());
        assert_eq!(contacts.take_all().iter().map(number).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn one_that_may_go_first_is_waited_for_but_not_for_ever() {
        let mut contacts = FirstContacts::default();
        let until = Duration::from_secs(1);
        for number in [1, 2] {
            contacts.yield_to(hash(number), until);
            assert!(contacts.send(hash(number), datagram(number), Duration::ZERO).is_none());
        }
        assert_eq!(contacts.heard(hash(1)).len(), 1);
        contacts.yield_to(hash(1), until);
        assert!(contacts.send(hash(1), datagram(3), Duration::ZERO).is_some(), "it has");
        assert_eq!(contacts.poll_timeout(), Some(until));
        assert_eq!(contacts.poll_due(until).len(), 1);
    }

    proptest! {
        /// Whatever is sent when: before an answer four a second go at most, what is not dropped goes in order, and all
        /// that waits is bounded and gone soon.
        #[test]
        fn the_bound_holds_and_nothing_waits_for_ever(
            steps in prop::collection::vec((0u8..4, 0u64..300, 0u8..20), 1..300),
        ) {
            let mut now = Duration::ZERO;
            let mut contacts = FirstContacts::default();
            let mut last = HashMap::new();
            let mut count = 0;
            for (to, pause, kind) in steps {
                now += Duration::from_millis(pause);
                match kind {
                    0 => _ = contacts.heard(hash(to)),
                    1 => contacts.forget_answers(),
                    _ => {
                        let answered = contacts.answered.contains(&hash(to));
                        let may = contacts.send(hash(to), datagram(count), now).is_some();
                        count = count.wrapping_add(1);
                        if may && !answered {
                            let before = last.insert(to, now);
                            prop_assert!(before.is_none_or(|before| now >= before + SPACING) || kind == 0);
                        }
                    }
                }
                if kind <= 1 {
                    // What was sent on an answered flow is not spaced.
                    last.clear();
                }
                let waiting: usize = contacts.unanswered.values().map(|contact| contact.waiting.len()).sum();
                prop_assert!(waiting == contacts.waiting && waiting <= MAX_WAITING_IN_ALL);
                if contacts.poll_timeout().is_some_and(|at| at <= now) {
                    contacts.poll_due(now);
                    last.clear();
                }
            }
            let end = now + SPACING * u32::try_from(MAX_WAITING).unwrap();
            while let Some(at) = contacts.poll_timeout() {
                now = at.max(now);
                prop_assert!(!contacts.poll_due(now).is_empty());
            }
            prop_assert!(now <= end && contacts.waiting == 0);
        }
    }
}
