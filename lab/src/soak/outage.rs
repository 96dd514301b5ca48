//! Outages: what makes one of lost probes, and to which fault one is attributed. Without I/O and clocks.
//!
//! All times are since the beginning of the run.

use std::time::Duration;

use super::schedule::Cause;

/// Lost probes make an outage if traffic was interrupted for at least this long.
pub const OUTAGE: Duration = Duration::from_secs(1);

/// How long after a fault is over an outage that begins is attributed to it.
pub const AFTERMATH: Duration = Duration::from_secs(30);

/// How long before a fault a probe may have been sent that is lost to it.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// Probes in a row, from one node to another, of which none was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The node that sends them.
    pub from: usize,
    /// The node that was to answer.
    pub to: usize,
    /// When the first was sent.
    pub begins: Duration,
    /// When the first one after them that was answered was sent.
    pub ends: Duration,
    /// How many.
    pub lost: u64,
}

impl Gap {
    /// How long it was.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.ends.saturating_sub(self.begins)
    }

    /// Whether it is long enough for an outage.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.length() >= OUTAGE
    }
}

/// A fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectedFault {
    /// What it is.
    pub cause: Cause,
    /// The nodes that it is done to.
    pub nodes: Vec<usize>,
    /// When it began.
    pub begins: Duration,
    /// When traffic could flow again, for all that the fault itself does: from then on an outage is i2plan's. None
    /// while it cannot.
    pub over: Option<Duration>,
    /// How long after its start the router's bridge accepted a session.
    pub bridge: Option<Duration>,
    /// How long a join took until the first echo.
    pub join: Option<Duration>,
    /// Why it could not be injected, or what of it failed.
    pub failure: Option<String>,
}

impl InjectedFault {
    fn concerns(&self, gap: &Gap) -> bool {
        self.nodes.contains(&gap.from) || self.nodes.contains(&gap.to)
    }

    /// Whether a gap that begins then can be owed to it.
    fn explains(&self, begins: Duration) -> bool {
        self.begins <= begins + ON_THE_WAY && self.over.is_none_or(|over| begins <= over + AFTERMATH)
    }
}

/// When a node's router was opening a session for it, from and to, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Openings(Vec<(Duration, Duration)>);

impl Openings {
    /// The router is opening one since a time, as was seen at another.
    pub fn handle_seen(&mut self, since: Duration, now: Duration) {
        match self.0.last_mut() {
            Some((_, to)) if *to >= since => *to = now,
            _ => self.0.push((since, now)),
        }
    }

    /// How much of a time the router of either node took.
    #[must_use]
    pub fn of_either(both: [&Self; 2], from: Duration, to: Duration) -> Duration {
        let mut openings = both.map(|one| &one.0[..]).concat();
        openings.sort_unstable();
        let (mut sum, mut counted) = (Duration::ZERO, from);
        for (begins, ends) in openings {
            let ends = ends.min(to);
            sum += ends.saturating_sub(begins.max(counted));
            counted = counted.max(ends);
        }
        sum
    }
}

/// To what a gap is attributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution<'a> {
    /// A fault of one of the two nodes.
    Fault(&'a InjectedFault),
    /// To none; but there was a fault of other nodes.
    Elsewhere(&'a InjectedFault),
    /// To none.
    None,
}

impl Attribution<'_> {
    /// How much of a gap the fault does not excuse: the part after it was over.
    #[must_use]
    pub fn unexcused(&self, gap: &Gap) -> Duration {
        match self {
            Self::Fault(fault) => {
                fault.over.map_or(Duration::ZERO, |over| gap.ends.saturating_sub(over.max(gap.begins)))
            }
            Self::Elsewhere(_) | Self::None => gap.length(),
        }
    }

    /// How much of that part the routers of the two nodes took to open sessions, if there was a fault of these nodes.
    #[must_use]
    pub fn by_routers(&self, gap: &Gap, openings: &[Openings]) -> Duration {
        let Self::Fault(_) = self else { return Duration::ZERO };
        let both = [gap.from, gap.to].map(|node| &openings[node]);
        Openings::of_either(both, gap.ends.saturating_sub(self.unexcused(gap)), gap.ends)
    }
}

/// Attributes a gap to the last fault before it whose effects may have lasted that long; rather to one of its own
/// nodes than to one of others.
#[must_use]
pub fn attribute<'a>(gap: &Gap, faults: &'a [InjectedFault]) -> Attribution<'a> {
    let explains = |fault: &&InjectedFault| fault.explains(gap.begins);
    let own = faults.iter().rev().filter(explains).find(|fault| fault.concerns(gap));
    match own {
        Some(fault) => Attribution::Fault(fault),
        None => faults.iter().rev().find(explains).map_or(Attribution::None, Attribution::Elsewhere),
    }
}

/// The median; zero of nothing.
#[must_use]
pub fn median<T: Copy + Ord + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Medians of the four quarters of a series, in its order; none if it is too short to have them.
#[must_use]
pub fn quarters(series: &[u64]) -> Option<[u64; 4]> {
    let size = series.len() / 4;
    (size > 0).then(|| std::array::from_fn(|quarter| median(series[quarter * size..][..size].to_vec())))
}

/// Whether it grows steadily: each quarter of the run has more than the one before, and the last one more than
/// the first by a quarter and by `least`.
#[must_use]
pub fn grows_steadily(quarters: [u64; 4], least: u64) -> bool {
    let [first, .., last] = quarters;
    let rises = quarters.windows(2).all(|pair| pair[0] < pair[1]);
    rises && last > first + first / 4 && last > first + least
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn gap(from: usize, to: usize, begins: u64, ends: u64) -> Gap {
        Gap { from, to, begins: at(begins), ends: at(ends), lost: 4 * (ends - begins) }
    }

    fn fault(cause: Cause, node: usize, begins: u64, over: Option<u64>) -> InjectedFault {
        InjectedFault {
            cause,
            nodes: vec![node],
            begins: at(begins),
            over: over.map(at),
            bridge: None,
            join: None,
            failure: None,
        }
    }

    #[test]
    fn an_outage_belongs_to_the_last_fault_of_its_nodes() {
        let faults = [
            fault(Cause::Restart("tund"), 0, 100, Some(100)),
            fault(Cause::RouterKill, 1, 150, Some(170)),
            fault(Cause::Kill("keyd"), 2, 190, Some(190)),
        ];
        // (from, to, begins, ends), and the fault by its number, whether it is one of other nodes, what it does not excuse.
        for ((from, to, begins, ends), expected, unexcused) in [
            ((0, 3, 100, 103), Some((0, false)), 3),
            // A probe that was on the way.
            ((3, 0, 99, 103), Some((0, false)), 3),
            // It began before anything was done.
            ((3, 0, 98, 103), None, 5),
            // The router's own start is excused.
            ((1, 0, 150, 172), Some((1, false)), 2),
            ((0, 1, 150, 165), Some((1, false)), 0),
            // Both have a fault that may be it: the later one.
            ((0, 1, 151, 180), Some((1, false)), 10),
            // The later one is not of its nodes.
            ((1, 3, 192, 193), Some((1, false)), 1),
            ((0, 3, 192, 193), Some((2, true)), 1),
            // Too long after the last.
            ((2, 0, 221, 240), None, 19),
        ] {
            let gap = gap(from, to, begins, ends);
            let attribution = attribute(&gap, &faults);
            let found = match attribution {
                Attribution::Fault(fault) => Some((fault, false)),
                Attribution::Elsewhere(fault) => Some((fault, true)),
                Attribution::None => None,
            };
            let expected = expected.map(|(fault, elsewhere): (usize, _)| (&faults[fault], elsewhere));
            assert_eq!(found, expected, "{gap:?}");
            assert_eq!(attribution.unexcused(&gap), at(unexcused), "{gap:?}");
        }
    }

    #[test]
    fn a_fault_that_lasts_excuses_all() {
        let faults = [fault(Cause::Sleep, 0, 100, None)];
        let gap = gap(0, 1, 100, 300);
        assert_eq!(attribute(&gap, &faults).unexcused(&gap), Duration::ZERO);
    }

    #[test]
    fn what_routers_take_is_counted_once() {
        let mut openings = [Openings::default(), Openings::default()];
        for (node, since, now) in [(0, 90, 100), (0, 100, 104), (1, 102, 110), (0, 106, 107), (1, 118, 130)] {
            openings[node].handle_seen(at(since), at(now));
        }
        assert_eq!(openings[0], Openings(vec![(at(90), at(104)), (at(106), at(107))]));
        let faults = [fault(Cause::Sleep, 0, 80, Some(95))];
        let gap = gap(0, 1, 82, 120);
        assert_eq!(attribute(&gap, &faults).by_routers(&gap, &openings), at(15 + 2));
        // Nothing was done to these nodes.
        assert_eq!(attribute(&gap, &[]).by_routers(&gap, &openings), at(0));
    }

    #[test]
    fn growth_is_steady_or_it_is_none() {
        let grows = |series: &[u64]| quarters(series).is_some_and(|quarters| grows_steadily(quarters, 10));
        assert!(grows(&[100, 100, 120, 120, 140, 140, 160, 160]));
        // Up and down again; by too little in all, and in relation.
        assert!(!grows(&[100, 100, 150, 150, 140, 140, 160, 160]));
        assert!(!grows(&[10, 10, 11, 11, 12, 12, 15, 15]));
        assert!(!grows(&[1000, 1010, 1020, 1030]));
        assert!(!grows(&[1, 2, 300]));
    }
}
