//! Finding out that a session is of no use although it is open, and what is done about it.
//!
//! A router may have lost its tunnels, hold on to an end-to-end session that the other side cannot read, or have published
//! a destination's lease set where nobody finds it. It says nothing, and what is sent is lost for minutes or for good.
//!
//! A session is up as long as it carries traffic. Where an answer is due and nothing is heard, the session is tested: by a
//! datagram to itself, which shows whether the bridge carries any, then by questions to members, which are repeated until
//! something is heard. After that it is replaced; the one before stays until the new one is there, and is at work again
//! as soon as something is heard through it. A replacement that is as silent is replaced too, ever more rarely.
//!
//! What a replacement is, the driver knows: for data, a session under another destination; for control, one under a
//! fallback destination, since invites name the control destination, after which the control session is opened anew. A new
//! destination is what helps on every router where another router goes on with a dead end-to-end session.

use std::collections::VecDeque;
use std::time::Duration;

use i2plan_ipc::api::meshd::SessionHealth as Health;
use i2plan_ipc::rate::{Bucket, Quota};

/// How long the datagram to itself may take.
const SELF_TEST: Duration = Duration::from_secs(4);

/// First interval between questions to members; each further is half as long again.
const FIRST_QUESTION: Duration = Duration::from_secs(1);

/// Longest interval between questions, while nothing is heard: with it, a path that works again is noticed.
const LAST_QUESTION: Duration = Duration::from_secs(5);

/// Most that is waited before a session that was replaced is replaced again.
const LAST_PATIENCE: Duration = Duration::from_secs(600);

/// How often a session is replaced: members that fall silent, and speak as soon as there is another session, must not have
/// it replaced all the time.
pub(super) const REPLACEMENTS: Quota = Quota::every(Duration::from_secs(150), 6);

/// How long a session may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first thing that calls for an answer to the first test.
    pub(super) quiet: Duration,
    /// The same before anything was heard through the session, or where an answer is due at once.
    pub(super) fresh: Duration,
    /// From the first question to a member to the replacement, the first time; each further time twice as long.
    pub(super) questions: Duration,
}

impl Patience {
    /// Up to half as long again: two nodes on one router that lose their sessions together do not replace them together.
    /// `random` is from 0 to 1.
    pub(super) fn jittered(self, random: f64) -> Self {
        Self { questions: self.questions.mul_f64(1.0 + random / 2.0), ..self }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthAction {
    /// Send a datagram to the session's own destination.
    TestItself,
    /// Ask members for a sign of life.
    TestMembers,
    /// Have another session opened in the place of this one.
    Replace,
    /// Another session is not needed any more, if it is not there yet.
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Listening,
    /// A datagram to itself is under way.
    TestingItself {
        until: Duration,
    },
    /// Members are asked.
    TestingMembers {
        until: Duration,
        next: Duration,
        interval: Duration,
    },
    /// Another session is wanted; members are asked on.
    Replacing {
        next: Duration,
        interval: Duration,
    },
}

/// Decides when a session is tested and replaced. Time is the monotonic clock, which stands still while a Linux host sleeps.
#[derive(Debug)]
pub(super) struct SessionHealth {
    patience: Patience,
    questions: Duration,
    up: bool,
    /// How many sessions were opened.
    opened: u64,
    /// A datagram to itself has come back through this session: that none does means something.
    echoes: bool,
    heard: Option<Duration>,
    /// Answers are due at once.
    urgent: bool,
    /// The first thing that was sent since something was heard, and calls for an answer.
    unanswered: Option<Duration>,
    stage: Stage,
    replacements: Bucket,
    actions: VecDeque<HealthAction>,
}

impl SessionHealth {
    /// For a session that is not open yet.
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            questions: patience.questions,
            up: false,
            opened: 0,
            echoes: false,
            heard: None,
            urgent: true,
            unanswered: None,
            stage: Stage::Listening,
            replacements: Bucket::default(),
            actions: VecDeque::new(),
        }
    }

    /// A session is open, the first one or another. It is tested, to know later what it means if that fails.
    pub(super) fn handle_up(&mut self) {
        (self.up, self.echoes, self.unanswered, self.stage) = (true, false, None, Stage::Listening);
        self.urgent = true;
        self.opened += 1;
        self.actions.push_back(HealthAction::TestItself);
    }

    /// Which of the sessions that were opened there is, if there is one.
    pub(super) fn opened(&self) -> Option<u64> {
        self.up.then_some(self.opened)
    }

    /// There is no session.
    pub(super) fn handle_down(&mut self) {
        (self.up, self.unanswered, self.stage) = (false, None, Stage::Listening);
        self.actions.clear();
    }

    /// Something was heard through the session at this time.
    pub(super) fn handle_heard(&mut self, at: Duration) {
        if self.heard.is_some_and(|heard| at <= heard) {
            return;
        }
        self.heard = Some(at);
        self.urgent = false;
        // What was sent after it is still to be answered.
        self.unanswered = self.unanswered.filter(|sent| *sent > at);
        self.questions = self.patience.questions;
        self.listen();
    }

    /// Something was sent at this time to one who is there and should answer.
    pub(super) fn handle_sent(&mut self, at: Duration) {
        if self.up && self.heard.is_none_or(|heard| at > heard) {
            self.unanswered.get_or_insert(at);
        }
    }

    /// What was sent last is to be answered at once.
    pub(super) fn handle_urgent(&mut self) {
        self.urgent = true;
    }

    /// There is nobody who should speak.
    pub(super) fn handle_nobody_expected(&mut self) {
        self.unanswered = None;
        self.listen();
    }

    fn listen(&mut self) {
        if let Stage::Replacing { .. } = self.stage {
            self.actions.push_back(HealthAction::Keep);
        }
        self.stage = Stage::Listening;
    }

    /// The host was asleep, or this process stopped: what was due in that time says nothing, and what there is now is
    /// found out without waiting.
    pub(super) fn handle_resumed(&mut self, now: Duration) {
        self.urgent = true;
        if self.up && self.unanswered.take().is_some() {
            self.questions = self.patience.questions;
            self.unanswered = Some(now);
            self.begin_test(now);
        }
    }

    /// The datagram to itself has come, or has not.
    pub(super) fn handle_test_result(&mut self, came: bool, now: Duration) {
        self.echoes |= came;
        if let Stage::TestingItself { .. } = self.stage {
            if came || !self.echoes {
                self.ask_members(now);
            } else {
                self.replace(now);
            }
        }
    }

    /// When [`SessionHealth::handle_timeout`] is to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        match self.stage {
            Stage::Listening => {
                let quiet = if self.urgent { self.patience.fresh } else { self.patience.quiet };
                self.unanswered.filter(|_| self.up).map(|sent| sent + quiet)
            }
            Stage::TestingItself { until } => Some(until),
            Stage::TestingMembers { until, next, .. } => Some(until.min(next)),
            Stage::Replacing { next, .. } => Some(next),
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        match self.stage {
            Stage::Listening => self.begin_test(now),
            Stage::TestingItself { .. } => self.handle_test_result(false, now),
            Stage::TestingMembers { until, .. } if now >= until => self.replace(now),
            Stage::TestingMembers { until, interval, .. } => {
                let (next, interval) = self.ask_again(interval, now);
                self.stage = Stage::TestingMembers { until, next, interval };
            }
            Stage::Replacing { interval, .. } => {
                let (next, interval) = self.ask_again(interval, now);
                self.stage = Stage::Replacing { next, interval };
            }
        }
    }

    /// The next thing that is to be done.
    pub(super) fn poll_action(&mut self) -> Option<HealthAction> {
        self.actions.pop_front()
    }

    /// How the session is, and since when an answer is due that has not come.
    pub(super) fn health(&self) -> (Health, Option<Duration>) {
        match self.stage {
            Stage::Listening => (Health::Fine, None),
            Stage::TestingItself { .. } | Stage::TestingMembers { .. } => (Health::Testing, self.unanswered),
            Stage::Replacing { .. } => (Health::Replacing, self.unanswered),
        }
    }

    fn begin_test(&mut self, now: Duration) {
        self.actions.push_back(HealthAction::TestItself);
        self.stage = Stage::TestingItself { until: now + SELF_TEST };
    }

    fn ask_members(&mut self, now: Duration) {
        self.actions.push_back(HealthAction::TestMembers);
        let (next, interval) = (now + FIRST_QUESTION, FIRST_QUESTION);
        self.stage = Stage::TestingMembers { until: now + self.questions, next, interval };
    }

    fn ask_again(&mut self, interval: Duration, now: Duration) -> (Duration, Duration) {
        self.actions.push_back(HealthAction::TestMembers);
        let interval = (interval * 3 / 2).min(LAST_QUESTION);
        (now + interval, interval)
    }

    fn replace(&mut self, now: Duration) {
        if !self.replacements.try_take(REPLACEMENTS, now) {
            return self.ask_members(now);
        }
        self.questions = (self.questions * 2).min(LAST_PATIENCE);
        self.actions.push_back(HealthAction::Replace);
        self.stage = Stage::Replacing { next: now + FIRST_QUESTION, interval: FIRST_QUESTION };
    }
}

/// How long members may be heard that answer nothing, before what is heard counts for nothing: by then each question of
/// [`OneWayTest`] would have to be lost.
const ONE_WAY: Duration = Duration::from_secs(12);

/// How long after the first question without an answer there are more, and how long between those.
const ASK_ON: Duration = Duration::from_secs(4);
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Finds out that members are heard and do not hear this node: they speak to it, but answer none of its questions. Time is
/// that of [`SessionHealth`].
#[derive(Debug, Default)]
pub(super) struct OneWayTest {
    /// When the first question was asked that has no answer.
    asked: Option<Duration>,
    next: Duration,
}

impl OneWayTest {
    /// A member that should answer was asked for that.
    pub(super) fn handle_asked(&mut self, now: Duration) {
        if self.asked.is_none() {
            (self.asked, self.next) = (Some(now), now + ASK_ON);
        }
    }

    /// A member answered then.
    pub(super) fn handle_answered(&mut self, at: Duration) {
        self.asked = self.asked.filter(|asked| *asked > at);
    }

    /// What was asked before says nothing: there was no session, nobody to answer, or the host was asleep.
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }

    /// Whether members are to be asked again. To be asked every few seconds.
    pub(super) fn poll_question(&mut self, now: Duration) -> bool {
        // After that the session is tested as one that is silent, and the last of these is what it was to carry.
        let is_due = self.asked.is_some_and(|asked| now < asked + ONE_WAY + ASK_ON) && now >= self.next;
        if is_due {
            self.next = now + ASK_EVERY;
        }
        is_due
    }

    /// Whether nobody seems to hear this node.
    pub(super) fn is_one_way(&self, now: Duration) -> bool {
        self.asked.is_some_and(|asked| now >= asked + ONE_WAY)
    }
}

/// How long a control session of a node without reachable members may be silent before it is tested.
const IDLE: Duration = Duration::from_secs(60);

/// The same when it has just been opened: i2pd stops a destination a few seconds after a session of it was closed, also
/// under another that is open by then.
const FIRST_IDLE: Duration = Duration::from_secs(8);

/// After this many datagrams to itself in a row that have not come back, a session is opened again.
const LOST: u32 = 3;

/// What is to be done about a control session of a node without reachable members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdleAction {
    /// Send a datagram to the session's own destination.
    TestItself,
    /// Close the session and open it anew.
    Reopen,
}

/// Finds out that the control session carries nothing although no member is reachable who would show it. Holders of this
/// node's invites, and members that come back, reach it in no other way.
#[derive(Debug, Default)]
pub(super) struct IdleTest {
    /// When it is tested next; none without a session.
    next: Option<Duration>,
    /// A datagram to itself has come back through this session.
    echoes: bool,
    /// The first test has been passed.
    settled: bool,
    /// Datagrams to itself that have not come back.
    lost: u32,
}

impl IdleTest {
    /// A session is open, the first one or another.
    pub(super) fn handle_up(&mut self, now: Duration) {
        *self = Self { next: Some(now + FIRST_IDLE), ..Self::default() };
    }

    /// There is no session.
    pub(super) fn handle_down(&mut self) {
        *self = Self::default();
    }

    /// A datagram of another has come through the session.
    pub(super) fn handle_heard(&mut self, now: Duration) {
        // The first test is not put off: this may have come just before the destination was stopped.
        if self.settled {
            (self.next, self.lost) = (self.next.map(|_| now + IDLE), 0);
        }
    }

    /// A datagram to itself has come back.
    pub(super) fn handle_echo(&mut self, now: Duration) {
        self.echoes = true;
        // One that was sent when the session was opened is no test.
        self.settled |= self.lost > 0;
        self.handle_heard(now);
    }

    /// What is due. To be asked every few seconds.
    pub(super) fn poll_action(&mut self, now: Duration) -> Option<IdleAction> {
        self.next.filter(|next| now >= *next)?;
        if self.echoes && self.lost >= LOST {
            *self = Self::default();
            return Some(IdleAction::Reopen);
        }
        self.lost = (self.lost + 1).min(LOST);
        self.next = Some(now + if self.echoes { SELF_TEST } else { IDLE });
        Some(IdleAction::TestItself)
    }
}

#[cfg(test)]
mod tests {
    use HealthAction::{Keep, Replace, TestItself, TestMembers};

    use super::*;

    const PATIENCE: Patience = Patience { quiet: seconds(10), fresh: seconds(10), questions: seconds(10) };

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A session and its surroundings, in virtual time.
    struct World {
        health: SessionHealth,
        now: u64,
        /// Datagrams to itself come back.
        echoes: bool,
        /// What was done, with the second.
        done: Vec<(u64, HealthAction)>,
    }

    impl World {
        fn new() -> Self {
            let mut health = SessionHealth::new(PATIENCE);
            health.handle_up();
            let mut world = Self { health, now: 0, echoes: true, done: Vec::new() };
            world.run(1, |_| None);
            world
        }

        /// Lets seconds pass in which members are spoken to, and speak as `heard` says.
        fn run(&mut self, count: u64, heard: impl Fn(u64) -> Option<u64>) {
            for _ in 0..count {
                let now = seconds(self.now);
                self.health.handle_sent(now);
                if let Some(at) = heard(self.now) {
                    self.health.handle_heard(seconds(at));
                }
                self.health.handle_timeout(now);
                while let Some(action) = self.health.poll_action() {
                    self.done.push((self.now, action));
                    match action {
                        TestItself if self.echoes => self.health.handle_test_result(true, now),
                        // As another session is there in the next second.
                        Replace => {
                            self.health.handle_up();
                            self.health.poll_action();
                        }
                        TestItself | TestMembers | Keep => {}
                    }
                }
                self.now += 1;
            }
        }

        fn replaced(&self) -> Vec<u64> {
            self.done.iter().filter(|(_, action)| *action == Replace).map(|(at, _)| *at).collect()
        }
    }

    #[test]
    fn each_session_that_is_opened_is_told_from_the_one_before() {
        let mut world = World::new();
        let first = world.health.opened();
        assert!(first.is_some());
        world.health.handle_heard(seconds(1));
        assert_eq!(world.health.opened(), first, "it is the same");
        world.run(600, |_| None);
        assert!(!world.replaced().is_empty() && world.health.opened() > first);
        world.health.handle_down();
        assert_eq!(world.health.opened(), None);
    }

    #[test]
    fn a_session_that_carries_traffic_is_left_alone() {
        let mut world = World::new();
        world.run(3600, |now| (now % 9 == 0).then_some(now));
        assert_eq!(world.done, [(0, TestItself)]);
        assert_eq!(world.health.health(), (Health::Fine, None));
    }

    #[test]
    fn where_no_answer_is_due_nothing_is_tested() {
        let mut health = SessionHealth::new(PATIENCE);
        health.handle_up();
        health.handle_sent(seconds(1));
        health.handle_nobody_expected();
        assert_eq!(health.poll_timeout(), None);
        assert_eq!(health.poll_action(), Some(TestItself));
        health.handle_timeout(seconds(1000));
        assert_eq!(health.poll_action(), None);
    }

    #[test]
    fn a_session_that_worked_and_falls_silent_is_tested_and_replaced() {
        let mut world = World::new();
        world.run(1000, Some);
        world.done.clear();
        world.run(25, |_| None);
        // The last was heard at 1000, and the first of what is to be answered went at 1001.
        let expected = [
            (1011, TestItself),
            (1011, TestMembers),
            (1012, TestMembers),
            (1014, TestMembers),
            (1017, TestMembers),
            (1021, Replace),
        ];
        assert_eq!(world.done, expected);
    }

    #[test]
    fn before_anything_was_heard_and_where_answers_are_due_at_once_it_is_tested_sooner() {
        let mut health = SessionHealth::new(Patience { fresh: seconds(3), ..PATIENCE });
        health.handle_up();
        health.handle_sent(seconds(5));
        assert_eq!(health.poll_timeout(), Some(seconds(8)));
        health.handle_heard(seconds(6));
        health.handle_sent(seconds(7));
        assert_eq!(health.poll_timeout(), Some(seconds(17)));
        health.handle_urgent();
        assert_eq!(health.poll_timeout(), Some(seconds(10)));
    }

    #[test]
    fn one_that_does_not_reach_itself_is_replaced_sooner() {
        let mut world = World::new();
        world.run(100, Some);
        world.echoes = false;
        world.run(30, |_| None);
        assert_eq!(world.replaced(), [115]);
        // Where that never worked it says nothing.
        let mut world = World::new();
        world.health = SessionHealth::new(PATIENCE);
        world.health.handle_up();
        world.echoes = false;
        world.run(100, Some);
        world.run(30, |_| None);
        assert_eq!(world.replaced(), [125]);
    }

    #[test]
    fn it_is_replaced_ever_more_rarely() {
        let mut world = World::new();
        world.run(3600, |_| None);
        let replaced = world.replaced();
        let between: Vec<u64> = replaced.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(replaced[0], 20);
        assert_eq!(between, [31, 51, 91, 171, 331, 611, 611, 611, 611]);
        // And soon again after it has worked.
        let heard = world.now;
        world.run(1, Some);
        world.run(30, |_| None);
        assert_eq!(world.replaced().last(), Some(&(heard + 21)));
    }

    /// They speak as soon as there is another session, and are silent again.
    #[test]
    fn members_that_are_silent_at_will_have_few_sessions_replaced() {
        for echoes in [true, false] {
            let mut world = World::new();
            let mut replaced = 0;
            while world.now < 3600 {
                world.echoes = true;
                world.run(1, |_| None);
                let count = world.replaced().len();
                if count > replaced {
                    replaced = count;
                    world.run(1, Some);
                }
                world.echoes = echoes;
            }
            assert!((20..=30).contains(&replaced), "{replaced} in an hour");
            // A fault some time after that is found as soon as before.
            world.run(900, Some);
            let heard = world.now;
            world.echoes = true;
            world.run(30, |_| None);
            assert_eq!(world.replaced().last(), Some(&(heard + 20)));
        }
    }

    #[test]
    fn while_nothing_is_heard_members_are_asked_every_few_seconds() {
        let mut world = World::new();
        world.run(3600, |_| None);
        let asked: Vec<u64> = world
            .done
            .iter()
            .filter(|(at, action)| *at > 40 && *action == TestMembers)
            .map(|(at, _)| *at)
            .collect();
        // But for the time after a replacement, which is asked what a first one is.
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= 9
            || world.replaced().iter().any(|at| (pair[0]..=pair[1]).contains(at))));
    }

    #[test]
    fn a_session_that_is_heard_again_stays() {
        let mut health = SessionHealth::new(PATIENCE);
        health.handle_up();
        health.handle_sent(seconds(0));
        for now in 0..60 {
            health.handle_timeout(seconds(now));
        }
        assert_eq!(health.health(), (Health::Replacing, Some(seconds(0))));
        while health.poll_action().is_some() {}
        // As when a router was stopped and goes on: the replacement is not there yet.
        health.handle_heard(seconds(60));
        assert_eq!(health.poll_action(), Some(Keep));
        assert_eq!(health.health(), (Health::Fine, None));
        assert_eq!(health.poll_timeout(), None);
    }

    #[test]
    fn after_a_sleep_it_is_tested_without_waiting() {
        let mut health = SessionHealth::new(PATIENCE);
        health.handle_up();
        health.poll_action();
        health.handle_heard(seconds(9));
        health.handle_sent(seconds(10));
        health.handle_resumed(seconds(3610));
        assert_eq!(health.poll_action(), Some(TestItself));
        health.handle_test_result(true, seconds(3611));
        assert_eq!(health.poll_action(), Some(TestMembers));
        // The time asleep is none in which somebody was silent.
        health.handle_timeout(seconds(3611));
        assert_eq!(health.poll_action(), None);
        health.handle_heard(seconds(3612));
        assert_eq!(health.health(), (Health::Fine, None));
    }

    #[test]
    fn what_comes_late_answers_what_was_sent_before_it_alone() {
        let mut health = SessionHealth::new(PATIENCE);
        health.handle_up();
        health.handle_sent(seconds(5));
        health.handle_heard(seconds(3));
        assert_eq!(health.poll_timeout(), Some(seconds(15)));
        health.handle_heard(seconds(6));
        assert_eq!(health.poll_timeout(), None);
        health.handle_down();
        health.handle_sent(seconds(9));
        assert_eq!(health.poll_timeout(), None);
    }

    #[test]
    fn one_that_hears_members_and_gets_no_answer_is_heard_by_nobody() {
        let mut test = OneWayTest::default();
        let mut asked = Vec::new();
        for now in 0..30 {
            // What it asks the members in turn.
            if now == 1 || now == 9 {
                test.handle_asked(seconds(now));
            }
            asked.extend(test.poll_question(seconds(now)).then_some(now));
            assert_eq!(test.is_one_way(seconds(now)), now >= 13);
        }
        assert_eq!(asked, [5, 7, 9, 11, 13, 15]);
        // An answer to what was asked before says nothing of what was asked since.
        test.handle_answered(seconds(0));
        assert!(test.is_one_way(seconds(30)));
        test.handle_answered(seconds(30));
        assert!(!test.is_one_way(seconds(99)) && !test.poll_question(seconds(99)));
        test.handle_asked(seconds(100));
        test.forget();
        assert!(!test.is_one_way(seconds(200)));
    }

    /// What is done about a session that is up at 0 and echoes until some time, with the second, until another.
    fn idle(echoes_until: u64, heard: impl Fn(u64) -> bool, until: u64) -> Vec<(u64, IdleAction)> {
        let mut test = IdleTest::default();
        assert_eq!(test.poll_action(seconds(0)), None);
        test.handle_up(seconds(0));
        test.handle_echo(seconds(0));
        let mut done = Vec::new();
        for now in 0..until {
            if heard(now) {
                test.handle_heard(seconds(now));
            }
            while let Some(action) = test.poll_action(seconds(now)) {
                done.push((now, action));
                if action == IdleAction::TestItself && now < echoes_until {
                    test.handle_echo(seconds(now));
                }
            }
        }
        done
    }

    #[test]
    fn an_idle_session_is_tested_rarely_and_one_that_has_gone_deaf_is_opened_anew() {
        use IdleAction::{Reopen, TestItself};
        assert_eq!(idle(999, |_| false, 130), [(8, TestItself), (68, TestItself), (128, TestItself)]);
        let expected = [(8, TestItself), (68, TestItself), (72, TestItself), (76, TestItself), (80, Reopen)];
        assert_eq!(idle(20, |_| false, 999), expected);
        // One that others speak through is not tested.
        assert_eq!(idle(20, |_| true, 999), [(8, TestItself)]);
        // Nor is one opened anew that has never reached itself.
        let mut test = IdleTest::default();
        test.handle_up(seconds(0));
        assert!((0..999).all(|now| test.poll_action(seconds(now)) != Some(Reopen)));
    }
}
