//! An invite code, as a user may type it.

use i2plan_proto::invite::{Invite, SCHEME};
use i2plan_testing as testing;

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match text.parse::<Invite>() {
        Ok(invite) => {
            let is_code = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            let kept: String = text.chars().filter(is_code).collect();
            assert!(kept.contains(&invite.to_code()[SCHEME.len()..]), "an invite has one code");
        }
        Err(error) => {
            // The code is a secret, of which no message may repeat anything.
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "{message:?}");
            let longest = message.split(|char: char| !char.is_ascii_alphanumeric()).map(str::len).max();
            assert!(longest < Some(12), "{message} may repeat a part of the code");
        }
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let code = testing::invite(1).to_code();
    let later = code.replacen("i2plan://Ag", "i2plan://Aw", 1);
    vec![
        seed("code", code.as_str()),
        seed("white-space", format!(" \t{}\r\n", code.as_str())),
        seed("wrapped", format!("Invite: <{}\n> {}>\n", &code[..76], &code[76..])),
        seed("truncated", &code[..100]),
        seed("damaged", code.replace('A', "B")),
        seed("later", later),
        seed("earlier", code.replacen("i2plan://Ag", "i2plan://AQ", 1)),
        seed("scheme", SCHEME),
        seed("other", "https://example.org"),
    ]
}
