//! Finding out that one tunnel carries nothing while others do.
//!
//! Routers agree on an end-to-end session for each pair of destinations, and may hold on to one that the other cannot read.
//! Then a node hears some members and not others, and its sessions as a whole look well. A member that is sent what calls
//! for an answer, and is silent, is probed over control. If it is there, a handshake is begun with it, which also tells
//! its router of the present lease set. If that does not help, a session under another destination does.

use std::collections::HashMap;
use std::time::Duration;

use i2plan_ipc::rate::Bucket;
use i2plan_proto::identity::NodeId;

use super::session_health::REPLACEMENTS;

/// How long a member may be silent after it was sent something. One that has nothing to say answers after ten seconds
/// (WireGuard, section 6.1: KEEPALIVE_TIMEOUT), or a handshake at once.
const SILENT: Duration = Duration::from_secs(6);

/// A message that was under way when the tunnel fell silent says nothing.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// First interval between probes, or handshakes, of one member; each further is half as long again, up to the last.
const FIRST_INTERVAL: Duration = Duration::from_secs(2);
const LAST_INTERVAL: Duration = Duration::from_secs(60);

/// From the first handshake with a member that is there to another session, mostly, the first time; each further time twice as
/// long for that member, and half as long again after each [`HALVED`]: a member that is silent in its tunnel at will must
/// not have sessions replaced all the time.
const FIRST_PATIENCE: Duration = Duration::from_secs(6);
const LAST_PATIENCE: Duration = Duration::from_secs(600);
const HALVED: Duration = Duration::from_secs(300);

/// The same after a sleep, where another session has been opened before it is known whether it is needed.
const WOKEN_PATIENCE: Duration = Duration::from_secs(3);

/// The same where the member gave no sign of life for [`AWAY`] and is back: it was asleep or cut off, and replaces its session
/// if that is dead. If all others replaced theirs too, none would find another for a while.
const RETURNED_PATIENCE: Duration = Duration::from_secs(45);
const AWAY: Duration = Duration::from_secs(10);

/// How long a silent tunnel may be that of a member of which it is not known yet whether it is there.
const UNKNOWN: Duration = Duration::from_secs(20);

/// A keepalive, bytes: it calls for no answer.
const KEEPALIVE_LEN: u64 = 32;

/// The beginning of a handshake, bytes: that one comes says nothing of what was sent. No other message is as long.
const INITIATION_LEN: u64 = 148;

/// What was sent to and received from a member so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
}

impl Traffic {
    /// Grows with what calls for an answer.
    fn asked(&self) -> u64 {
        self.tx_bytes.saturating_sub(self.tx_packets * KEEPALIVE_LEN)
    }

    /// Changes with what may be an answer.
    fn answered(&self) -> i128 {
        i128::from(self.rx_bytes) - i128::from(self.rx_packets) * i128::from(INITIATION_LEN)
    }
}

#[derive(Debug)]
struct Pair {
    answered: i128,
    asked: u64,
    /// Since when an answer is due.
    silent: Option<Duration>,
    /// When a handshake was first begun for that.
    tested: Option<Duration>,
    /// How long that may take to help.
    patience: Duration,
    /// It is tested because the host was asleep.
    woken: bool,
    next: Duration,
    interval: Duration,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PairActions {
    /// Members to be probed over control.
    pub(super) probe: Vec<NodeId>,
    /// Members to begin a handshake with.
    pub(super) shake_hands: Vec<NodeId>,
    /// Another session is to be opened.
    pub(super) renew: bool,
}

/// Watches the tunnels. Time is the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct PairHealth {
    pairs: HashMap<NodeId, Pair>,
    /// Members for which another session was opened, with the patience for the next and the time of the last.
    renewed: HashMap<NodeId, (Duration, Duration)>,
    renewals: Bucket,
}

/// What is left of a patience for the next time, since another session was opened.
fn patience_after((patience, renewed): (Duration, Duration), now: Duration) -> Duration {
    let halved = now.saturating_sub(renewed).as_secs() / HALVED.as_secs();
    patience / (1 << halved.min(16))
}

impl PairHealth {
    /// There is another session: each tunnel has its time to work through it.
    pub(super) fn handle_session(&mut self) {
        self.pairs.clear();
    }

    /// The host was asleep. Each tunnel is tested, soon; that it is dead then says nothing of the member.
    pub(super) fn handle_resumed(&mut self, now: Duration) {
        self.renewed.clear();
        for pair in self.pairs.values_mut() {
            pair.silent = Some((now + UNDER_WAY).saturating_sub(SILENT));
            (pair.tested, pair.next, pair.interval) = (None, now, FIRST_INTERVAL);
            pair.woken = true;
        }
    }

    /// These are all members with tunnels.
    pub(super) fn handle_traffic(&mut self, traffic: impl Iterator<Item = (NodeId, Traffic)>, now: Duration) {
        let mut before = std::mem::take(&mut self.pairs);
        self.pairs.extend(traffic.map(|(node, traffic)| {
            let same = before.remove(&node).filter(|pair| {
                let is_under_way = pair.woken && pair.silent.is_some_and(|since| now < since + SILENT);
                pair.answered == traffic.answered() || is_under_way
            });
            let mut pair = same.unwrap_or(Pair {
                answered: traffic.answered(),
                asked: traffic.asked(),
                silent: None,
                tested: None,
                patience: FIRST_PATIENCE,
                woken: false,
                next: now,
                interval: FIRST_INTERVAL,
            });
            pair.answered = traffic.answered();
            if traffic.asked() > pair.asked {
                pair.silent.get_or_insert(now);
            }
            (node, pair)
        }));
        self.renewed.retain(|_, renewed| patience_after(*renewed, now) > FIRST_PATIENCE);
    }

    /// Whether no tunnel is silent of a member that is there, or may be: what [`PairHealth::poll_actions`] has wanted is not
    /// needed any more.
    pub(super) fn is_settled(&self, is_there: impl Fn(&NodeId, Duration) -> bool, now: Duration) -> bool {
        let is_silent = |(node, pair): (&NodeId, &Pair)| {
            pair.silent.is_some_and(|since| now < since + UNKNOWN || is_there(node, since + UNDER_WAY))
        };
        !self.pairs.iter().any(is_silent)
    }

    /// What is due. `is_there` tells whether a member has given a sign of life since this time.
    pub(super) fn poll_actions(
        &mut self,
        is_there: impl Fn(&NodeId, Duration) -> bool,
        now: Duration,
    ) -> PairActions {
        let (mut actions, mut dead) = (PairActions::default(), Vec::new());
        for (node, pair) in &mut self.pairs {
            let Some(silent) = pair.silent.filter(|silent| now >= *silent + SILENT) else { continue };
            let there = is_there(node, silent + UNDER_WAY);
            if there && pair.tested.is_none() {
                pair.patience = match pair.woken {
                    true => WOKEN_PATIENCE,
                    false if now >= silent + SILENT + AWAY => RETURNED_PATIENCE,
                    false => FIRST_PATIENCE,
                };
                (pair.tested, pair.next, pair.interval) = (Some(now), now, FIRST_INTERVAL);
            }
            if now >= pair.next {
                let list = if there { &mut actions.shake_hands } else { &mut actions.probe };
                list.push(*node);
                pair.next = now + pair.interval;
                pair.interval = (pair.interval * 3 / 2).min(LAST_INTERVAL);
            }
            let renewed = self.renewed.get(node).map(|renewed| patience_after(*renewed, now));
            let patience = pair.patience.max(renewed.unwrap_or_default());
            let next = renewed.unwrap_or(FIRST_PATIENCE) * 2;
            if there && pair.tested.is_some_and(|tested| now >= tested + patience) {
                dead.push((*node, next.min(LAST_PATIENCE)));
            }
        }
        if !dead.is_empty() && self.renewals.try_take(REPLACEMENTS, now) {
            actions.renew = true;
            self.renewed.extend(dead.into_iter().map(|(node, patience)| (node, (patience, now))));
            // Now they have their time to work through that.
            for pair in self.pairs.values_mut().filter(|pair| pair.tested.is_some()) {
                pair.tested = Some(now);
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 32]);
    const OTHER: NodeId = NodeId([2; 32]);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Packets of 100 bytes.
    fn packets(tx_packets: u64, rx_packets: u64) -> Traffic {
        Traffic { tx_packets, tx_bytes: tx_packets * 100, rx_packets, rx_bytes: rx_packets * 100 }
    }

    /// Lets a member be silent from the first second on, while another answers. When it was probed, when a handshake was
    /// begun with it, and when the session was to be replaced; all by the second.
    fn watch(until: u64, is_there: impl Fn(u64) -> bool) -> [Vec<u64>; 3] {
        let mut health = PairHealth::default();
        let [mut probed, mut shaken, mut renewed] = [const { Vec::new() }; 3];
        for now in 0..until {
            // All that comes from it is that it begins handshakes.
            let silent = Traffic { rx_packets: now, rx_bytes: now * INITIATION_LEN, ..packets(now, 0) };
            let traffic = [(NODE, silent), (OTHER, packets(now, now))];
            health.handle_traffic(traffic.into_iter(), seconds(now));
            let actions = health.poll_actions(|_, _| is_there(now), seconds(now));
            assert!(![&actions.probe, &actions.shake_hands].into_iter().flatten().any(|node| *node == OTHER));
            probed.extend(actions.probe.first().map(|_| now));
            shaken.extend(actions.shake_hands.first().map(|_| now));
            renewed.extend(actions.renew.then_some(now));
        }
        [probed, shaken, renewed]
    }

    #[test]
    fn a_member_that_is_there_and_silent_gets_a_handshake_and_then_another_session() {
        let [probed, shaken, renewed] = watch(60, |now| now > 7);
        assert_eq!(probed, [7]);
        assert_eq!(shaken[..3], [8, 10, 13]);
        assert_eq!(renewed, [14, 26, 50]);
    }

    #[test]
    fn after_a_sleep_the_session_is_replaced_soon_if_the_tunnel_is_dead() {
        // What comes in the first moment was under way.
        for (until, expected) in [(21, vec![13, 25, 37]), (99, vec![13])] {
            let mut health = PairHealth::default();
            let mut renewed = Vec::new();
            for now in 0..40 {
                let answered = if now >= 21 { now.min(until) } else { 0 };
                health.handle_traffic([(NODE, packets(now, answered))].into_iter(), seconds(now));
                if now == 20 {
                    health.handle_resumed(seconds(now));
                }
                renewed.extend(health.poll_actions(|_, _| true, seconds(now)).renew.then_some(now));
            }
            assert_eq!(renewed, expected);
        }
    }

    /// It answers as soon as there is another session, and is silent again.
    #[test]
    fn a_member_that_is_silent_at_will_has_few_sessions_replaced() {
        let (mut health, mut sent, mut answered, mut renewed) = (PairHealth::default(), 0, 0, 0);
        for now in 0..3600 {
            sent += 1;
            health.handle_traffic([(NODE, packets(sent, answered))].into_iter(), seconds(now));
            if health.poll_actions(|_, _| true, seconds(now)).renew {
                renewed += 1;
                health.handle_session();
                answered += 1;
            }
        }
        assert!((1..=20).contains(&renewed), "{renewed} in an hour");
    }

    /// Others fall silent at will, one after the other.
    #[test]
    fn many_that_are_silent_at_will_have_few_sessions_replaced_together() {
        let (mut health, mut renewed) = (PairHealth::default(), 0);
        for now in 0..3600 {
            let traffic = (0..50).map(|number| (NodeId([number; 32]), packets(now, renewed)));
            health.handle_traffic(traffic, seconds(now));
            if health.poll_actions(|_, _| true, seconds(now)).renew {
                renewed += 1;
                health.handle_session();
            }
            // And others again.
            health.renewed.clear();
        }
        assert!((1..=30).contains(&renewed), "{renewed} in an hour");
    }

    /// As where faults come every few minutes for hours: once a pair then waited for two minutes.
    #[test]
    fn after_some_minutes_the_session_is_replaced_as_soon_as_before() {
        let (mut health, mut answered, mut first) = (PairHealth::default(), 0, HashMap::new());
        for now in 0..7200 {
            // Half a minute in ten.
            if now % 600 < 570 {
                answered = now;
            }
            health.handle_traffic([(NODE, packets(now, answered))].into_iter(), seconds(now));
            if health.poll_actions(|_, _| true, seconds(now)).renew {
                first.entry(now / 600).or_insert(now % 600 - 570);
            }
        }
        assert_eq!(first.len(), 12);
        assert!(first.values().all(|took| *took < 20), "{first:?}");
    }

    /// The patience that one has cost is not another's.
    #[test]
    fn for_another_member_the_session_is_replaced_as_soon() {
        let (mut health, mut renewed) = (PairHealth::default(), Vec::new());
        for now in 0..220 {
            // One is silent for long. The other answers at first.
            let answered = now.min(200);
            let traffic = [(NODE, packets(now, 0)), (OTHER, packets(now, answered))];
            health.handle_traffic(traffic.into_iter(), seconds(now));
            let there = |node: &NodeId, _: Duration| (*node == NODE) == (now < 150);
            renewed.extend(health.poll_actions(there, seconds(now)).renew.then_some(now));
        }
        assert_eq!(renewed.last(), Some(&213), "{renewed:?}");
    }

    /// All others see its tunnel dead, and it sees theirs.
    #[test]
    fn to_a_member_that_was_away_it_is_left_to_replace_its_session() {
        let [_, shaken, renewed] = watch(120, |now| now >= 30);
        assert_eq!((shaken[0], &renewed[..]), (30, &[75][..]));
    }

    #[test]
    fn what_was_wanted_is_not_needed_when_no_member_that_is_there_is_silent() {
        let mut health = PairHealth::default();
        let settled = |health: &PairHealth, there: bool, now| health.is_settled(|_, _| there, seconds(now));
        let tell = |health: &mut PairHealth, sent, answered, now| {
            health.handle_traffic([(NODE, packets(sent, answered))].into_iter(), seconds(now));
        };
        tell(&mut health, 1, 1, 0);
        assert!(settled(&health, true, 0));
        tell(&mut health, 2, 1, 1);
        assert!(!settled(&health, false, 20), "it may be there");
        assert!(settled(&health, false, 21) && !settled(&health, true, 21));
        tell(&mut health, 3, 2, 22);
        assert!(settled(&health, true, 22));
        health.handle_resumed(seconds(30));
        assert!(!settled(&health, true, 30), "that is to be found out");
    }

    #[test]
    fn for_one_that_is_away_the_session_is_not_replaced() {
        let [probed, shaken, renewed] = watch(3600, |_| false);
        assert_eq!(probed[..4], [7, 9, 12, 17]);
        assert!(probed.len() < 80 && shaken.is_empty() && renewed.is_empty());
    }

    #[test]
    fn one_that_comes_back_gets_a_handshake_at_once() {
        let [_, shaken, _] = watch(1001, |now| now == 1000);
        assert_eq!(shaken, [1000]);
    }

    #[test]
    fn keepalives_call_for_nothing() {
        let mut health = PairHealth::default();
        for now in 0..300 {
            let keepalives = Traffic { tx_packets: now, tx_bytes: now * KEEPALIVE_LEN, ..packets(0, 7) };
            health.handle_traffic([(NODE, keepalives)].into_iter(), seconds(now));
            assert_eq!(health.poll_actions(|_, _| true, seconds(now)), PairActions::default());
        }
    }

    #[test]
    fn members_that_are_gone_are_forgotten() {
        let mut health = PairHealth::default();
        for now in 0..2 {
            health.handle_traffic([(NODE, packets(now, 0))].into_iter(), seconds(now));
        }
        health.handle_traffic(std::iter::empty(), seconds(2));
        assert!(health.pairs.is_empty());
    }
}
