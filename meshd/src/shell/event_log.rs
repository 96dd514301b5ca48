//! The event log: one for all clients that follow the node, each of which reads on from a cursor of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use i2plan_ipc::api::meshd::{Cursor, EVENTS_KEPT, Event, EventKind, Events, MAX_EVENT_WAIT};
use i2plan_ipc::daemon::logging::Line;
use i2plan_ipc::rate::{Bucket, Quota};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long an answer waits for more to come after the first: readers of a storm get it in few answers.
const GATHER: Duration = Duration::from_millis(50);

/// Lines of the log that go into the event log: 20 a second, 200 at once. What else happens keeps its room.
const LINES: Quota = Quota::new(20, 200);

/// The last events of this run of `meshd`.
#[derive(Debug)]
pub struct EventLog {
    run: u64,
    started: Instant,
    retained: Mutex<Retained>,
    /// Events so far.
    length: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Retained {
    events: VecDeque<Event>,
    lines: Bucket,
    lines_left_out: u64,
    /// How often each kind of event happened, by its name.
    counts: BTreeMap<&'static str, u64>,
}

impl EventLog {
    /// The log of the run that this number names. It must not have been that of another run lately.
    #[must_use]
    pub fn new(run: u64) -> Self {
        Self { run, started: Instant::now(), retained: Mutex::default(), length: watch::Sender::new(0) }
    }

    /// Something has happened, now.
    pub fn push(&self, kind: EventKind) {
        self.push_to(&mut self.retained(), kind);
    }

    /// A line was logged.
    pub fn push_line(&self, line: Line) {
        let mut retained = self.retained();
        if !retained.lines.try_take(LINES, self.started.elapsed()) {
            retained.lines_left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut retained.lines_left_out);
        if left_out > 0 {
            let message = format!("{left_out} lines of the log are left out here");
            let target = line.target.clone();
            self.push_to(&mut retained, EventKind::Log { level: "warn".to_owned(), target, message });
        }
        let Line { level, target, message } = line;
        self.push_to(&mut retained, EventKind::Log { level: level.to_owned(), target, message });
    }

    /// How often each kind of event happened, by its name.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, u64)> {
        self.retained().counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn push_to(&self, retained: &mut Retained, kind: EventKind) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        *retained.counts.entry(kind.name()).or_default() += 1;
        if retained.events.len() >= EVENTS_KEPT {
            retained.events.pop_front();
        }
        self.length.send_modify(|length| {
            retained.events.push_back(Event { number: *length, at, kind });
            *length += 1;
        });
    }

    /// What happened after a cursor, or after now. If that is nothing yet, waits until something has, at most `wait`.
    pub(super) async fn read(&self, after: Option<Cursor>, wait: Duration) -> Events {
        let mut length = self.length.subscribe();
        let after = after.unwrap_or_else(|| Cursor { run: self.run, number: *length.borrow() });
        let events = self.after(after);
        if wait.is_zero() || events.lost || !events.events.is_empty() {
            return events;
        }
        let end = Instant::now() + wait.min(Duration::from_millis(MAX_EVENT_WAIT));
        if timeout_at(end, length.wait_for(|length| *length > after.number)).await.is_ok() {
            sleep_until(end.min(Instant::now() + GATHER)).await;
        }
        self.after(after)
    }

    fn after(&self, after: Cursor) -> Events {
        let retained = self.retained();
        let end = *self.length.borrow();
        let first = retained.events.front().map_or(end, |event| event.number);
        let lost = after.run != self.run || !(first..=end).contains(&after.number);
        let from = if lost { first } else { after.number };
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        Events {
            events: retained.events.iter().skip(skip).cloned().collect(),
            next: Cursor { run: self.run, number: end },
            lost,
            traffic: None,
        }
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn epoch(number: u32) -> EventKind {
        EventKind::KeyRotated { epoch: number }
    }

    fn cursor(number: u64) -> Option<Cursor> {
        Some(Cursor { run: 7, number })
    }

    fn numbers(events: &Events) -> Vec<u64> {
        events.events.iter().map(|event| event.number).collect()
    }

    fn line(number: u32) -> Line {
        Line { level: "info", target: "test".to_owned(), message: format!("line {number}") }
    }

    #[tokio::test(start_paused = true)]
    async fn each_reader_has_a_cursor_of_its_own() {
        let log = EventLog::new(7);
        log.push(epoch(0));
        let begin = log.read(None, Duration::ZERO).await;
        assert_eq!((numbers(&begin), begin.next, begin.lost), (vec![], cursor(1).unwrap(), false));
        log.push(epoch(1));
        log.push(epoch(2));
        let wait = Duration::from_secs(5);
        assert_eq!(numbers(&log.read(cursor(1), wait).await), [1, 2]);
        assert_eq!(numbers(&log.read(cursor(2), wait).await), [2]);
        assert_eq!(numbers(&log.read(cursor(0), wait).await), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_no_longer_than_it_wants() {
        let log = EventLog::new(7);
        for (wait, waited) in [(0, 0), (1500, 1500), (u64::MAX, MAX_EVENT_WAIT)] {
            let began = Instant::now();
            let events = log.read(cursor(0), Duration::from_millis(wait)).await;
            assert_eq!((numbers(&events), events.lost), (vec![], false));
            assert_eq!(began.elapsed(), Duration::from_millis(waited));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_are_told_together_and_of_a_storm_at_once() {
        let log = Arc::new(EventLog::new(7));
        let wait = Duration::from_secs(30);
        let reader = |after| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.read(after, wait).await })
        };
        let readers: Vec<_> = [None, cursor(0), None].into_iter().map(reader).collect();
        tokio::task::yield_now().await;
        for number in 0..1000 {
            log.push(epoch(number));
            if number % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        for reader in readers {
            let events = reader.await.unwrap();
            assert_eq!((events.events.len(), events.next.number, events.lost), (1000, 1000, false));
        }
    }

    #[tokio::test]
    async fn who_comes_too_late_or_from_another_run_is_told_so() {
        let log = EventLog::new(7);
        for number in 0..=1024 {
            log.push(epoch(number));
        }
        let wait = Duration::from_secs(30);
        let kept: Vec<u64> = (1..=1024).collect();
        let all = log.read(cursor(1), wait).await;
        assert_eq!((numbers(&all), all.lost), (kept.clone(), false));
        for after in [cursor(0), cursor(1026), Some(Cursor { run: 6, number: 1 })] {
            let events = log.read(after, wait).await;
            assert_eq!((numbers(&events), events.lost), (kept.clone(), true));
            assert_eq!(events.next, cursor(1025).unwrap());
        }
        let other = EventLog::new(8).read(cursor(0), wait).await;
        assert_eq!((other.events.len(), other.next, other.lost), (0, Cursor { run: 8, number: 0 }, true));
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_leaves_room_for_the_rest_and_says_what_is_left_out() {
        let log = EventLog::new(7);
        (0..1000).for_each(|number| log.push_line(line(number)));
        assert_eq!(log.read(cursor(0), Duration::ZERO).await.events.len(), 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
        log.push_line(line(1000));
        let events = log.read(cursor(200), Duration::ZERO).await;
        let messages: Vec<_> = events
            .events
            .iter()
            .map(|event| match &event.kind {
                EventKind::Log { message, .. } => message.as_str(),
                _ => panic!("not a line"),
            })
            .collect();
        assert_eq!(messages, ["800 lines of the log are left out here", "line 1000"]);
    }
}
