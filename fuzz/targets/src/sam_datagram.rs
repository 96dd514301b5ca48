//! A datagram that a SAM bridge forwards to `meshd`.

use i2plan_proto::destination::base64;
use i2plan_proto::sam::datagram::{self, Received};
use i2plan_testing as testing;

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    if let Ok(Received { from, payload }) = datagram::decode(input) {
        // The sender is who the line says and nobody else, and the payload is all that follows.
        let line = &input[..input.len() - payload.len()];
        assert_eq!(line.last(), Some(&b'\n'));
        assert!(line.starts_with(from.to_base64().as_bytes()));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
    // A sender of any make likewise, and no other one than of i2plan's.
    let any = datagram::decode_any(input).ok();
    if let Some(Received { from, payload }) = &any {
        let line = &input[..input.len() - payload.len()];
        assert!(line.starts_with(from.to_base64().as_bytes()) && line.ends_with(b"\n"));
    }
    if let Ok(Received { from, payload }) = datagram::decode(input) {
        assert_eq!(any, Some(Received { from: from.into(), payload }));
    }
    // Whatever somebody sends, the receiver gets it whole and with the right sender.
    let from = testing::destination(3);
    let forwarded = [from.to_base64().as_bytes(), b" FROM_PORT=1 TO_PORT=2\n", input].concat();
    assert_eq!(datagram::decode(&forwarded), Ok(Received { from, payload: input }));
    let sent = datagram::encode("i2plan-1", &from, input);
    assert!(sent.ends_with(input));
    assert_eq!(sent.iter().position(|byte| *byte == b'\n'), Some(sent.len() - input.len() - 1));
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let sender = testing::destination(2).to_base64();
    vec![
        seed("plain", format!("{sender}\npayload")),
        seed("ports", format!("{sender} FROM_PORT=0 TO_PORT=0\npayload\nwith lines")),
        seed("other-make", format!("{}\npayload", base64().encode(&[&[7; 384][..], &[0, 0, 0]].concat()))),
        seed("empty", format!("{sender}\n")),
        seed("no-end", sender),
        seed("no-destination", "AAAA\npayload"),
    ]
}
