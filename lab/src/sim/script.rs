//! What happens in each scenario.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use i2plan_ipc::api::meshd;
use i2plan_meshd::core::state::State;
use i2plan_meshd::core::{Action, Settings};
use i2plan_proto::identity::NodeId;
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;

use super::options::{QUIET, Scenario};
use super::step::ScenarioStep;
use super::watch::NEWCOMER;
use super::world::{SimEvent, World, signer};
use crate::Failure;

const MINUTE: Duration = Duration::from_secs(60);

/// How long the halves are apart.
const APART: Duration = Duration::from_secs(600);

/// How often each liar does something.
const LIE: Duration = Duration::from_secs(1);

/// How long a router is down.
const ROUTER_DOWN: std::ops::Range<u64> = 30..600;

/// How long a node is down that restarts.
const NODE_DOWN: std::ops::Range<u64> = 5..120;

impl World {
    /// Sets up what happens; returns when it is over.
    pub(super) fn script(&mut self) -> Duration {
        let pause = MINUTE * self.options.pause;
        let usual = |begin: Duration| {
            let steps =
                [ScenarioStep::Join(1), ScenarioStep::Move, ScenarioStep::Leave, ScenarioStep::Revoke];
            let steps: Vec<(Duration, ScenarioStep)> =
                steps.into_iter().zip(0..).map(|(step, number)| (begin + pause * number, step)).collect();
            (steps, begin + pause * 4)
        };
        let (mut steps, end) = match self.options.scenario {
            Scenario::Calm => usual(QUIET),
            Scenario::Restarts | Scenario::Outages | Scenario::Malicious => usual(QUIET + 2 * MINUTE),
            Scenario::FounderGone => {
                let (mut steps, end) = usual(QUIET + 2 * MINUTE);
                steps.truncate(3);
                (steps, end - pause)
            }
            Scenario::Partition => {
                let steps = vec![
                    (QUIET, ScenarioStep::Cut),
                    (QUIET + 3 * MINUTE, ScenarioStep::Rename),
                    (QUIET + APART, ScenarioStep::Heal),
                ];
                (steps, QUIET + APART + pause)
            }
            Scenario::Joins => {
                (vec![(QUIET, ScenarioStep::Join(self.options.nodes.div_ceil(5)))], QUIET + 2 * pause)
            }
            Scenario::Newcomer => (vec![(2 * MINUTE, ScenarioStep::Join(1))], 2 * MINUTE + pause),
            Scenario::Collisions => (Vec::new(), QUIET + pause),
        };
        match self.options.scenario {
            Scenario::Restarts => steps.push((QUIET, ScenarioStep::Restarts(end - 2 * QUIET))),
            Scenario::Outages => steps.push((QUIET, ScenarioStep::Outages)),
            Scenario::Malicious => {
                steps.push((QUIET, ScenarioStep::Turn));
                steps.push((QUIET + 2 * MINUTE + pause / 2, ScenarioStep::Expel));
            }
            Scenario::Newcomer => steps.push((Duration::ZERO, ScenarioStep::Turn)),
            Scenario::FounderGone => steps.push((QUIET, ScenarioStep::FounderGoes)),
            _ => {}
        }
        for (after, step) in steps {
            self.at(after, SimEvent::Script(step));
        }
        self.now + end
    }

    /// Some honest members whose router is there, not the founder.
    fn some(&mut self, count: usize) -> Vec<usize> {
        let candidates =
            self.honest().into_iter().filter(|index| *index != 0 && !self.net.down.contains(index));
        let mut some = candidates.sample(&mut self.rng, count);
        some.sort_unstable();
        some
    }

    /// All who should hear of something that happens to one.
    fn others(&self, except: usize) -> Vec<usize> {
        let mut honest = self.honest();
        honest.retain(|index| *index != except && !self.net.is_cut(except, *index));
        honest
    }

    pub(super) fn step(&mut self, step: ScenarioStep) -> Result<(), Failure> {
        match step {
            ScenarioStep::Join(count) => self.join(count)?,
            ScenarioStep::Rival { code } => {
                let (fresh, subnet) = (signer(&mut self.rng), self.nodes[0].settings.subnet);
                let state = State::new(fresh.keys().node());
                let rival = self.add(fresh, state, subnet)?;
                let now = self.clock(rival);
                self.nodes[rival].mesh.join(1, &code, now);
                self.settle(rival);
            }
            ScenarioStep::Move => {
                let Some(place) = self.some(1).pop() else { return Ok(()) };
                let data = self.nodes[place].signer.keys().ephemeral([2; 32]).public();
                self.nodes[place].data = data;
                self.nodes[place].mesh.handle_data_session(data);
                self.settle(place);
                let id = self.nodes[place].id;
                self.expect("address change", self.others(place), move |_, other, _| {
                    other.mesh.record_of(&id).is_some_and(|record| *record.value.data == data)
                });
            }
            ScenarioStep::Rename => {
                let Some(place) = self.some(1).pop() else { return Ok(()) };
                let now = self.clock(place);
                let name = "renamed".parse().map_err(|_| Failure::new("a name"))?;
                let settings = Settings { name, ..self.nodes[place].settings.clone() };
                self.nodes[place].mesh.reconfigure(settings, now);
                self.settle(place);
                let id = self.nodes[place].id;
                self.expect("change in one half", self.others(place), move |_, other, _| {
                    other.mesh.record_of(&id).is_some_and(|record| record.value.name.as_str() == "renamed")
                });
            }
            ScenarioStep::Leave => {
                let Some(place) = self.some(1).pop() else { return Ok(()) };
                let id = self.nodes[place].id;
                self.nodes[place].mesh.leave(1);
                self.out.borrow_mut().insert(id);
                self.settle(place);
                self.expect("leave", self.others(place), move |_, other, _| {
                    other.mesh.record_of(&id).is_none()
                });
            }
            ScenarioStep::Revoke => {
                // One who has invited nobody, so that the others stay.
                let candidates = self.some(self.nodes.len());
                let alone = |place: &&usize| {
                    let id = self.nodes[**place].id;
                    !self.nodes.iter().any(|other| other.id != id && self.ledger.stands_above(&id, &other.id))
                };
                let Some(place) = candidates.iter().find(alone).copied() else { return Ok(()) };
                self.revoke("ban from the network", place);
            }
            ScenarioStep::Expel => {
                // One that still has a membership: some have signed that they leave.
                let is_member =
                    |liar: &&usize| self.nodes[0].mesh.record_of(&self.nodes[**liar].id).is_some();
                let liars = self.liars.difference(&self.lies.resigned).filter(is_member);
                if let Some(place) = liars.min().copied() {
                    self.revoke("ban of a liar", place);
                }
            }
            ScenarioStep::Restarts(within) => {
                for place in self.some(self.nodes.len() / 3) {
                    self.keep_disk(place);
                    let after = Duration::from_secs(self.rng.random_range(0..within.as_secs()));
                    self.at(after, SimEvent::Script(ScenarioStep::Stop(place)));
                }
            }
            ScenarioStep::Stop(place) => {
                self.nodes[place].up = false;
                let away = Duration::from_secs(self.rng.random_range(NODE_DOWN));
                self.at(away, SimEvent::Script(ScenarioStep::Start(place)));
            }
            ScenarioStep::Start(place) => self.restart(place),
            ScenarioStep::Cut => self.net.island = self.some(self.nodes.len() / 2).into_iter().collect(),
            ScenarioStep::Heal => self.heal(),
            ScenarioStep::Outages => {
                for place in 0..self.nodes.len() {
                    let after = Duration::from_secs(self.rng.random_range(0..6000));
                    self.at(after, SimEvent::Script(ScenarioStep::RouterFails(place)));
                }
            }
            ScenarioStep::RouterFails(place) => {
                self.net.down.insert(place);
                let lasts = Duration::from_secs(self.rng.random_range(ROUTER_DOWN));
                self.at(lasts, SimEvent::Script(ScenarioStep::RouterRecovers(place)));
            }
            ScenarioStep::RouterRecovers(place) => {
                self.net.down.remove(&place);
                self.watch.back.insert(place, self.now);
                // The daemon's session is gone with the router, and it opens another.
                if self.nodes[place].up {
                    let now = self.clock(place);
                    self.nodes[place].mesh.handle_control_session(now);
                    self.settle(place);
                }
                let after = Duration::from_secs(self.rng.random_range(0..12_000));
                self.at(after, SimEvent::Script(ScenarioStep::RouterFails(place)));
            }
            ScenarioStep::FounderGoes => self.nodes[0].up = false,
            ScenarioStep::Turn => {
                let count = self.options.liars.unwrap_or_else(|| 20.min(self.nodes.len() / 5));
                self.liars = self.some(count).into_iter().collect();
                self.turn()?;
                self.at(LIE, SimEvent::Script(ScenarioStep::Lie));
            }
            ScenarioStep::Lie => {
                self.lie()?;
                self.at(LIE, SimEvent::Script(ScenarioStep::Lie));
            }
        }
        Ok(())
    }

    /// The founder revokes one.
    fn revoke(&mut self, what: &'static str, place: usize) {
        let id = self.nodes[place].id;
        self.nodes[0].mesh.revoke(1, &id.to_string());
        self.out.borrow_mut().insert(id);
        self.settle(0);
        self.expect(what, self.others(place), move |_, other, _| other.mesh.record_of(&id).is_none());
    }

    /// All are to agree who has addresses that were delegated twice.
    pub(super) fn expect_holders(&mut self) {
        let ids = |pair: &(usize, usize)| (self.nodes[pair.0].id, self.nodes[pair.1].id);
        let rivals: Vec<(NodeId, NodeId)> = self.lies.rivals.iter().map(ids).collect();
        let late: Vec<usize> = self.lies.rivals.iter().map(|(late, _)| *late).collect();
        let mut others = self.honest();
        others.retain(|place| !late.contains(place));
        self.expect("holders of addresses", others, move |_, node, _| {
            rivals.iter().all(|(late, early)| {
                let knows = node.id == *early || node.mesh.record_of(early).is_some();
                knows && node.mesh.record_of(late).is_none()
            })
        });
        self.expect("lost addresses", late, |_, node, now| {
            node.mesh.network_status(now).is_some_and(|network| network.displaced_by.is_some())
        });
    }

    /// The halves can reach each other again. They agree when each knows the statements that were made until then, and
    /// holds nobody to be out of reach that is not.
    fn heal(&mut self) {
        self.net.island.clear();
        let mut sequences: Vec<(NodeId, u64)> = self.ledger.sequences().collect();
        sequences.sort_unstable();
        let there: HashMap<NodeId, bool> =
            self.nodes.iter().map(|node| (node.id, node.up && node.mesh.network().is_some())).collect();
        let everybody = self.honest();
        // Words do not go back, so nobody is asked for the same twice.
        let mut known: HashMap<usize, usize> = HashMap::new();
        self.expect("agreement after the partition", everybody, move |place, node, now| {
            let known = known.entry(place).or_default();
            while let Some((id, sequence)) = sequences.get(*known)
                && (*id == node.id
                    || node.mesh.known(id).is_some_and(|entry| entry.record.max(entry.liveness) >= *sequence))
            {
                *known += 1;
            }
            let wrong = |id: &NodeId| there.get(id).copied().unwrap_or(false);
            *known == sequences.len() && !node.mesh.unreachable(now).iter().any(wrong)
        });
    }

    /// So many join at once, by invites of members.
    fn join(&mut self, count: usize) -> Result<(), Failure> {
        let subnet = self.nodes[0].settings.subnet;
        let everybody = self.honest();
        let can_invite = |place: &usize| *place != 0 && !self.net.down.contains(place);
        let inviters: Vec<usize> = everybody.iter().copied().filter(can_invite).take(30).collect();
        let mut joiners = Vec::new();
        for number in 0..count {
            let inviter = inviters[number % inviters.len()];
            self.answers.clear();
            let now = self.clock(inviter);
            self.nodes[inviter].mesh.create_invite(1, 3600, Some(1), None, now);
            // keyd's answer is taken at once: what is measured is the mesh.
            let turn = self.nodes[inviter].mesh.poll_turn();
            for action in turn.actions {
                if let Action::Ask(ticket, request) = action {
                    let reply = self.sign(inviter, *request);
                    self.nodes[inviter].mesh.handle_keyd_reply(ticket, reply, now);
                }
            }
            self.settle(inviter);
            let Some(Ok(meshd::Reply::Invite(invite))) = self.answers.pop() else {
                return Err(Failure::new("a member makes no invite"));
            };
            let code = invite.invite.expose().to_owned();
            self.lies.codes.push((inviter, code.clone()));
            let fresh = signer(&mut self.rng);
            let state = State::new(fresh.keys().node());
            let joiner = self.add(fresh, state, subnet)?;
            let now = self.clock(joiner);
            self.nodes[joiner].mesh.join(1, &code, now);
            self.settle(joiner);
            joiners.push(joiner);
            if number % 10 == 9 {
                self.at(2 * MINUTE, SimEvent::Script(ScenarioStep::Rival { code }));
            }
        }
        let ids: Vec<NodeId> = joiners.iter().map(|joiner| self.nodes[*joiner].id).collect();
        let what = if count == 1 { "join" } else { "many joins" };
        let mut known: HashMap<usize, usize> = HashMap::new();
        self.expect(what, everybody.clone(), move |place, node, _| {
            let known = known.entry(place).or_default();
            while ids.get(*known).is_some_and(|id| node.mesh.known(id).is_some()) {
                *known += 1;
            }
            *known == ids.len()
        });
        let members: Vec<NodeId> = everybody.iter().map(|place| self.nodes[*place].id).collect();
        let out = Rc::clone(&self.out);
        let mut known: HashMap<usize, usize> = HashMap::new();
        self.expect(NEWCOMER, joiners, move |place, node, _| {
            let known = known.entry(place).or_default();
            while members
                .get(*known)
                .is_some_and(|id| node.mesh.known(id).is_some() || out.borrow().contains(id))
            {
                *known += 1;
            }
            *known == members.len()
        });
        Ok(())
    }
}
