//! `i2planctl events`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::meshd::{Cursor, Event, EventKind, PollEvents};
use i2plan_ipc::node::Notice;
use i2plan_ipc::version::utc;
use i2plan_present::event::describe;
use i2plan_present::text::clean;
use serde::Serialize;

use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::values::parse_since;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Tells what happens from now on until Ctrl-C, also while the node does not answer, and says so when it has missed \
something. With --since it tells what has happened, and ends, unless --follow is given too. The node remembers its last \
1024 events, since meshd was started. With --json each event is one line.

Examples:
  i2planctl events
  i2planctl events --since 10m --log
  i2planctl events --since 10m --follow
  i2planctl events --json | jq --unbuffered 'select(.event == \"member_life\")'";

/// `i2planctl events`
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Tell what has happened in this time, as far as the node remembers it: 90s, 30m, 24h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    pub since: Option<Duration>,

    /// After that, go on with what happens; without --since that is done anyway
    #[arg(short, long)]
    pub follow: bool,

    /// Stop after so many events
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,

    /// Tell the lines of meshd's log too
    #[arg(long)]
    pub log: bool,
}

/// What is told of the stream itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum OfTheStream<'a> {
    /// Something happened that is not told: what is known of the node is to be asked for anew.
    EventsMissed,
    /// The node does not answer any more.
    NodeLost { error: &'a str },
    /// It answers again. What happened in between is not told.
    NodeBack,
}

/// Streams the events of the node, until the user or the reader wants no more.
///
/// # Errors
/// If the node is not there in the beginning.
pub async fn run(socket: Option<&Path>, json: bool, args: &EventsArgs) -> Result<(), Failure> {
    if let Some(since) = args.since.filter(|_| !args.follow) {
        return tell_past(socket, json, args, since).await;
    }
    let mut interrupt = std::pin::pin!(output::interrupt()?);
    // A node that is not there is an error now, and waited for later.
    let mut stream = tokio::select! {
        node = daemon::connect(socket) => node?.events(),
        () = &mut interrupt => return Ok(()),
    };
    let begin = match args.since {
        None => 0,
        Some(since) => {
            stream = stream.with_past();
            now().saturating_sub(since).as_millis()
        }
    };
    let mut unread = std::pin::pin!(output::reader_leaves());
    let (mut begun, mut away, mut told) = (false, false, 0);
    while args.count.is_none_or(|count| told < count) && !output::reader_is_gone() {
        let notice = tokio::select! {
            notice = stream.next() => notice,
            () = &mut interrupt => break,
            () = &mut unread => break,
        };
        match notice {
            Notice::Event(event) if is_log(&event) && !args.log => {}
            Notice::Event(event) if u128::from(event.at) < begin => {}
            Notice::Event(event) => {
                told += 1;
                tell(json, &event, &in_a_line(&event))?;
            }
            // It begins.
            Notice::Resync if !std::mem::replace(&mut begun, true) && !away => {}
            Notice::Resync if std::mem::take(&mut away) => {
                let line = "the node answers again; what happened in between is not told\n";
                of_the_stream(json, &OfTheStream::NodeBack, line)?;
            }
            Notice::Resync => {
                let line = "events were missed: too many happened at once\n";
                of_the_stream(json, &OfTheStream::EventsMissed, line)?;
            }
            Notice::Lost(error) => {
                away = true;
                let line = format!("the node does not answer: {}; waiting for it\n", clean(&error));
                of_the_stream(json, &OfTheStream::NodeLost { error: &error }, &line)?;
            }
            // It was not asked for.
            Notice::Traffic(_) => {}
        }
    }
    Ok(())
}

/// Tells what has happened in the last `since`, and no more.
async fn tell_past(
    socket: Option<&Path>,
    json: bool,
    args: &EventsArgs,
    since: Duration,
) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let begin = now().saturating_sub(since).as_millis();
    // A cursor of no run stands before all that is there.
    let poll = PollEvents { after: Some(Cursor { run: 0, number: 0 }), wait: 0, traffic: false };
    let events = node.call(poll).await?.events.into_iter();
    let wanted = events.filter(|event| u128::from(event.at) >= begin && (args.log || !is_log(event)));
    let count = args.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    for event in wanted.take(count) {
        tell(json, &event, &in_a_line(&event))?;
    }
    Ok(())
}

fn in_a_line(event: &Event) -> String {
    format!("{}  {}\n", utc(event.at / 1000), clean(&describe(&event.kind)))
}

fn tell(json: bool, value: &impl Serialize, line: &str) -> Result<(), Failure> {
    if json { output::json::print_line(value) } else { output::print(line) }
}

/// With the time, which events of the node bring themselves.
fn of_the_stream(json: bool, what: &OfTheStream<'_>, line: &str) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Timed<'a> {
        at: u64,
        #[serde(flatten)]
        what: &'a OfTheStream<'a>,
    }
    let now = now();
    let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    tell(json, &Timed { at, what }, &format!("{}  {line}", utc(now.as_secs())))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn is_log(event: &Event) -> bool {
    matches!(event.kind, EventKind::Log { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_the_stream_has_the_form_of_an_event() {
        let json = serde_json::to_value(OfTheStream::NodeLost { error: "gone" }).unwrap();
        assert_eq!(json, serde_json::json!({ "event": "node_lost", "error": "gone" }));
    }
}
