//! A SAM control connection of `meshd`, fed with what a bridge may send.
//!
//! Some bytes that no line holds are orders: `LOOK_UP` and a number ask for the destination of that number,
//! `CUT` ends a piece of what is received. All others are received.

use std::sync::LazyLock;

use i2plan_proto::destination::DestinationHash;
use i2plan_proto::sam::connection::{Connection, ConnectionError, Found};
use i2plan_testing as testing;

use crate::{Seeds, seed};

const LOOK_UP: u8 = 0xff;
const CUT: u8 = 0xfe;

/// How many lookups may wait at once.
const MAX_LOOKUPS: usize = 64;

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut rest = input;
    let (mut connection, mut pieced) = (Connection::default(), Connection::default());
    let mut waiting = Vec::new();
    while !rest.is_empty() {
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
        let end = rest.iter().skip(1).position(|byte| matches!(*byte, LOOK_UP | CUT));
        let (piece, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = after;
        let piece = piece.strip_prefix(&[CUT]).unwrap_or(piece);

        // However the bytes are cut, they mean the same.
        let received = connection.receive(piece);
        assert_eq!(received, receive_pieced(&mut pieced, piece), "{:?}", String::from_utf8_lossy(piece));
        let Ok(found) = received else { return };
        for Found { hash, destination } in found {
            assert_eq!(waiting.remove(0), hash, "lookups are answered in their order");
            if let Ok(destination) = destination {
                assert_eq!(destination.hash(), hash, "a router passed off another destination");
            }
        }
        loop {
            let line = connection.poll_output();
            assert_eq!(line, pieced.poll_output());
            let Some(line) = line else { break };
            assert_eq!(line.find('\n'), Some(line.len() - 1), "one line at a time");
        }
    }
}

/// Of the destination with this number; made once, because a sanitizer makes it slow.
fn hash(number: u8) -> DestinationHash {
    static MADE: LazyLock<Vec<DestinationHash>> =
        LazyLock::new(|| (0..=u8::MAX).map(|number| testing::destination(number).hash()).collect());
    MADE[usize::from(number)]
}

fn receive_pieced(connection: &mut Connection, piece: &[u8]) -> Result<Vec<Found>, ConnectionError> {
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
    let long = [b"PING ".as_slice(), &[b'x'; 5000], b"\n"].concat();
    vec![
        seed("greeting", b"HELLO REPLY RESULT=OK VERSION=3.3\n".as_slice()),
        seed("ping-cut", b"PING 1\xfe 2\n\xfePING\n".as_slice()),
        seed("look-up", [&[LOOK_UP, 2], reply(2, 2).as_slice()].concat()),
        seed("look-up-two", [&[LOOK_UP, 2, LOOK_UP, 3], &reply(2, 2)[..], &reply(3, 3)].concat()),
        seed("look-up-other", [&[LOOK_UP, 2], reply(2, 3).as_slice()].concat()),
        seed("look-up-unasked", [&[LOOK_UP, 2], reply(3, 3).as_slice()].concat()),
        seed("look-up-many", many),
        seed("ended", b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"x y\"\n".as_slice()),
        seed("long", long),
    ]
}
