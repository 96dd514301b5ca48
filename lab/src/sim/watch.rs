//! What is measured: how far news has come, and who is held to be out of reach.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use i2plan_meshd::core::Now;
use i2plan_proto::identity::NodeId;
use serde::Serialize;

use super::world::{Node, World};
use super::{HEARTBEAT, VERDICTS};
use crate::Failure;

/// What a newcomer is to learn of.
pub(super) const NEWCOMER: &str = "all known to the newcomers";

/// Rounds of gossip within which news reaches all, also where members lie.
const ROUNDS: u32 = 20;

/// Rounds within which a newcomer knows all others.
const NEWCOMER_ROUNDS: u32 = 60;

/// Whether a node knows it; with the node's number.
type Known = Box<dyn FnMut(usize, &Node, Now) -> bool>;

/// What is waited for.
pub(super) struct News {
    what: &'static str,
    since: Duration,
    known: Known,
    /// Who should know it and does not yet.
    waiting: Vec<usize>,
    times: Vec<f64>,
}

/// How some news spread.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NewsReport {
    pub(super) what: &'static str,
    /// Who should know it, and still can; without those whose router came back in the last two rounds.
    pub(super) audience: usize,
    /// Seconds until 50, 99 and 100 % of those did; none if they never did.
    pub(super) half: Option<f64>,
    pub(super) most: Option<f64>,
    pub(super) all: Option<f64>,
    /// The last two in rounds of gossip.
    pub(super) most_rounds: Option<f64>,
    pub(super) all_rounds: Option<f64>,
}

/// One node holds another to be out of reach.
#[derive(Debug, Clone, Copy)]
struct Held {
    node: NodeId,
    /// Since when the other could be reached nevertheless, if it can.
    wrong_since: Option<Duration>,
    /// It could be reached when this began.
    from_the_start: bool,
}

/// Verdicts on nodes that could be reached.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Verdicts {
    /// Nodes that could be reached all the time and were held to be out of reach by one other.
    pub(super) wrong: u64,
    /// For how long at most, seconds.
    pub(super) longest_wrong: f64,
    /// Nodes that could be reached again and were still held to be out of reach, by one other.
    pub(super) outdated: u64,
    /// For how long after their return at most, seconds.
    pub(super) longest_outdated: f64,
}

#[derive(Default)]
pub(super) struct Watch {
    news: Vec<News>,
    held: HashMap<usize, Vec<Held>>,
    pub(super) verdicts: Verdicts,
    next_verdicts: Duration,
    /// When nodes whose router was down could hear again.
    pub(super) back: HashMap<usize, Duration>,
    /// Whom the last signature concerns beside its signer.
    pub(super) signed: Option<Vec<NodeId>>,
}

impl World {
    /// Waits for some nodes to know something.
    pub(super) fn expect(
        &mut self,
        what: &'static str,
        waiting: Vec<usize>,
        known: impl FnMut(usize, &Node, Now) -> bool + 'static,
    ) {
        let since = self.now;
        self.watch.news.push(News { what, since, known: Box::new(known), waiting, times: Vec::new() });
    }

    pub(super) fn look(&mut self) -> Result<(), Failure> {
        for news in &mut self.watch.news {
            let (known, times, nodes) = (&mut news.known, &mut news.times, &self.nodes);
            let back = &self.watch.back;
            news.waiting.retain(|place| {
                let node = &nodes[*place];
                let waits = !node.up || !known(*place, node, node.clock(self.now));
                if !waits {
                    // One that could not hear it could not know it.
                    let since = back.get(place).map_or(news.since, |back| news.since.max(*back));
                    times.push((self.now - since).as_secs_f64());
                }
                waits
            });
        }
        self.check_deadlines()?;
        self.check_tables()?;
        if self.now >= self.watch.next_verdicts {
            self.watch.next_verdicts = self.now + VERDICTS;
            for place in self.honest() {
                self.judge(place);
            }
        }
        Ok(())
    }

    /// Where members lie, one that should know some news and does not yet, if there is one.
    fn waits(&self, news: &News) -> Option<usize> {
        let waits = |place: &&usize| {
            let node = &self.nodes[**place];
            let expected = self.ledger.is_protected(&node.id) && !self.ledger.is_out(&node.id);
            node.up && node.mesh.network().is_some() && expected
        };
        news.waiting.iter().find(waits).copied()
    }

    /// Whether there is news that must still reach somebody because members lie.
    pub(super) fn is_waiting(&self) -> bool {
        !self.liars.is_empty() && self.watch.news.iter().any(|news| self.waits(news).is_some())
    }

    /// Where members lie, news must reach all others in time all the same.
    fn check_deadlines(&self) -> Result<(), Failure> {
        if self.liars.is_empty() {
            return Ok(());
        }
        for news in &self.watch.news {
            let rounds = if news.what == NEWCOMER { NEWCOMER_ROUNDS } else { ROUNDS };
            if self.now <= news.since + HEARTBEAT * rounds {
                continue;
            }
            if let Some(place) = self.waits(news) {
                let (know, wait) = (news.times.len(), news.waiting.len());
                let what = format!(
                    "property 5: after {rounds} rounds {know} know and {wait} do not, as this one: {}",
                    news.what
                );
                return Err(self.failure(place, what));
            }
        }
        Ok(())
    }

    /// Looks whom a node holds to be out of reach.
    fn judge(&mut self, place: usize) {
        let now = self.now;
        let mesh = &self.nodes[place].mesh;
        // With whom it has nothing to do it cannot reach, whatever it holds of them.
        let banned: HashSet<NodeId> = mesh.banned().collect();
        let mut unreachable = mesh.unreachable(self.clock(place));
        let counts = |node: &NodeId| self.liars.is_empty() || self.ledger.is_protected(node);
        unreachable.retain(|node| !banned.contains(node) && counts(node));
        let before = self.watch.held.remove(&place).unwrap_or_default();
        if unreachable.is_empty() && before.is_empty() {
            return;
        }
        let mut verdicts = self.watch.verdicts;
        let mut held = Vec::with_capacity(unreachable.len());
        for node in unreachable {
            let reached = self.by_id.get(&node).is_some_and(|there| self.reaches(place, *there));
            let old = before.binary_search_by_key(&node, |held| held.node).ok().map(|at| before[at]);
            let mut this = old.unwrap_or(Held { node, wrong_since: None, from_the_start: reached });
            if !reached {
                this.wrong_since = None;
                this.from_the_start = false;
            } else {
                if this.wrong_since.is_none() {
                    this.wrong_since = Some(now);
                    let count =
                        if this.from_the_start { &mut verdicts.wrong } else { &mut verdicts.outdated };
                    *count += u64::from(self.measuring);
                }
                // It was so for as long as has passed since it was seen first, and may be until it is looked at next.
                let lasted = this.wrong_since.map_or(Duration::ZERO, |since| now - since + VERDICTS);
                let longest = if this.from_the_start {
                    &mut verdicts.longest_wrong
                } else {
                    &mut verdicts.longest_outdated
                };
                *longest = longest.max(lasted.as_secs_f64());
            }
            held.push(this);
        }
        self.watch.verdicts = verdicts;
        if !held.is_empty() {
            self.watch.held.insert(place, held);
        }
    }

    pub(super) fn news(&self) -> Vec<NewsReport> {
        let report = |news: &News| {
            let can = |place: &&usize| {
                let node = &self.nodes[**place];
                let back = self.watch.back.get(*place).copied().unwrap_or_default();
                let hears = !self.net.down.contains(*place) && self.now >= back + 2 * HEARTBEAT;
                node.up && node.mesh.network().is_some() && hears
            };
            let mut times = news.times.clone();
            times.sort_by(f64::total_cmp);
            let audience = times.len() + news.waiting.iter().filter(can).count();
            let part = |part: f64| {
                let needed = (audience as f64 * part).ceil() as usize;
                times.get(needed.saturating_sub(1)).copied()
            };
            let rounds = |seconds: f64| seconds / HEARTBEAT.as_secs_f64();
            let (half, most, all) = (part(0.5), part(0.99), part(1.0));
            NewsReport {
                what: news.what,
                audience,
                half,
                most,
                all,
                most_rounds: most.map(rounds),
                all_rounds: all.map(rounds),
            }
        };
        self.watch.news.iter().map(report).collect()
    }
}
