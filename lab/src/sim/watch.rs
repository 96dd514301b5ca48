//! What is measured: how far news has come, and who is held to be out of reach.

use std::collections::HashSet;
use std::time::Duration;

use i2plan_meshd::core::Now;
use i2plan_proto::identity::NodeId;

use super::measured::{Held, News, NewsReport};
use super::node::Node;
use super::options::HEARTBEAT;
use super::world::World;
use crate::Failure;

/// What a newcomer is to learn of.
pub(super) const NEWCOMER: &str = "all known to the newcomers";

/// How often it is looked who is held to be out of reach.
const VERDICTS: Duration = Duration::from_secs(5);

/// Rounds of gossip within which news reaches all, also where members lie.
const ROUNDS: u32 = 20;

/// Rounds within which a newcomer knows all others.
const NEWCOMER_ROUNDS: u32 = 60;

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
        // It cannot reach those that it has banned, whatever it holds of them.
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
