//! A SAM control connection of `meshd`, fed with what a bridge may send.
//!
//! Some bytes that no line holds are orders: `LOOK_UP` and a number ask for the destination of that number, `SEND` sends
//! a datagram, `CUT` ends a piece of what is received. All others are received. A second passes with each.

use std::sync::LazyLock;
use std::time::Duration;

use i2plan_proto::destination::DestinationHash;
use i2plan_proto::sam::connection::{Connection, ConnectionError, Found, Received};
use i2plan_testing as testing;

use crate::{Seeds, seed};

const LOOK_UP: u8 = 0xff;
const CUT: u8 = 0xfe;
const SEND: u8 = 0xfd;

/// How many lookups may wait at once.
const MAX_LOOKUPS: usize = 64;

/// Runs the target.
pub fn run(input: &[u8]) {
    converse(input, Connection::default);
    converse(input, Connection::with_datagrams);
}

fn converse(input: &[u8], new: fn() -> Connection) {
    let mut rest = input;
    let (mut connection, mut pieced) = (new(), new());
    let (mut waiting, mut now) = (Vec::new(), Duration::ZERO);
    while !rest.is_empty() {
        now += Duration::from_secs(1);
        loop {
            let output = connection.poll_output(now);
            assert_eq!(output, pieced.poll_output(now));
            let Some(output) = output else { break };
            let line = output.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            let is_datagram = output.starts_with(b"DATAGRAM SEND");
            assert!(line.is_some_and(|len| len == output.len() || is_datagram), "one line at a time");
        }
        if let [SEND, after @ ..] = rest {
            rest = after;
            assert_eq!(connection.send("DEST", b"payload"), pieced.send("DEST", b"payload"));
            continue;
        }
        if let [LOOK_UP, number, after @ ..] = rest {
            rest = after;
            let hash = hash(*number);
            let taken = connection.look_up(hash);
            assert_eq!(taken, pieced.look_up(hash));
            assert_eq!(taken, waiting.contains(&hash) || waiting.len() < MAX_LOOKUPS);
            if taken && !waiting.contains(&hash) {
                waiting.push(hash);
            }
            continue;
        }
        let end = rest.iter().skip(1).position(|byte| matches!(*byte, LOOK_UP | SEND | CUT));
        let (piece, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = after;
        let piece = piece.strip_prefix(&[CUT]).unwrap_or(piece);

        // However the bytes are cut, they mean the same.
        let received = connection.receive(piece);
        assert_eq!(received, receive_pieced(&mut pieced, piece), "{:?}", String::from_utf8_lossy(piece));
        let Ok(found) = received else { return };
        for received in found {
            let Received::Found(Found { hash, destination }) = received else { continue };
            assert_eq!(waiting.remove(0), hash, "lookups are answered in their order");
            if let Ok(destination) = destination {
                assert_eq!(destination.hash(), hash, "a router passed off another destination");
            }
        }
    }
}

/// Of the destination with this number; made once, because a sanitizer makes it slow.
fn hash(number: u8) -> DestinationHash {
    static MADE: LazyLock<Vec<DestinationHash>> =
        LazyLock::new(|| (0..=u8::MAX).map(|number| testing::destination(number).hash()).collect());
    MADE[usize::from(number)]
}

fn receive_pieced(connection: &mut Connection, piece: &[u8]) -> Result<Vec<Received>, ConnectionError> {
    let mut found = Vec::new();
    for part in piece.chunks(7) {
        found.extend(connection.receive(part)?);
    }
    Ok(found)
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let reply = |number: u8, of: u8| {
        let (name, value) = (testing::destination(number).hash().b32(), testing::destination(of).to_base64());
        format!("NAMING REPLY RESULT=OK NAME={name} VALUE={value}\n").into_bytes()
    };
    let many: Vec<u8> = (0..=MAX_LOOKUPS).flat_map(|number| [LOOK_UP, number as u8]).collect();
    let own = b"NAMING REPLY RESULT=OK NAME=ME VALUE=AAAA\n".as_slice();
    let datagram = b"DATAGRAM RECEIVED DESTINATION=AAAA SIZE=4\na\nb\n".as_slice();
    let long = [b"PING ".as_slice(), &[b'x'; 5000], b"\n"].concat();
    vec![
        seed("greeting", b"HELLO REPLY RESULT=OK VERSION=3.3\n".as_slice()),
        seed("ping-cut", b"PING 1\xfe 2\n\xfePING\n".as_slice()),
        seed("look-up", [&[LOOK_UP, 2], reply(2, 2).as_slice()].concat()),
        seed("look-up-two", [&[LOOK_UP, 2, LOOK_UP, 3], &reply(2, 2)[..], &reply(3, 3)].concat()),
        seed("look-up-other", [&[LOOK_UP, 2], reply(2, 3).as_slice()].concat()),
        seed("look-up-unasked", [&[LOOK_UP, 2], reply(3, 3).as_slice()].concat()),
        seed("look-up-many", many),
        seed(
            "datagram-sent",
            [&[SEND, SEND, CUT], own, &[CUT], own, &[LOOK_UP, 2, CUT], &reply(2, 2)[..]].concat(),
        ),
        seed("datagram-received", [datagram, &[LOOK_UP, 2, CUT], &reply(2, 2)[..], datagram].concat()),
        seed("datagram-long", b"DATAGRAM RECEIVED DESTINATION=AAAA SIZE=99999999\n".as_slice()),
        seed("ended", b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"x y\"\n".as_slice()),
        seed("long", long),
    ]
}
