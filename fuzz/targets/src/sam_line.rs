//! One line from a SAM bridge, as `meshd` reads it, and as `keyd` does when it has greeted and when it has asked for a
//! session.

use i2plan_proto::sam::line::{Line, pong};
use i2plan_proto::sam::session::{read_answer, read_greeting};
use i2plan_testing as testing;

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    // A line has no end in it: that is what made it a line.
    let line = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match Line::parse(line) {
        Err(error) => assert!(!error.to_string().contains('\n')),
        Ok(Line::Ping(text)) => {
            let answer = pong(&text);
            assert_eq!(answer.find('\n'), Some(answer.len() - 1), "an answer is one line");
        }
        Ok(Line::Naming { name, destination: Ok(value) }) => {
            let (a, b) = (escaped(&name), escaped(&value));
            let line = format!("NAMING REPLY RESULT=OK NAME=\"{a}\" VALUE=\"{b}\"");
            assert_eq!(Line::parse(line.as_bytes()), Ok(Line::Naming { name, destination: Ok(value) }));
        }
        Ok(_) => {}
    }
    if let Ok(version) = read_greeting(line) {
        let line = format!("HELLO REPLY RESULT=OK VERSION={version}");
        assert_eq!(read_greeting(line.as_bytes()), Ok(version));
    }
    match read_answer(line) {
        Ok(()) => assert!(line.starts_with(b"SESSION STATUS ")),
        Err(error) => {
            // A bridge repeats the destination's private key, of which nothing may be passed on.
            let message = format!("{error:?}");
            let longest = message.split(|char: char| !char.is_ascii_alphanumeric()).map(str::len).max();
            assert!(longest < Some(12), "{message} may repeat a part of the answer");
        }
    }
}

/// As a bridge would quote it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let found = testing::destination(2);
    let (name, value) = (found.hash().b32(), found.to_base64());
    vec![
        seed("hello", "HELLO REPLY RESULT=OK VERSION=3.3"),
        seed("hello-refused", "HELLO REPLY RESULT=NOVERSION MESSAGE=\"too \\\"old\\\"\""),
        seed("naming", format!("NAMING REPLY RESULT=OK NAME={name} VALUE={value}\r")),
        seed("naming-unknown", format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME={name}")),
        seed("status", "SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"no tunnels\""),
        seed("opened", format!("SESSION STATUS RESULT=OK DESTINATION={value}")),
        seed("not-opened", format!("SESSION STATUS RESULT=DUPLICATED_DEST MESSAGE={value}")),
        seed("no-answer", format!("SESSION STATUS RESULT={value}")),
        seed("ping", "PING 17 x"),
        seed("other", "STREAM STATUS RESULT=OK"),
    ]
}
