//! What is news and still to be passed on.
//!
//! News is told to a few members drawn at random, a fixed number of times by each who hears of it. What is small is
//! told in full; a record, which is not, mostly in brief: that it exists, and whoever does not have it asks. So each
//! record crosses the network to each member about once. Whom it missed comes upon it in what members say to each other
//! anyway, where what was news lately goes along for a while, as in the recent update lists of Demers et al. ("Epidemic
//! Algorithms for Replicated Database Maintenance", 1987); and if not there, by comparisons.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::NodeId;
use i2plan_proto::message::Entry;
use rand::seq::SliceRandom as _;
use rand::{Rng, RngExt as _};

use super::budget::{Asker, block};
use super::shares::{AddressInBlock, Clock, Shares, Source};

/// Between two rounds of telling news.
const ROUND: Duration = Duration::from_secs(2);

/// How many members hear of news in each round.
pub(super) const FANOUT: usize = 2;

/// So much news is told at once.
const MAX_TOLD: usize = 128;

/// How far what is told of an address block puts it back behind the others, for each byte.
const PUT_BACK: Duration = Duration::from_millis(20);

/// What one topic takes, bytes, as long as it is not known: an entry, and some.
const TOPIC_LEN: u32 = 100;

/// A block is put back so far at most.
const MAX_PUT_BACK: Duration = Duration::from_secs(300);

/// How far each sign of life puts its address block behind those that have given fewer lately, and how far at most.
const ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// In this time one record or end of a membership of all address blocks together is forgiven, of each block the same
/// part. So however many blocks state much, what they state as quiet blocks is no more in the long run.
const STATEMENT: Duration = Duration::from_secs(10);

/// A block of which no more than this is not forgiven is quiet.
const QUIET: Duration = STATEMENT.saturating_mul(2);

/// More than this is not held against a block.
const MOST_STATED: Duration = STATEMENT.saturating_mul(40);

/// What is long and of a quiet block is told in full so often.
const TIMES_IN_FULL: u8 = 2 * FANOUT as u8;

/// Of more records and ends of memberships than this it is told in brief, as entries, that they exist: one datagram
/// tells of many then, and asks for many. Only one of a quiet block in each datagram is told in full: where some have
/// much to state, nobody has the bytes to answer all questions.
const MUCH: usize = 8;

/// With more topics than this there is much news: they do not fit in one datagram.
const CROWD: usize = 32;

/// A block with no more topics than this has little of it.
const FEW: usize = 2;

/// Within this time a node passes on as news the first member that it has not known of so many address blocks, or of
/// half as many as it knew members before if that is more. One that hears of more is new itself or was away, and
/// everybody else knows them; or members let ever new identities appear in very many blocks. So of more some are drawn,
/// ever fewer: as many again at most on average.
const NEWCOMERS: (Duration, usize) = (Duration::from_secs(600), 32);

/// As many again may be further members of blocks from which one was passed on, and an eighth of these of one block, in
/// which an inviter can let ever new identities appear. However many do so, the first of every other block is news.
const NEWCOMERS_PART: usize = 8;

/// How many changes of one kind are passed on as news of each address block: of records, of liveness, or of
/// memberships.
const CHANGES: Quota = Quota::every(Duration::from_secs(15), 48);

/// How many of one member's own whatever others of its block do.
const OWN_CHANGES: Quota = Quota::every(Duration::from_secs(300), 2);

/// So often on average a change of one kind is passed on of all blocks together, and equally of those with more.
/// Members that lie can change theirs all the time, and others would have no bytes for anything else.
const CHANGE: Duration = Duration::from_secs(3);

/// How many of that may be at once of one member, and of one block.
const AT_ONCE: (u32, u32) = (2, 24);

/// Address blocks whose changes are counted at most, and addresses.
const MAX_SHARES: usize = 16_384;

/// For so long after it was news something goes along with what is said anyway; where there is much news the longer.
const RECENT: (Duration, Duration) = (Duration::from_secs(180), Duration::from_secs(900));

/// So much of it is remembered.
const MAX_RECENT: usize = 512;

/// Members that wait for what they have asked for, at most.
const MAX_WANTS: usize = 1024;

/// Before this a member does not ask again for what has not come; every other time it waits twice as long for the same
/// address block. At 20 % loss every third question or its answer is lost, and where many join at once there are not
/// the bytes for every answer.
const FIRST_TIMEOUT: Duration = Duration::from_secs(8);

/// So often at most it waits longer: up to four minutes. What is asked for may not be there, because somebody lied.
const LONGER: u8 = 5;

/// For one node, at most this many of the address blocks that were asked are remembered.
const MAX_ASKED: usize = 128;

/// Nodes of which something was asked for and has not come, at most. Members can claim entries of nodes that do not
/// exist, so this is shared by the addresses of the members that were asked.
const MAX_OPEN: usize = 4096;

/// Between two searches for questions whose time is over.
const PURGE: Duration = Duration::from_secs(1);

/// What is news; first of all what bears on who is a member, of which nobody can make others say much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// The end of a membership, by its id.
    Ending(NodeId),
    /// This node's record.
    Record(NodeId),
    /// This node's liveness message.
    Liveness(NodeId),
    /// That the first was not reached by the second.
    Suspicion(NodeId, NodeId),
}

impl Topic {
    /// Whether it takes many times the bytes of an entry.
    fn is_long(self) -> bool {
        matches!(self, Self::Record(_) | Self::Ending(_))
    }

    /// Whether it is left to comparisons where there is too much news.
    fn can_wait(self) -> bool {
        matches!(self, Self::Record(_) | Self::Suspicion(..))
    }
}

/// News whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) topic: Topic,
    /// Only that it exists is to be told, unless the network is small.
    pub(super) in_brief: bool,
    /// It bears on who is a member, and is of a quiet address block.
    pub(super) is_quiet: bool,
}

#[derive(Debug, Clone, Copy)]
struct Rumor {
    /// The address block of the member that has stated it; none if it is this node.
    block: Option<u32>,
    /// How often it has been told.
    told: u8,
}

/// What is told a while longer when there is an occasion.
#[derive(Debug, Clone, Copy)]
struct Recent {
    topic: Topic,
    block: Option<u32>,
    since: Duration,
}

impl Recent {
    fn is_liveness_message(&self) -> bool {
        matches!(self.topic, Topic::Liveness(_))
    }
}

/// What was asked for and has not come.
#[derive(Debug)]
struct Open {
    since: Duration,
    /// When the last wait for an answer ends.
    until: Duration,
    /// The member that was asked last.
    of: AddressInBlock,
    /// How many address blocks were asked.
    blocks: u32,
    asked: Vec<AskedBlock>,
}

/// An address block of which members were asked for something.
#[derive(Debug)]
struct AskedBlock {
    block: u32,
    times: u8,
    /// Before this no member of the block is asked again.
    until: Duration,
}

impl Open {
    fn first(of: AddressInBlock, now: Duration) -> Self {
        let mut open = Self { since: now, until: now, of, blocks: 0, asked: Vec::new() };
        open.ask(of, now);
        open
    }

    /// Whether to ask a member now. Then it is taken to be asked.
    ///
    /// Who has been asked may have told a lie and may tell it ever again: only members of its own block wait the longer
    /// for it. The others are asked one after the other, ever faster.
    fn ask(&mut self, of: AddressInBlock, now: Duration) -> bool {
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.block == of.block) {
            if asked.until > now {
                return false;
            }
            asked.times = asked.times.saturating_add(1);
            asked.until = now + FIRST_TIMEOUT * 2u32.pow((asked.times / 2).min(LONGER).into());
            self.until = self.until.max(asked.until);
            return true;
        }
        let waited = now.saturating_sub(self.since).as_secs() / FIRST_TIMEOUT.as_secs();
        if u64::from(self.blocks) >= (waited + 1) * (waited + 2) / 2 {
            return false;
        }
        self.blocks += 1;
        if self.asked.len() >= MAX_ASKED {
            let first = self.asked.iter().enumerate().min_by_key(|(_, asked)| asked.until);
            if let Some((first, _)) = first {
                self.asked.swap_remove(first);
            }
        }
        self.asked.push(AskedBlock { block: of.block, times: 0, until: now + FIRST_TIMEOUT });
        self.until = self.until.max(now + FIRST_TIMEOUT);
        true
    }
}

/// The questions that are not answered yet, by node.
#[derive(Debug, Default)]
struct Questions {
    open: HashMap<NodeId, Open>,
    /// How many there are of each block and of each address in it.
    counts: HashMap<u32, (usize, HashMap<u32, usize>)>,
    purge_at: Duration,
}

impl Questions {
    /// Notes a question to a member, in place of one about the same node. False if there is no room for it.
    fn put(&mut self, node: NodeId, open: Open, now: Duration) -> bool {
        self.remove(&node);
        if self.open.len() >= MAX_OPEN && now >= self.purge_at {
            self.purge_at = now + PURGE;
            let over = self.open.iter().filter(|(_, open)| open.until <= now).map(|(node, _)| *node);
            for node in over.collect::<Vec<_>>() {
                self.remove(&node);
            }
        }
        if self.open.len() >= MAX_OPEN {
            let Some(victim) = self.victim(open.of) else { return false };
            self.remove(&victim);
        }
        let (block, addresses) = self.counts.entry(open.of.block).or_default();
        *block += 1;
        *addresses.entry(open.of.address).or_default() += 1;
        self.open.insert(node, open);
        true
    }

    /// The question that gives way to one to this member: of the block with the most, if that has more than this one's
    /// would have then; else of the address with the most in this one's block, by the same rule.
    fn victim(&self, newcomer: AddressInBlock) -> Option<NodeId> {
        let (mine, own) = match self.counts.get(&newcomer.block) {
            Some((block, addresses)) => (*block, addresses.get(&newcomer.address).copied().unwrap_or(0)),
            None => (0, 0),
        };
        let (most, (count, _)) = self.counts.iter().max_by_key(|(block, (count, _))| (*count, **block))?;
        let block = if *count > mine + 1 { *most } else { newcomer.block };
        let (_, addresses) = self.counts.get(&block)?;
        let (address, count) = addresses.iter().max_by_key(|(address, count)| (**count, **address))?;
        if block == newcomer.block && *count <= own + 1 {
            return None;
        }
        let of = AddressInBlock { block, address: *address };
        // The one that would stay the longest: a lie is never answered.
        let questions = self.open.iter().filter(|(_, open)| open.of == of);
        questions.max_by_key(|(node, open)| (open.until, **node)).map(|(node, _)| *node)
    }

    fn remove(&mut self, node: &NodeId) -> Option<Open> {
        let open = self.open.remove(node)?;
        let of = open.of;
        if let Some((block, addresses)) = self.counts.get_mut(&of.block) {
            *block -= 1;
            if let Some(count) = addresses.get_mut(&of.address) {
                *count -= 1;
            }
            addresses.retain(|_, count| *count > 0);
            if addresses.is_empty() {
                self.counts.remove(&of.block);
            }
        }
        Some(open)
    }
}

/// How many members of which it had not known a node has heard of since some time.
#[derive(Debug, Default)]
struct Newcomers {
    /// None before the first. A node that has been started again knows the others from then on.
    since: Option<Duration>,
    /// How many it knew then.
    before: usize,
    /// How many further members of blocks that had one already were passed on.
    further: usize,
    /// How many it has heard of in each address block.
    by_block: HashMap<u32, usize>,
}

/// What members have asked for, each in turn.
#[derive(Debug, Default)]
struct Wants {
    askers: VecDeque<(Destination, Asker, VecDeque<Entry>)>,
    count: usize,
}

impl Wants {
    /// Where there is no room, whoever has asked for most loses the last of it, in the address block that has.
    fn add(&mut self, to: Destination, asker: Asker, entry: Entry) {
        match self.askers.iter_mut().find(|(waiting, ..)| *waiting == to) {
            Some((.., entries)) if entries.contains(&entry) => return,
            Some((.., entries)) => entries.push_back(entry),
            None => self.askers.push_back((to, asker, VecDeque::from([entry]))),
        }
        self.count += 1;
        if self.count <= MAX_WANTS {
            return;
        }
        let mut blocks: BTreeMap<Option<u32>, usize> = BTreeMap::new();
        for (_, asker, entries) in &self.askers {
            *blocks.entry(block(asker)).or_default() += entries.len();
        }
        let fullest = blocks.into_iter().max_by_key(|(_, count)| *count).map(|(block, _)| block);
        let there = self.askers.iter_mut().filter(|(_, asker, _)| Some(block(asker)) == fullest);
        if let Some((.., entries)) = there.max_by_key(|(.., entries)| entries.len()) {
            entries.pop_back();
            self.count -= 1;
            self.askers.retain(|(.., entries)| !entries.is_empty());
        }
    }

    /// Lets those with the least of this come first, and those with as much in turn.
    fn sort(&mut self, mut by: impl FnMut(&Asker) -> Duration) {
        self.askers.make_contiguous().sort_by_cached_key(|(_, asker, _)| by(asker));
    }

    fn next(&mut self) -> Option<(Destination, Asker, VecDeque<Entry>)> {
        let next = self.askers.pop_front();
        self.count -= next.as_ref().map_or(0, |(.., entries)| entries.len());
        next
    }

    fn put_back(&mut self, to: Destination, asker: Asker, entries: VecDeque<Entry>) {
        if !entries.is_empty() {
            self.count += entries.len();
            self.askers.push_back((to, asker, entries));
        }
    }
}

/// How much address blocks have stated lately.
#[derive(Debug)]
struct Statements(Clock);

impl Statements {
    fn new() -> Self {
        Self(Clock::new(Duration::ZERO))
    }

    fn advance(&mut self, now: Duration) {
        self.0.advance(now, |_| ());
    }

    /// A block has stated something: those that have stated less come first.
    fn count(&mut self, block: u32, now: Duration) {
        self.advance(now);
        let held = self.0.backlog(block);
        if held < MOST_STATED && (self.0.users() < MAX_SHARES || !held.is_zero()) {
            self.0.charge(block, STATEMENT);
        }
    }

    /// How far a block comes behind others: by what is not forgiven yet of what it has stated. This node and the
    /// founder come first, and all quiet blocks come equally early.
    fn held(&self, block: Option<u32>) -> Duration {
        block.map_or(Duration::ZERO, |block| self.0.backlog(block).max(QUIET))
    }
}

/// The turns of address blocks: by their signs of life, or by the bytes that are told of them.
#[derive(Debug, Default)]
struct Turns(HashMap<Option<u32>, Duration>);

impl Turns {
    /// When it is a block's turn, by the monotonic clock.
    fn next(&self, block: Option<u32>, now: Duration) -> Duration {
        self.0.get(&block).copied().unwrap_or_default().max(now)
    }

    /// So many bytes have been told of a block: others come first now.
    fn told(&mut self, block: Option<u32>, len: usize, now: Duration) {
        let cost = PUT_BACK * u32::try_from(len).unwrap_or(u32::MAX);
        self.put_back(block, (cost, MAX_PUT_BACK), now);
    }

    /// A member of a block has given a sign of life: those that have given fewer come first.
    fn count_alive(&mut self, block: u32, now: Duration) {
        self.put_back(Some(block), ALIVE, now);
    }

    fn put_back(&mut self, block: Option<u32>, (by, at_most): (Duration, Duration), now: Duration) {
        if self.0.len() >= MAX_SHARES {
            self.0.retain(|_, until| now < *until);
        }
        if self.0.len() < MAX_SHARES {
            let until = self.0.entry(block).or_default();
            *until = ((*until).max(now) + by).min(now + at_most);
        }
    }
}

/// News to be told, wishes to be granted, questions that are open.
#[derive(Debug)]
pub(super) struct Rumors {
    queue: BTreeMap<Topic, Rumor>,
    /// By the records and ends of memberships that members have stated, and by their signs of life. Those of the
    /// founder and of this node come first.
    statements: Statements,
    liveness: Turns,
    /// By what is told.
    told: Turns,
    /// By what is sent to those who ask.
    granted: Turns,
    newcomers: Newcomers,
    /// Changes that are passed on. With false suspicions others can make a member change its liveness; that is not at
    /// the expense of its record.
    records: Changes,
    liveness_messages: Changes,
    endings: Changes,
    /// What was news lately, and when; the oldest first. No suspicions: what is said of a member ends with its next
    /// statement, and most of it soon.
    recent: VecDeque<Recent>,
    next: Duration,
    wants: Wants,
    questions: Questions,
}

impl Rumors {
    pub(super) fn new() -> Self {
        Self {
            queue: BTreeMap::new(),
            statements: Statements::new(),
            liveness: Turns::default(),
            told: Turns::default(),
            granted: Turns::default(),
            newcomers: Newcomers::default(),
            records: Changes::new(),
            liveness_messages: Changes::new(),
            endings: Changes::new(),
            recent: VecDeque::new(),
            next: Duration::ZERO,
            wants: Wants::default(),
            questions: Questions::default(),
        }
    }

    /// Something is news, which a member of this address block has stated, or this node. Of records and suspicions no
    /// more than [`MAX_TOLD`] wait, and the block with the most of them gives way: the rest is left to comparisons and
    /// to others. To a node that was away or is new everything is news, and that does not make it so to anybody else.
    pub(super) fn add(&mut self, topic: Topic, block: Option<u32>, now: Duration) {
        if self.queue.contains_key(&topic) || !topic.can_wait() || self.make_room(block) {
            self.queue.insert(topic, Rumor { block, told: 0 });
        }
        if !matches!(topic, Topic::Suspicion(..)) {
            self.remember(topic, block, now);
        }
    }

    /// Whether there is room for one more topic of a block that can wait.
    fn make_room(&mut self, block: Option<u32>) -> bool {
        if self.queue.len() < MAX_TOLD {
            return true;
        }
        let waiting = || self.queue.iter().filter(|(topic, _)| topic.can_wait());
        let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
        for (_, rumor) in waiting() {
            *counts.entry(rumor.block).or_default() += 1;
        }
        if counts.values().sum::<usize>() < MAX_TOLD {
            return true;
        }
        let own = counts.get(&block).copied().unwrap_or(0);
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let Some((fullest, _)) = most.filter(|(_, count)| *count > own + 1) else { return false };
        let there = waiting().filter(|(_, rumor)| rumor.block == fullest);
        let victim = there.max_by_key(|(topic, rumor)| (rumor.told, **topic)).map(|(topic, _)| *topic);
        victim.is_some_and(|victim| self.queue.remove(&victim).is_some())
    }

    fn remember(&mut self, topic: Topic, block: Option<u32>, now: Duration) {
        self.recent.retain(|other| other.topic != topic && now < other.since + RECENT.1);
        if self.recent.len() >= MAX_RECENT {
            let mut counts: HashMap<Option<u32>, usize> = HashMap::new();
            self.recent.iter().for_each(|other| *counts.entry(other.block).or_default() += 1);
            // Where everybody comes and goes, that must not hide who is a member; and nor must one block.
            let gives_way = |(place, recent): &(usize, &Recent)| {
                (recent.is_liveness_message(), counts.get(&recent.block).copied(), Reverse(*place))
            };
            let victim = self.recent.iter().enumerate().max_by_key(gives_way).map(|(place, _)| place);
            victim.and_then(|place| self.recent.remove(place));
        }
        self.recent.push_back(Recent { topic, block, since: now });
    }

    /// What was news lately, in an order drawn anew each time: by turns what bears on who is a member and signs of
    /// life. Of each what address blocks have stated that have stated little lately comes first, then something of
    /// every other block before more of one.
    pub(super) fn recent(&mut self, now: Duration, rng: &mut impl Rng) -> Vec<Topic> {
        self.advance(now);
        let younger = |age: Duration| self.recent.iter().filter(move |recent| now < recent.since + age);
        let is_crowded = younger(RECENT.0).count() > CROWD;
        let mut recent: Vec<&Recent> = younger(if is_crowded { RECENT.1 } else { RECENT.0 }).collect();
        recent.shuffle(rng);
        let mut of_block: HashMap<(Option<u32>, bool), u32> = HashMap::new();
        let mut of_kind = [0; 2];
        recent.sort_by_cached_key(|recent| {
            let rank = of_block.entry((recent.block, recent.is_liveness_message())).or_default();
            *rank += 1;
            (self.statement_turn(recent.topic, recent.block, now), *rank)
        });
        recent.sort_by_cached_key(|recent| {
            let turn = &mut of_kind[usize::from(recent.is_liveness_message())];
            *turn += 1;
            *turn
        });
        recent.into_iter().map(|recent| recent.topic).collect()
    }

    /// A member of this address block was not known until now; with it so many are.
    pub(super) fn add_newcomer(
        &mut self,
        node: NodeId,
        block: u32,
        members: usize,
        now: Duration,
        rng: &mut impl Rng,
    ) {
        self.statements.count(block, now);
        let (within, few) = NEWCOMERS;
        let newcomers = &mut self.newcomers;
        if newcomers.since.is_none_or(|since| now >= since + within) {
            *newcomers = Newcomers { since: Some(now), before: members, ..Newcomers::default() };
        }
        let most = few.max(newcomers.before / 2);
        let of_block = newcomers.by_block.entry(block).or_default();
        *of_block += 1;
        let is_news = if *of_block == 1 {
            let blocks = newcomers.by_block.len();
            (0..2).all(|_| rng.random_range(0..blocks) < most)
        } else {
            let passes = *of_block <= most / NEWCOMERS_PART && newcomers.further < most;
            newcomers.further += usize::from(passes);
            passes
        };
        if is_news {
            self.add(Topic::Record(node), Some(block), now);
        }
    }

    /// Whether a change of a member's own record is passed on as news: then it is counted. What is more is left to
    /// comparisons, so that those who change theirs all the time do not fill the messages of all.
    pub(super) fn is_record_passed_on(&mut self, of: AddressInBlock, now: Duration) -> bool {
        self.statements.count(of.block, now);
        self.records.is_passed_on(of, now)
    }

    /// The same of a change of its liveness.
    pub(super) fn is_liveness_message_passed_on(&mut self, of: AddressInBlock, now: Duration) -> bool {
        self.liveness.count_alive(of.block, now);
        self.liveness_messages.is_passed_on(of, now)
    }

    /// The same of the end of a membership, by its signer.
    pub(super) fn is_ending_passed_on(&mut self, by: AddressInBlock, now: Duration) -> bool {
        self.statements.count(by.block, now);
        self.endings.is_passed_on(by, now)
    }

    /// How often news is told by each in a network of so many others: the more, the more often, since each misses
    /// some. With six times at 20 % loss nine hundred and ninety of a thousand hear of it.
    fn times(members: usize) -> u8 {
        let doublings = usize::BITS - members.leading_zeros();
        u8::try_from(2 + doublings.div_ceil(3) * FANOUT as u32 / 2).unwrap_or(u8::MAX)
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        (!self.queue.is_empty() || !self.wants.askers.is_empty()).then_some(self.next)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.poll_timeout().is_some_and(|at| at <= now)
    }

    /// When it is the turn of an address block by what it has stated lately, of the kind of a topic.
    fn statement_turn(&self, topic: Topic, block: Option<u32>, now: Duration) -> Duration {
        if topic.is_long() { now + self.statements.held(block) } else { self.liveness.next(block, now) }
    }

    /// What is to be told now. Address blocks that have stated little lately come first, and of those that have stated
    /// the same they take turns by the bytes that they take. So who has little to say is not delayed by those who have
    /// much. In one block, what has been told least comes first, and of that the ends of memberships. Of suspicions, of
    /// which there may be very many, what room there is after all else. `told` says afterwards which of it had room.
    pub(super) fn poll_round(&mut self, now: Duration) -> Vec<Due> {
        self.next = now + ROUND;
        self.advance(now);
        let mut topics: Vec<(Topic, Rumor)> =
            self.queue.iter().map(|(topic, rumor)| (*topic, *rumor)).collect();
        topics.sort_by_key(|(topic, rumor)| (rumor.told, *topic));
        let mut before: HashMap<(Option<u32>, bool), u32> = HashMap::new();
        topics.sort_by_cached_key(|(topic, Rumor { block, told })| {
            let is_suspicion = matches!(topic, Topic::Suspicion(..));
            let before = before.entry((*block, is_suspicion)).or_default();
            let turn = self.told.next(*block, now) + PUT_BACK * *before;
            *before += TOPIC_LEN;
            (is_suspicion, self.statement_turn(*topic, *block, now), turn, *told, *topic)
        });
        let is_much = topics.iter().filter(|(topic, _)| topic.is_long()).count() > MUCH;
        let mut has_room = true;
        let due = |(topic, Rumor { block, told }): (Topic, Rumor)| {
            let is_quiet = topic.is_long() && self.is_quiet(block);
            let in_brief = match topic {
                Topic::Record(_) | Topic::Ending(_) if is_much => {
                    !(is_quiet && told < TIMES_IN_FULL && std::mem::take(&mut has_room))
                }
                Topic::Record(_) => told > 0,
                Topic::Ending(_) | Topic::Liveness(_) | Topic::Suspicion(..) => false,
            };
            Due { topic, in_brief, is_quiet }
        };
        topics.into_iter().map(due).collect()
    }

    /// A topic has been told to so many, and took so many bytes.
    pub(super) fn told(&mut self, topic: Topic, len: usize, to: usize, members: usize, now: Duration) {
        let to = u8::try_from(to.max(1)).unwrap_or(u8::MAX);
        let Some(rumor) = self.queue.get_mut(&topic) else { return };
        rumor.told = rumor.told.saturating_add(to);
        let Rumor { block, told } = *rumor;
        let times = Self::times(members);
        // A node that misses an ending keeps a member that is out, and comparisons find it late among many others.
        let is_twice = matches!(topic, Topic::Ending(_)) || self.is_lost_in_a_crowd(block);
        if told >= 2 * times || told >= times && !is_twice {
            self.queue.remove(&topic);
        }
        self.told.told(block, len, now);
    }

    /// When it is the turn of an address block to be told of to those who ask, by the monotonic clock: first by what it
    /// has stated lately.
    pub(super) fn grant_turn(&self, block: Option<u32>, now: Duration) -> (Duration, Duration) {
        (self.statements.held(block), self.granted.next(block, now))
    }

    /// Forgives address blocks what the time that has passed forgives.
    pub(super) fn advance(&mut self, now: Duration) {
        self.statements.advance(now);
    }

    /// Whether an address block is quiet, as of the last advance: it has stated little lately.
    pub(super) fn is_quiet(&self, block: Option<u32>) -> bool {
        self.statements.held(block) <= QUIET
    }

    /// Somebody who has asked is told so many bytes of an address block.
    pub(super) fn granted(&mut self, block: Option<u32>, len: usize, now: Duration) {
        self.granted.told(block, len, now);
    }

    /// Whether there is much news, and of a block with little of it. Where some make much, comparisons find each piece
    /// more rarely. So what few others have to say is told more often, until next to nobody has missed it.
    fn is_lost_in_a_crowd(&self, block: Option<u32>) -> bool {
        let of_block = self.queue.values().filter(|rumor| rumor.block == block).count();
        self.queue.len() > CROWD && of_block <= FEW
    }

    /// A topic is no news any more.
    pub(super) fn drop_topic(&mut self, topic: &Topic) {
        self.queue.remove(topic);
        self.recent.retain(|recent| recent.topic != *topic);
    }

    /// A member has asked for what is newer than this.
    pub(super) fn want(&mut self, to: Destination, asker: Asker, entry: Entry) {
        self.wants.add(to, asker, entry);
    }

    /// The wishes of the member whose turn it is.
    pub(super) fn poll_wants(&mut self) -> Option<(Destination, Asker, VecDeque<Entry>)> {
        self.wants.next()
    }

    /// Lets the members come first that have got least of what they have asked for.
    pub(super) fn sort_askers(&mut self, got: impl FnMut(&Asker) -> Duration) {
        self.wants.sort(got);
    }

    /// How many members wait for something.
    pub(super) fn askers(&self) -> usize {
        self.wants.askers.len()
    }

    /// These were not granted yet. Others come first now.
    pub(super) fn put_back(&mut self, to: Destination, asker: Asker, entries: VecDeque<Entry>) {
        self.wants.put_back(to, asker, entries);
    }

    /// Whether to ask a member for what it has of a node. It is taken to be asked then.
    pub(super) fn should_ask(&mut self, of: AddressInBlock, node: NodeId, now: Duration) -> bool {
        if let Some(open) = self.questions.open.get_mut(&node)
            && !open.ask(of, now)
        {
            return false;
        }
        let open = self.questions.remove(&node).unwrap_or_else(|| Open::first(of, now));
        self.questions.put(node, Open { of, ..open }, now)
    }

    /// Something came of a node.
    pub(super) fn answered(&mut self, node: &NodeId) {
        self.questions.remove(node);
    }
}

/// Which changes of one kind are passed on as news.
#[derive(Debug)]
struct Changes {
    shares: Shares,
    by_block: HashMap<u32, Bucket>,
    by_address: HashMap<u32, Bucket>,
}

impl Changes {
    fn new() -> Self {
        let (member, block) = AT_ONCE;
        let shares = Shares::new((CHANGE * (member - 1), CHANGE * (block - 1)), MAX_SHARES);
        Self { shares, by_block: HashMap::new(), by_address: HashMap::new() }
    }

    /// Whether one more is passed on; then it is counted.
    fn is_passed_on(&mut self, of: AddressInBlock, now: Duration) -> bool {
        let source = self.shares.source(of, now);
        let passes = source != Source::Others
            && (try_take(&mut self.by_address, of.address, OWN_CHANGES, now)
                || try_take(&mut self.by_block, of.block, CHANGES, now));
        if passes {
            self.shares.take(of, source, CHANGE, now);
        }
        passes
    }
}

/// Counts one more of an address block or an address, if it may have one more and there is room to count it.
fn try_take(counted: &mut HashMap<u32, Bucket>, of: u32, quota: Quota, now: Duration) -> bool {
    if counted.len() >= MAX_SHARES {
        counted.retain(|_, bucket| !bucket.is_empty(now));
    }
    counted.len() < MAX_SHARES && counted.entry(of).or_default().try_take(quota, now)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_that_is_new_itself_does_not_pass_on_everything() {
        let (mut rumors, mut rng) = (Rumors::new(), StdRng::from_seed([1; 32]));
        let node = |number: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            NodeId(id)
        };
        let mut told = |from: u16, to: u16, members: usize, now| {
            let mut told = 0;
            for number in from..to {
                rumors.add_newcomer(node(number), u32::from(number) * 16, members, now, &mut rng);
                told += std::mem::take(&mut rumors.queue).len();
            }
            told
        };
        let first = told(0, 1000, 1, SECOND);
        assert!((40..=88).contains(&first), "{first}");
        // Later it is as all others, and so what is new to it is new.
        assert_eq!(told(1000, 1500, 1000, SECOND * 700), 500);
        assert_eq!(told(1500, 1510, 1500, SECOND * 1400), 10);
    }

    /// A node that was started again, in whose first minutes members of many blocks let new identities appear.
    #[test]
    fn one_that_knew_the_others_passes_on_what_is_new_from_its_start() {
        let (mut rumors, mut rng) = (Rumors::new(), StdRng::from_seed([1; 32]));
        let mut is_news = |number: u32| {
            rumors.add_newcomer(node(number), 16 * number, 1000, SECOND, &mut rng);
            rumors.queue.contains_key(&Topic::Record(node(number)))
        };
        assert_eq!((0..100).filter(|number| is_news(*number)).count(), 100);
    }

    #[test]
    fn whoever_has_asked_for_most_waits_in_vain_and_nobody_else() {
        let mut wants = Wants::default();
        let asker = |seed| Destination { padding: [seed; 32], signing_key: [seed; 32] };
        let entry = |number: u16| {
            let mut node = [0; 32];
            node[..2].copy_from_slice(&number.to_be_bytes());
            Entry { node: NodeId(node), record: 0, liveness: 0, ended: false }
        };
        (0..2000).for_each(|number| wants.add(asker(1), Some(of(16)), entry(number)));
        (0..20).for_each(|number| wants.add(asker(2), Some(of(17)), entry(number)));
        wants.add(asker(2), Some(of(17)), entry(0));
        let (first, block, greedy) = wants.next().unwrap();
        assert_eq!((first, greedy.len()), (asker(1), MAX_WANTS - 20));
        wants.put_back(first, block, greedy);
        let (second, block, modest) = wants.next().unwrap();
        assert_eq!((second, modest.len(), wants.count), (asker(2), 20, MAX_WANTS - 20));
        wants.put_back(second, block, VecDeque::new());
        assert_eq!(wants.next().map(|(to, ..)| to), Some(asker(1)));
        assert_eq!((wants.next(), wants.count), (None, 0));
    }

    /// One that has just joined waited for as many others as ask for everything all the time.
    #[test]
    fn who_has_got_least_comes_first_and_equals_take_turns() {
        let mut wants = Wants::default();
        let asker = |seed| Destination { padding: [seed; 32], signing_key: [seed; 32] };
        let entry = Entry { node: node(1), record: 0, liveness: 0, ended: false };
        for greedy in 1..10 {
            wants.add(asker(greedy), Some(of(16)), entry);
        }
        wants.add(asker(10), Some(of(32)), entry);
        let mut next = || {
            let got = |asker: &Asker| if block(asker) == Some(16) { SECOND } else { Duration::ZERO };
            wants.sort(got);
            let (to, asker, entries) = wants.next().unwrap();
            wants.put_back(to, asker, if block(&asker) == Some(16) { entries } else { VecDeque::new() });
            to
        };
        assert_eq!([next(), next(), next()], [asker(10), asker(1), asker(2)]);
    }

    #[test]
    fn news_is_told_a_few_times_and_the_newest_first() {
        let mut rumors = Rumors::new();
        let topic = |number: u8| Topic::Record(NodeId([number; 32]));
        let round = |rumors: &mut Rumors| -> Vec<_> {
            rumors.poll_round(SECOND).iter().map(|due| (due.topic, rumors.queue[&due.topic].told)).collect()
        };
        rumors.add(topic(1), None, SECOND);
        assert_eq!(round(&mut rumors), [(topic(1), 0)]);
        rumors.told(topic(1), 50, FANOUT, 1000, SECOND);
        rumors.add(topic(2), None, SECOND);
        assert_eq!(round(&mut rumors), [(topic(2), 0), (topic(1), 2)]);
        for _ in 0..10 {
            rumors.told(topic(1), 50, FANOUT, 1000, SECOND);
        }
        assert_eq!(round(&mut rumors), [(topic(2), 0)]);
        assert_eq!((Rumors::times(1), Rumors::times(1000)), (3, 6));
        let ending = Topic::Ending(node(1));
        rumors.add(ending, None, SECOND);
        (0..5).for_each(|_| rumors.told(ending, 50, FANOUT, 1000, SECOND));
        assert!(round(&mut rumors).contains(&(ending, 10)));
        rumors.told(ending, 50, FANOUT, 1000, SECOND);
        assert_eq!(round(&mut rumors), [(topic(2), 0)]);
    }

    /// A hundred blocks that state something now and then were as quiet as one that states something for the first
    /// time.
    #[test]
    fn however_many_blocks_state_something_now_and_then_little_of_it_is_quiet() {
        let mut rumors = Rumors::new();
        let mut quiet = 0;
        for second in 0..7200 {
            let now = SECOND * second;
            let place = of(16 * (second % 100));
            rumors.is_record_passed_on(place, now);
            quiet += u32::from(rumors.is_quiet(Some(place.block)));
            // Another is quiet all the same.
            if second % 600 == 599 {
                let other = of(16 * (1000 + second));
                rumors.is_ending_passed_on(other, now);
                assert!(rumors.is_quiet(Some(other.block)), "after {second} s");
            }
        }
        assert!((200..=200 + 7200 / 10).contains(&quiet), "{quiet}");
        // What they have stated is forgiven in time.
        rumors.advance(SECOND * 7200 * 8);
        assert!((0..100).all(|number| rumors.is_quiet(Some(16 * number))));
    }

    /// However much the members of a hundred blocks state, what a quiet block has stated comes first, and is told in
    /// full.
    #[test]
    fn what_a_quiet_block_states_is_told_first_and_in_full() {
        let (mut rumors, mut rng) = (Rumors::new(), StdRng::from_seed([1; 32]));
        for number in 0..1000 {
            let signer = of(16 * (100 + number % 100));
            if rumors.is_ending_passed_on(signer, SECOND) {
                rumors.add(Topic::Ending(node(number)), Some(signer.block), SECOND);
            }
        }
        let (join, ban) = (Topic::Record(node(2001)), Topic::Ending(node(2002)));
        let first = |rumors: &mut Rumors| {
            let due = rumors.poll_round(SECOND);
            assert!(due[..2].iter().all(|due| due.is_quiet));
            assert!(due[2..].iter().all(|due| due.in_brief && !due.is_quiet));
            [0, 1].map(|place| (due[place].topic, due[place].in_brief))
        };
        rumors.add_newcomer(node(2001), 16, 1000, SECOND, &mut rng);
        rumors.add(ban, None, SECOND);
        // One in each datagram, the founder's before the others.
        assert_eq!(first(&mut rumors), [(ban, false), (join, true)]);
        for _ in 0..TIMES_IN_FULL / 2 {
            rumors.told(ban, 700, FANOUT, 1000, SECOND);
        }
        assert_eq!(first(&mut rumors), [(ban, true), (join, false)]);
        // Who wants them is sent these first.
        let turn = |block| rumors.grant_turn(block, SECOND);
        assert!(turn(None) < turn(Some(16)) && turn(Some(16)) < turn(Some(1600)));
    }

    #[test]
    fn what_was_news_goes_along_for_a_while() {
        let mut rumors = Rumors::new();
        let mut rng = StdRng::from_seed([1; 32]);
        let (record, liveness_message) = (Topic::Record(NodeId([1; 32])), Topic::Liveness(NodeId([2; 32])));
        rumors.add(record, None, SECOND);
        rumors.add(Topic::Suspicion(NodeId([1; 32]), NodeId([2; 32])), None, SECOND);
        (0..10).for_each(|_| rumors.told(record, 50, FANOUT, 1000, SECOND));
        assert_eq!(rumors.recent(SECOND * 180, &mut rng), [record]);
        assert_eq!(rumors.recent(SECOND * 181, &mut rng), []);
        // Of signs of life only the latest, however many there are.
        let revocation = Topic::Ending(NodeId([3; 32]));
        rumors.add(record, None, SECOND * 200);
        rumors.add(revocation, None, SECOND * 200);
        rumors.add(liveness_message, None, SECOND * 200);
        (0..1000).for_each(|number| rumors.add(Topic::Liveness(node(number)), None, SECOND * 201));
        let recent = rumors.recent(SECOND * 201, &mut rng);
        assert_eq!(recent.len(), MAX_RECENT);
        // Signs of life take turns with what else there is.
        assert!(
            recent[..4].contains(&record)
                && recent[..4].contains(&revocation)
                && !recent.contains(&liveness_message)
        );
        // Where there is so much, it goes along for longer.
        assert!(rumors.recent(SECOND * 1000, &mut rng).is_empty());
        (0..40).for_each(|number| rumors.add(Topic::Liveness(node(number)), None, SECOND * 1000));
        assert!(rumors.recent(SECOND * 1000, &mut rng).contains(&record));
        rumors.drop_topic(&record);
        assert!(!rumors.recent(SECOND * 201, &mut rng).contains(&record));
    }

    #[test]
    fn what_can_wait_does_not_crowd_out_what_cannot() {
        let mut rumors = Rumors::new();
        let node = |number: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            NodeId(id)
        };
        (0..10_000).for_each(|number| rumors.add(Topic::Record(node(number)), None, SECOND));
        assert_eq!(rumors.poll_round(SECOND).len(), MAX_TOLD);
        rumors.add(Topic::Liveness(node(1)), None, SECOND);
        rumors.add(Topic::Ending(node(2)), None, SECOND);
        assert_eq!(rumors.poll_round(SECOND).len(), MAX_TOLD + 2);
    }

    /// However many blocks let ever new identities appear, and change all the time: another member's join is told
    /// first, as often as it is to be told.
    #[test]
    fn a_join_comes_before_the_news_of_blocks_that_change_all_the_time() {
        let (mut rumors, mut rng) = (Rumors::new(), StdRng::from_seed([1; 32]));
        // Not new itself any more.
        let start = SECOND * 700;
        let joined = node(0xffff_ffff);
        let topic = Topic::Record(joined);
        for number in 0..100_000 {
            let (share, members) = (16 * (1000 + number % 100), 300);
            rumors.add_newcomer(node(number), share, members, start, &mut rng);
            if rumors.is_liveness_message_passed_on(of(share), start) {
                rumors.add(Topic::Liveness(node(number)), Some(share), start);
            }
        }
        assert_eq!(rumors.queue.keys().filter(|topic| topic.can_wait()).count(), MAX_TOLD);
        let place = |rumors: &mut Rumors| rumors.poll_round(start).iter().position(|due| due.topic == topic);
        // A round has room for twenty.
        let serve = |rumors: &mut Rumors, now| {
            for due in rumors.poll_round(now).into_iter().take(20) {
                rumors.told(due.topic, 50, FANOUT, 1000, now);
            }
        };
        (1..12).for_each(|second| serve(&mut rumors, start + SECOND * second));
        rumors.add_newcomer(joined, 16, 300, start + SECOND * 12, &mut rng);
        let rounds = (12..).take_while(|second| {
            let is_first = place(&mut rumors) == Some(0);
            serve(&mut rumors, start + SECOND * *second);
            is_first
        });
        assert_eq!(rounds.count(), 6);
    }

    /// Addresses count up through blocks of sixteen.
    fn of(address: u32) -> AddressInBlock {
        AddressInBlock { block: address & !15, address }
    }

    fn node(number: u32) -> NodeId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn consistent(questions: &Questions) -> bool {
        let sum: usize = questions.counts.values().map(|(count, _)| count).sum();
        let inner: usize = questions.counts.values().flat_map(|(_, addresses)| addresses.values()).sum();
        (sum, inner) == (questions.open.len(), questions.open.len()) && sum <= MAX_OPEN
    }

    /// A member can claim entries of nodes that do not exist, from each of its addresses.
    #[test]
    fn invented_nodes_do_not_keep_others_from_being_asked_for() {
        let mut rumors = Rumors::new();
        let mut invented = 1_000_000;
        let mut open = 0;
        for second in 1..60 {
            let now = SECOND * second;
            for address in 17..32 {
                for _ in 0..300 {
                    invented += 1;
                    rumors.should_ask(of(address), node(invented), now);
                }
            }
            // What one member of another block tells of is asked for, until that block has its half.
            for _ in 0..30 {
                open += 1;
                assert!(rumors.should_ask(of(1), node(open), now), "after {second} s");
                assert!(!rumors.should_ask(of(20), node(open), now));
            }
            assert!(consistent(&rumors.questions));
        }
        // And in the attacker's own block another address has its share.
        for number in 500_000..500_100 {
            assert!(rumors.should_ask(of(16), node(number), SECOND * 60));
        }
    }

    #[test]
    fn open_questions_are_shared_by_block_and_address() {
        let mut rumors = Rumors::new();
        let mut number = 0;
        let mut ask = |rumors: &mut Rumors, address: u32, times: usize| {
            let asked = (0..times).filter(|_| {
                number += 1;
                rumors.should_ask(of(address), node(number), SECOND)
            });
            asked.count()
        };
        assert_eq!(ask(&mut rumors, 16, 5000), MAX_OPEN);
        assert_eq!(ask(&mut rumors, 1, 5000), MAX_OPEN / 2);
        assert_eq!(ask(&mut rumors, 2, 5000), MAX_OPEN / 4);
        assert_eq!(ask(&mut rumors, 16, 5000), 0);
        let counts = &rumors.questions.counts;
        assert_eq!(
            (counts[&16].0, counts[&0].0, counts[&0].1[&1]),
            (MAX_OPEN / 2, MAX_OPEN / 2, MAX_OPEN / 4)
        );
        // Their time over, there is room again.
        let later = SECOND * 20;
        assert!(rumors.should_ask(of(16), node(1_000_000), later));
        assert_eq!(rumors.questions.open.len(), 1);
        rumors.answered(&node(1_000_000));
        assert!(rumors.questions.open.is_empty() && rumors.questions.counts.is_empty());
    }

    /// Members of a hundred blocks claim every second to have what they do not have, so that others are not asked for
    /// what they have.
    #[test]
    fn lies_do_not_keep_others_from_being_asked() {
        let mut rumors = Rumors::new();
        let node = NodeId([1; 32]);
        let mut asked = 0;
        for second in 0..300 {
            let now = SECOND * second;
            for liar in 1..=100 {
                rumors.should_ask(of(16 * liar), node, now);
            }
            // Others tell of it more rarely, each once.
            if second % 15 == 14 {
                asked += usize::from(rumors.should_ask(of(16 * (1000 + second)), node, now));
            }
        }
        assert!(asked >= 10, "{asked} of 20");
        assert!(rumors.questions.open[&node].asked.len() <= MAX_ASKED);
    }

    #[test]
    fn one_block_does_not_use_up_what_is_news() {
        let (mut rumors, mut rng) = (Rumors::new(), StdRng::from_seed([1; 32]));
        let mut number = 0;
        let mut newcomer = |rumors: &mut Rumors, share| {
            number += 1;
            rumors.add_newcomer(node(number), share, 10, SECOND, &mut rng);
            rumors.queue.contains_key(&Topic::Record(node(number)))
        };
        assert_eq!((0..1000).filter(|_| newcomer(&mut rumors, 16)).count(), 4);
        assert!(newcomer(&mut rumors, 0) && newcomer(&mut rumors, 32));
        assert_eq!((0..1000).filter(|_| rumors.is_ending_passed_on(of(16), SECOND)).count(), 24);
        assert!(rumors.is_ending_passed_on(of(0), SECOND));
    }

    /// However many blocks change theirs all the time, all together are passed on at one rate, and of each the same.
    #[test]
    fn changes_of_all_blocks_keep_a_rate() {
        let mut rumors = Rumors::new();
        let mut passed = [0; 100];
        for second in 0..7200 {
            for block in 0..100u32 {
                let address = 16 * block + second % 16;
                passed[block as usize] += u32::from(rumors.is_record_passed_on(of(address), SECOND * second));
            }
            // A block that changes seldom is told of all the same.
            if second % 600 == 599 {
                assert!(rumors.is_record_passed_on(of(100_000), SECOND * second), "after {second} s");
            }
        }
        let all: u32 = passed.iter().sum();
        assert!((2400..=2400 + 100 * 40).contains(&all), "{all}");
        let (least, most) = (passed.iter().min().unwrap(), passed.iter().max().unwrap());
        assert!(*most <= least + 2, "{least} to {most}");
    }

    #[test]
    fn changes_of_one_member_are_passed_on_whatever_others_of_its_block_do() {
        let mut rumors = Rumors::new();
        for address in 17..32 {
            for _ in 0..100 {
                rumors.is_record_passed_on(of(address), SECOND);
                rumors.is_liveness_message_passed_on(of(address), SECOND);
            }
        }
        assert!((0..10).filter(|_| rumors.is_liveness_message_passed_on(of(16), SECOND)).count() >= 1);
        // Who is suspected all the time has a record all the same.
        assert!(rumors.is_record_passed_on(of(16), SECOND));
        // One that changes all the time has no more than its block.
        let passed = (0..3600).filter(|second| rumors.is_record_passed_on(of(17), SECOND * *second));
        assert!((230..=300).contains(&passed.count()));
    }

    #[test]
    fn the_same_is_asked_for_ever_more_rarely() {
        let mut rumors = Rumors::new();
        let node = NodeId([1; 32]);
        let mut asked = Vec::new();
        for second in 0..2000 {
            if rumors.should_ask(of(1), node, SECOND * second) {
                asked.push(second);
            }
        }
        // Before it did not give up, a node for which many had no bytes never learned of some members.
        assert_eq!(asked, [0, 8, 16, 32, 48, 80, 112, 176, 240, 368, 496, 752, 1008, 1264, 1520, 1776]);
        // Another of its block is not asked either, but one of another block is.
        assert!(!rumors.should_ask(of(2), node, SECOND * 2000));
        assert!(rumors.should_ask(of(16), node, SECOND * 2000));
        rumors.answered(&node);
        assert!(rumors.should_ask(of(2), node, SECOND * 2000));
    }
}
