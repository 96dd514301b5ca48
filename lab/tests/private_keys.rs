//! What a router repeats of a destination's private keys on the connection on which it was told them.
//!
//! `keyd` reads the answer to `SESSION CREATE` before `meshd` gets the connection. Nothing that `meshd` can say there may
//! have the router repeat the keys.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;

use i2plan_keyd::keys::Keys;
use i2plan_proto::destination::{DESTINATION_LEN, base64};
use lab::i2p::sam::{Session, Style};
use lab::node::Lab;
use lab::testing::sandboxed;
use zeroize::Zeroizing;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// What could have it repeat them.
const LINES: [&str; 16] = [
    "PING 1\n",
    "HELP\n",
    "HELLO VERSION MIN=3.0 MAX=3.3\n",
    "NAMING LOOKUP NAME=ME\n",
    "NAMING LOOKUP NAME=ME OPTIONS=true\n",
    "DEST GENERATE\n",
    "DEST GENERATE SIGNATURE_TYPE=7\n",
    "DEST LOOKUP NAME=ME\n",
    "SESSION STATUS\n",
    "SESSION CREATE STYLE=RAW ID=another DESTINATION=TRANSIENT PORT=9 HOST=127.0.0.1\n",
    "SESSION CREATE STYLE=RAW ID=another DESTINATION=ME PORT=9 HOST=127.0.0.1\n",
    "SESSION ADD STYLE=RAW ID=another PORT=9 HOST=127.0.0.1\n",
    "SESSION REMOVE ID=another\n",
    "STREAM CONNECT ID=another DESTINATION=ME SILENT=false\n",
    "STREAM ACCEPT ID=another SILENT=false\n",
    "QUIT\n",
];

/// Pieces of a text that are long enough to be no chance and not the zeros of a field that is not used.
fn pieces(secret: &[u8]) -> BTreeSet<&[u8]> {
    secret.windows(16).filter(|piece| piece.iter().collect::<BTreeSet<_>>().len() > 6).collect()
}

fn repeats(answer: &[u8], secret: &BTreeSet<&[u8]>) -> bool {
    answer.windows(16).any(|piece| secret.contains(piece))
}

#[test]
fn no_command_has_a_router_repeat_the_private_keys_of_a_session() {
    sandboxed(LAB, "no_command_has_a_router_repeat_the_private_keys_of_a_session", async || {
        let mut lab = Lab::start().await?;
        // A router of emissary's own, and the node's own.
        lab.add_node().await?;
        lab.add_node_with_routerd(true).await?;
        lab.ready().await?;
        for node in &lab.nodes {
            for style in [Style::Raw, Style::Datagram] {
                for line in LINES {
                    // As keyd makes them, and a connection for each: some commands end it.
                    let random = Zeroizing::new(rand::random());
                    let key = Keys::generate(&random, 1).control().private_key();
                    let mut session = Session::open_within(&node.name, style, &key).await?;
                    assert_eq!(session.private_key, *key, "the answer to SESSION CREATE does repeat them");
                    let bytes = base64().decode(key.as_bytes()).unwrap();
                    // Encoded from each of the three places that a symbol can begin at, and as it is.
                    let encoded: Vec<_> =
                        (0..3).map(|at| base64().encode(&bytes[DESTINATION_LEN + at..])).collect();
                    let secret = pieces(&bytes[DESTINATION_LEN..]);
                    let secrets = encoded.iter().map(|text| pieces(text.as_bytes())).chain([secret]);
                    let answer = session.say(line).await;
                    println!("{} {style:?} {line:?}: {} bytes", node.name, answer.len());
                    for secret in secrets {
                        assert!(!secret.is_empty());
                        assert!(!repeats(&answer, &secret), "{} {style:?} repeats it at {line:?}", node.name);
                    }
                }
            }
        }
        lab.stop().await
    });
}
