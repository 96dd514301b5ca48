//! Questions before what cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _};

use i2plan_present::text::clean;

use crate::failure::Failure;
use crate::output;

/// Whether a person can be asked, or has answered in advance.
///
/// # Errors
/// If there is nobody to ask.
pub fn can_ask(yes: bool) -> Result<(), Failure> {
    if yes || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage("this cannot be undone, and there is no terminal to ask on")
        .with_hint("say --yes if it is meant"))
}

/// Has a person type `word` before something that cannot be undone. `yes` is that person's word in advance.
///
/// # Errors
/// If it was not typed, or there is nobody to type it.
pub fn confirm(consequences: &str, word: &str, yes: bool) -> Result<(), Failure> {
    can_ask(yes)?;
    if yes {
        return Ok(());
    }
    output::note(consequences);
    output::note(&format!("type {} to go on:", clean(word)));
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::internal(format!("cannot read the answer: {error}")))?;
    if line.trim() == word {
        return Ok(());
    }
    Err(Failure::invalid("nothing was done: that was something else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_yes_must_be_said() {
        assert_eq!(confirm("all is lost", "word", true), Ok(()));
    }
}
