//! How news spreads: what comes in is checked, taken in and passed on; regular comparisons find what was missed; and
//! members find out of each other whether they are there.
//!
//! * `probe`: asking whether members are there.
//! * `intake`: records, liveness, suspicions and ends of memberships are checked and taken in.
//! * `spread`: rumors are told, wants granted, comparisons begun.
//! * `schedule`: when this node speaks of its own accord.

use std::ops::ControlFlow;
use std::time::Duration;

use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::NodeId;
use i2plan_proto::message::{Item, Message, Range};
use rand::RngExt as _;

use crate::core::Now;
use crate::core::budget::Asker;
use crate::core::context::Context;
use crate::core::local_member::LocalMember;
use crate::core::members::Member;
use crate::core::situation::Standing;

mod intake;
mod probe;
mod schedule;
mod spread;

pub(super) use intake::is_timely;
pub(super) use schedule::{Announcer, Comparison, Comparisons};

/// So many members at a time a node compares with that catches up. What limits it are the bytes that each of the others
/// has for its share.
const CATCHING_UP: usize = 2;

/// For so long after its start a node may catch up.
const NEW: Duration = Duration::from_secs(30 * 60);

impl LocalMember {
    /// Says and asks what is due.
    pub(crate) fn gossip(&mut self, cx: &mut Context, now: Now) -> Standing {
        if self.publication.record.is_none() {
            return ControlFlow::Continue(());
        }
        if let Comparison::Waiting(announced) = &mut self.comparisons.since_start {
            announced.get_or_insert(now.monotonic);
        }
        self.standing(now)?;
        self.refute(cx, now);
        if self.announcer.poll_announcement(now.monotonic) {
            cx.counts.announcements += 1;
            self.announce(cx, now);
        }
        let catches_up = self.catches_up(now);
        if self.announcer.poll_comparison(now.monotonic, &mut cx.rng)
            && cx.budget.may_compare(catches_up, now.monotonic)
        {
            // Whoever was not reached lately too: so the halves of a network find together again.
            for target in self.draw(cx, if catches_up { CATCHING_UP } else { 1 }, |_| true) {
                let opening = self.opening(cx, catches_up);
                let compare = self.comparison(cx, opening, now);
                self.send(cx, &target, &compare, now);
            }
            if catches_up {
                self.announcer.compare_soon(now.monotonic);
            }
            self.members.drop_unconfirmed_suspicions(now.monotonic);
            self.ping_unreachable(cx, now);
        }
        self.detect(cx, now);
        if self.rumors.is_due(now.monotonic) {
            self.tell_rumors(cx, now);
        }
        ControlFlow::Continue(())
    }

    /// Whether this node is new, or was started again, and lacks much of what others know, or did until a moment ago.
    /// Members that lie can say that they know more; so that is all the same to a node that has run for long.
    fn catches_up(&self, now: Now) -> bool {
        let Comparisons { is_behind, is_dense, laps, .. } = self.comparisons;
        (is_behind || is_dense && laps > 0) && now.monotonic < self.since + NEW
    }

    /// What begins a comparison. A node that lacks much lists members in turn: so whatever happens to the sums, within a
    /// lap others see of each member whether it knows it. What others lack is mostly ends of memberships, which no list
    /// has.
    fn opening(&mut self, cx: &mut Context, catches_up: bool) -> Vec<Range> {
        let (known, comparisons) = (self.members.index(), &mut self.comparisons);
        if catches_up || comparisons.is_behind {
            let (opening, next) = known.opening_with_list(comparisons.next_list);
            comparisons.next_list = next;
            if next.is_none() && !comparisons.is_behind {
                comparisons.laps = comparisons.laps.saturating_sub(1);
            }
            opening
        } else if self.comparisons.endings_differ && cx.rng.random_ratio(3, 4) {
            known.opening_of_members()
        } else {
            known.opening()
        }
    }

    /// Where some members that pass, and that this node has not banned, take messages.
    fn draw(&mut self, cx: &mut Context, count: usize, pass: impl Fn(&Member) -> bool) -> Vec<Destination> {
        let bans = &self.bans;
        let pass = |member: &Member| !bans.is_banned(&member.node()) && pass(member);
        let drawn = self.members.sample(count, pass, &mut cx.rng);
        drawn.into_iter().map(|member| member.way(&mut cx.rng)).collect()
    }

    pub(crate) fn send_items(&mut self, cx: &mut Context, to: &Destination, items: Vec<Item>, now: Now) {
        self.send(cx, to, &Message::news(items), now);
    }

    /// Answers somebody, if it has not asked for too much.
    fn reply(&mut self, cx: &mut Context, to: &Destination, message: &Message, now: Now) {
        let asker = self.asker(&to.hash());
        cx.answer_for(&asker, to, message, now);
    }

    /// At whose expense a destination is answered.
    pub(crate) fn asker(&self, from: &DestinationHash) -> Asker {
        self.places_at(from).first().copied()
    }

    /// The address block of a member; none if it is not known.
    fn block_of(&self, node: &NodeId) -> Option<u32> {
        self.members.get(node).map(|member| self.members.share_of(member))
    }
}
