//! How many bytes control messages may take.
//!
//! So many a second on average, in parts, in sixteenths: four for what this node says by itself; three for the comparisons
//! that it begins, and one for sending what it has to members that it has spoken to by itself; two for answers about
//! quiet address blocks, so that blocks that state much do not use up what these need, and two for answers to all
//! others who ask; two for questions to those who claim to have something; two for telling that this node is there,
//! since who says nothing for want of bytes would be held to be out of reach, and that would cost everybody more.
//! Whatever one part leaves, the others may use.
//!
//! Others can make a node answer and ask. So these parts are shared by address ([`Shares`]): a member that asks for
//! little is answered, however many ask for much. In the address block of one that asks for much, though, little is left
//! for the others. What helps these are exchanges: whom a node speaks to by itself is drawn at random, and what follows is
//! at its own expense and in no share. A member that lies is drawn no more often than any other, and cannot have more of
//! an exchange than [`COMPARISON`] datagrams.

use std::collections::HashMap;
use std::time::Duration;

use super::shares::{AddressInBlock, Shares, Source};

/// What I2P adds to a repliable datagram, bytes: the sender's destination and its signature.
pub(super) const ENVELOPE: usize = 455;

/// For this long what may be sent on average may be saved up.
const BURST: Duration = Duration::from_secs(30);

/// The backlog with which an address or a block is within its share: the time that the whole part takes for it.
const TOLERANCE: Duration = Duration::from_secs(8);

/// The same for answers about quiet address blocks: some datagrams for a member that asks for the first time, such as a
/// new one, but not all that may be saved up. One that asks for everything all the time gets no more than its share in
/// the long run, and those that have got less come first.
const TOLERANCE_OF_QUIET: Duration = Duration::from_secs(24);

/// Addresses that are counted at a time in each part.
const MAX_PLACES: usize = 4096;

/// Datagrams that may follow when this node has begun a comparison: two more of it, a question, and answers.
pub(super) const COMPARISON: u8 = 8;

/// Datagrams that may follow when this node has told a member what it has.
pub(super) const OFFER: u8 = 2;

/// For so long they may follow.
const EXCHANGE: Duration = Duration::from_secs(120);

/// Exchanges that are open at a time. In any further one the other is answered out of its share.
const MAX_EXCHANGES: usize = 256;

/// Who is answered or asked: a member by its place, since one can have many identities in its own address block; none for
/// all strangers together.
pub(super) type Asker = Option<AddressInBlock>;

/// The address block of an asker.
pub(super) fn block(asker: &Asker) -> Option<u32> {
    asker.map(|place| place.block)
}

/// The place of an asker among all. No block has the number of all strangers.
fn place(asker: &Asker) -> AddressInBlock {
    asker.unwrap_or(AddressInBlock { block: u32::MAX, address: u32::MAX })
}

/// Bytes that may be sent, so many a second on average.
#[derive(Debug, Default)]
struct Account {
    /// When what was sent so far will have been due at the average rate.
    paid_at: Duration,
}

impl Account {
    fn charge(&mut self, bytes: u32, rate: u32, now: Duration) {
        let time = cost(bytes, rate);
        // What must be sent whatever it costs does not silence the node for longer than it could save up.
        self.paid_at = (self.paid_at.max(now) + time).min(now + 2 * BURST);
    }

    fn allows(&self, now: Duration) -> bool {
        self.paid_at <= now + BURST
    }

    /// Whether no more than half of what may be saved up is taken.
    fn has_reserve(&self, now: Duration) -> bool {
        self.paid_at <= now + BURST / 2
    }
}

/// The time that a rate, bytes a second, takes for so many bytes.
fn cost(bytes: u32, rate: u32) -> Duration {
    Duration::from_secs(1) * bytes / rate.max(1)
}

fn with_envelope(len: usize) -> u32 {
    u32::try_from(len + ENVELOPE).unwrap_or(u32::MAX)
}

/// Sixteenths of the rate.
const LOCAL: u32 = 4;
const COMPARED: u32 = 3;
const OFFERED: u32 = 1;
const ANSWERED: u32 = 2;
const ANSWERED_OF_QUIET: u32 = 2;
const ASKED: u32 = 2;
const ACKNOWLEDGED: u32 = 2;

/// So many sixteenths of a rate.
fn part(rate: u32, sixteenths: u32) -> u32 {
    rate / 16 * sixteenths
}

/// A part that is shared by those who make this node send something.
#[derive(Debug)]
struct Part {
    sixteenths: u32,
    /// Each can have a backlog within its share, and very many together could have more than may be sent.
    taken: Account,
    shares: Shares,
}

impl Part {
    fn new(sixteenths: u32, tolerance: Duration) -> Self {
        let shares = Shares::new((tolerance, tolerance), MAX_PLACES);
        Self { sixteenths, taken: Account::default(), shares }
    }

    /// What one more datagram would be taken from, and whether that has it.
    fn source(&mut self, asker: &Asker, now: Duration) -> (Source, bool) {
        let source = self.shares.source(place(asker), now);
        (source, source != Source::Others && self.taken.allows(now))
    }

    fn take(&mut self, asker: &Asker, source: Source, bytes: u32, rate: u32, now: Duration) {
        self.taken.charge(bytes, rate, now);
        self.shares.take(place(asker), source, cost(bytes, part(rate, self.sixteenths)), now);
    }
}

/// What may still follow in an exchange.
#[derive(Debug)]
struct Exchange {
    datagrams: u8,
    until: Duration,
}

/// How many bytes may be sent.
#[derive(Debug)]
pub(super) struct Budget {
    rate: u32,
    all: Account,
    local: Account,
    compared: Account,
    offered: Account,
    /// By the address of the other.
    exchanges: HashMap<u32, Exchange>,
    answers: Part,
    answers_of_quiet: Part,
    questions: Part,
    acks: Part,
}

impl Budget {
    /// So many bytes a second.
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate,
            all: Account::default(),
            local: Account::default(),
            compared: Account::default(),
            offered: Account::default(),
            exchanges: HashMap::new(),
            answers: Part::new(ANSWERED, TOLERANCE),
            answers_of_quiet: Part::new(ANSWERED_OF_QUIET, TOLERANCE_OF_QUIET),
            questions: Part::new(ASKED, TOLERANCE),
            acks: Part::new(ACKNOWLEDGED, TOLERANCE),
        }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// A datagram with so many bytes is sent, which nobody has asked for.
    pub(super) fn charge(&mut self, len: usize, now: Duration) {
        let bytes = with_envelope(len);
        self.all.charge(bytes, self.rate, now);
        self.local.charge(bytes, part(self.rate, LOCAL), now);
    }

    /// Whether what can wait, and nobody has asked for, may be sent now.
    pub(super) fn allows(&self, now: Duration) -> bool {
        self.all.allows(now) || self.local.allows(now)
    }

    /// Whether what may be told leaves a reserve for news that matters more.
    pub(super) fn has_reserve(&self, now: Duration) -> bool {
        self.all.has_reserve(now) || self.local.has_reserve(now)
    }

    /// Whether a comparison may be begun now. One that catches up has little to say by itself, and compares instead.
    pub(super) fn may_compare(&self, catches_up: bool, now: Duration) -> bool {
        self.all.allows(now) || self.compared.allows(now) || catches_up && self.local.allows(now)
    }

    /// A datagram is sent that begins a comparison, or goes on with one that this node has begun. Where only what this node
    /// says by itself has bytes for it, it counts as that.
    pub(super) fn charge_comparison(&mut self, len: usize, now: Duration) {
        let bytes = with_envelope(len);
        let is_lent = !self.compared.allows(now) && !self.all.allows(now);
        self.all.charge(bytes, self.rate, now);
        if is_lent {
            self.local.charge(bytes, part(self.rate, LOCAL), now);
        } else {
            self.compared.charge(bytes, part(self.rate, COMPARED), now);
        }
    }

    /// This node has begun an exchange, in which so many datagrams may follow.
    pub(super) fn begin_exchange(&mut self, with: &Asker, datagrams: u8, now: Duration) {
        let Some(AddressInBlock { address, .. }) = *with else { return };
        if self.exchanges.len() >= MAX_EXCHANGES {
            self.exchanges.retain(|_, exchange| now < exchange.until);
        }
        if self.exchanges.len() < MAX_EXCHANGES {
            let exchange = self.exchanges.entry(address).or_insert(Exchange { datagrams: 0, until: now });
            exchange.datagrams = exchange.datagrams.max(datagrams);
            exchange.until = now + EXCHANGE;
        }
    }

    /// The exchange that one more datagram to somebody would be of, if it may be sent now.
    fn exchange(&mut self, with: &Asker, compares: bool, now: Duration) -> Option<&mut Exchange> {
        let account = if compares { &self.compared } else { &self.offered };
        let may = self.all.allows(now) || account.allows(now);
        let exchange = self.exchanges.get_mut(&(*with)?.address)?;
        (may && exchange.datagrams > 0 && now < exchange.until).then_some(exchange)
    }

    /// Whether one datagram more of an exchange may be sent; then it is taken to be sent.
    fn exchanges(&mut self, with: &Asker, compares: bool, len: usize, now: Duration) -> bool {
        let Some(exchange) = self.exchange(with, compares, now) else { return false };
        exchange.datagrams -= 1;
        if compares {
            self.charge_comparison(len, now);
        } else {
            let bytes = with_envelope(len);
            self.all.charge(bytes, self.rate, now);
            self.offered.charge(bytes, part(self.rate, OFFERED), now);
        }
        true
    }

    /// Whether somebody may be sent an answer now.
    pub(super) fn may_answer(&mut self, asker: &Asker, now: Duration) -> bool {
        self.exchange(asker, false, now).is_some()
            || self.answers.source(asker, now).1
            || self.all.allows(now)
    }

    /// Whether somebody may be sent an answer of so many bytes now, which may go on with a comparison; then it is taken to be
    /// sent.
    pub(super) fn answers(&mut self, asker: &Asker, compares: bool, len: usize, now: Duration) -> bool {
        if self.exchanges(asker, compares, len, now) {
            return true;
        }
        let (source, has) = self.answers.source(asker, now);
        let may = has || self.all.allows(now);
        if may {
            let bytes = with_envelope(len);
            self.all.charge(bytes, self.rate, now);
            self.answers.take(asker, source, bytes, self.rate, now);
        }
        may
    }

    /// Whether somebody may be sent now what a quiet address block has stated.
    pub(super) fn may_answer_of_quiet(&mut self, asker: &Asker, now: Duration) -> bool {
        self.answers_of_quiet.source(asker, now).1 || self.may_answer(asker, now)
    }

    /// How much the address block of somebody has got of that beyond what its share has paid off.
    pub(super) fn backlog_of_quiet(&mut self, asker: &Asker, now: Duration) -> Duration {
        self.answers_of_quiet.shares.backlog(place(asker).block, now)
    }

    /// Whether somebody may be sent that now in so many bytes; then it is taken to be sent.
    pub(super) fn answers_of_quiet(&mut self, asker: &Asker, len: usize, now: Duration) -> bool {
        let (source, has) = self.answers_of_quiet.source(asker, now);
        if has {
            let bytes = with_envelope(len);
            self.all.charge(bytes, self.rate, now);
            self.answers_of_quiet.take(asker, source, bytes, self.rate, now);
        }
        has || self.answers(asker, false, len, now)
    }

    /// Whether somebody that claims to have something may be asked for it now.
    pub(super) fn may_ask(&mut self, whom: &Asker, now: Duration) -> bool {
        self.exchange(whom, true, now).is_some() || self.questions.source(whom, now).1 || self.all.allows(now)
    }

    /// Somebody is asked in so many bytes.
    pub(super) fn charge_question(&mut self, whom: &Asker, len: usize, now: Duration) {
        if !self.exchanges(whom, true, len, now) {
            let bytes = with_envelope(len);
            let (source, _) = self.questions.source(whom, now);
            self.all.charge(bytes, self.rate, now);
            self.questions.take(whom, source, bytes, self.rate, now);
        }
    }

    /// Whether somebody may be told in so many bytes now that this node is there, for which there are no others; then it
    /// is taken to be sent.
    pub(super) fn acknowledges(&mut self, asker: &Asker, len: usize, now: Duration) -> bool {
        let source = self.acks.shares.source(place(asker), now);
        let may = source != Source::Others;
        if may {
            let bytes = with_envelope(len);
            self.all.charge(bytes, self.rate, now);
            self.acks.take(asker, source, bytes, self.rate, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Addresses count up through blocks of sixteen.
    fn of(address: u32) -> AddressInBlock {
        AddressInBlock { block: address & !15, address }
    }

    #[test]
    fn what_can_wait_keeps_the_rate() {
        let mut budget = Budget::new(2000);
        let mut sent = 0;
        for tick in 0..3600 * 10 {
            let now = SECOND * tick / 10;
            while budget.allows(now) {
                budget.charge(1000, now);
                sent += 1000 + ENVELOPE;
            }
        }
        let allowed = 2000 * 3600 + 2000 * 30;
        assert!((allowed - 3000..=allowed + 3000).contains(&sent), "{sent}");
    }

    /// Whatever the greedy ask, who is modest and what the node says by itself have their share.
    #[test]
    fn the_greedy_get_what_others_leave() {
        let mut budget = Budget::new(2000);
        let asker = |number: u16| Some(of(16 * u32::from(number)));
        let len = 1000 - ENVELOPE;
        let (mut own, mut modest, mut greedy) = (0, 0, 0);
        for second in 0..3600 {
            let now = SECOND * second;
            // The greedy always come first.
            for _ in 0..20 {
                greedy += usize::from(budget.answers(&asker(0), false, len, now));
            }
            // Each of the others asks every two minutes.
            let other = asker(1 + u16::try_from(second % 120).unwrap());
            modest += usize::from(budget.answers(&other, false, len, now));
            while budget.allows(now) && own < second as usize {
                budget.charge(len, now);
                own += 1;
            }
            // And whoever just asks whether this node is there hears that it is.
            let pings = asker(1000 + u16::try_from(second).unwrap());
            assert!(second % 4 != 0 || budget.acknowledges(&pings, 27, now), "after {second} s");
        }
        // Of 7200 in the hour, and those that were saved up. The greedy are modest once in ten seconds, too.
        assert!(own >= 1750, "{own}");
        assert!(modest >= 1100, "{modest}");
        assert!(own + modest + greedy < 7300, "{}", own + modest + greedy);
    }

    /// However much is told that can wait longer, what matters more can be told by the burst.
    #[test]
    fn what_keeps_a_reserve_leaves_one() {
        let mut budget = Budget::new(2000);
        let mut sent = 0;
        for tick in 0..600 * 10 {
            let now = SECOND * tick / 10;
            // Others have all the rest.
            while budget.all.allows(now) {
                budget.all.charge(1000, 2000, now);
            }
            while budget.has_reserve(now) {
                budget.charge(1000 - ENVELOPE, now);
                sent += 1000;
            }
            assert!(budget.allows(now));
        }
        // It has the whole rate as long as nothing matters more.
        assert!(sent > 500 * 600, "{sent}");
        let now = SECOND * 600;
        let burst = (0..1000).take_while(|_| {
            let allows = budget.allows(now);
            budget.charge(1000 - ENVELOPE, now);
            allows
        });
        assert!(burst.count() >= 7);
    }

    #[test]
    fn answers_about_quiet_blocks_have_bytes_of_their_own_and_no_more() {
        let mut budget = Budget::new(2000);
        let (greedy, other) = (Some(of(16)), Some(of(32)));
        let now = SECOND * 1000;
        while budget.answers(&greedy, false, 1000, now) {}
        while budget.answers(&other, false, 1000, now) {}
        let mut quiet = |asker| (0..1000).take_while(|_| budget.answers_of_quiet(asker, 1000, now)).count();
        let greedy = quiet(&greedy);
        assert!((4..=6).contains(&greedy), "{greedy}");
        // What was saved up is not enough for both, and not used up by one.
        let other = quiet(&other);
        assert!((1..=greedy).contains(&other), "{other}");
    }

    /// Asks until there is no more. Returns how many answers there were.
    fn drain(budget: &mut Budget, asker: &Asker, now: Duration) -> usize {
        (0..1000).take_while(|_| budget.answers(asker, true, 500, now)).count()
    }

    /// In the address block of one that asks for everything, another hears of what a node compares with it by itself.
    #[test]
    fn an_exchange_is_at_the_expense_of_whoever_begins_it() {
        let mut budget = Budget::new(2000);
        let (greedy, other, stranger) = (Some(of(16)), Some(of(17)), None);
        let now = SECOND * 1000;
        // All that was saved up, then what there is in the two blocks' shares.
        drain(&mut budget, &greedy, now);
        drain(&mut budget, &other, now);
        assert_eq!((drain(&mut budget, &greedy, now), drain(&mut budget, &other, now)), (0, 0));
        budget.begin_exchange(&other, COMPARISON, now);
        budget.begin_exchange(&stranger, COMPARISON, now);
        assert!(budget.may_ask(&other, now));
        assert_eq!(drain(&mut budget, &other, now), usize::from(COMPARISON));
        assert_eq!((drain(&mut budget, &greedy, now), drain(&mut budget, &stranger, now)), (0, 0));
        // It does not last.
        budget.begin_exchange(&other, COMPARISON, now);
        assert!(budget.exchange(&other, true, now + EXCHANGE - SECOND).is_some());
        assert!(budget.exchange(&other, true, now + EXCHANGE).is_none());
    }

    #[test]
    fn exchanges_are_bounded() {
        let mut budget = Budget::new(2000);
        (0..10_000).for_each(|address| budget.begin_exchange(&Some(of(address)), OFFER, SECOND));
        assert_eq!(budget.exchanges.len(), MAX_EXCHANGES);
        budget.begin_exchange(&Some(of(20_000)), OFFER, SECOND + EXCHANGE);
        assert_eq!(budget.exchanges.len(), 1);
    }
}
