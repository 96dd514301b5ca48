//! Text of others made fit for a line, and lines made fit for a width.

use std::borrow::Cow;

use i2plan_ipc::escape::is_unsafe;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Most characters of one text of others.
const MAX_TEXT: usize = 2000;

/// What stands in the place of a character that is not shown.
const REPLACEMENT: &str = "\u{fffd}";

/// The text without what would drive a terminal, reorder its line or hide in it, and cut if it is long: names and
/// reasons come from other programs and other people's nodes.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    let cut = text.char_indices().nth(MAX_TEXT).map(|(at, _)| format!("{}…", &text[..at]));
    match cut {
        None => without(text, is_unsafe),
        Some(cut) => Cow::Owned(without(&cut, is_unsafe).into_owned()),
    }
}

/// The same of several lines, whose number and length are known.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    without(text, |char| char != '\n' && is_unsafe(char))
}

fn without(text: &str, must_go: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.contains(&must_go) {
        Cow::Owned(text.replace(&must_go, REPLACEMENT))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text, cut with an ellipsis if it takes more than `width` columns of a terminal.
#[must_use]
pub fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let mut out = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// The text in lines of at most `width` columns, broken between words where that is possible.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for mut word in text.split(' ') {
        let gap = usize::from(!line.is_empty());
        if line.width() + gap + word.width() <= width {
            if gap > 0 {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        while word.width() > width {
            let mut used = 0;
            let end = word.char_indices().find(|(_, c)| {
                used += c.width().unwrap_or(0);
                used > width
            });
            // Characters that are together narrower than each for itself.
            let Some((end, _)) = end.filter(|(end, _)| *end > 0) else { break };
            lines.push(word[..end].to_owned());
            word = &word[end..];
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// Fewer columns than these are not worth to be broken to: the terminal does it.
const NARROW: usize = 20;

/// The text broken between words where it would pass `width` columns, if that is limited. It begins at column `indent`,
/// and so do its other lines. Words stay whole, so that keys and addresses can be copied.
#[must_use]
pub fn hang(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(room) = width.and_then(|width| width.checked_sub(indent)).filter(|room| *room >= NARROW) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(text.len());
    let mut used = 0;
    for (number, word) in text.split(' ').enumerate() {
        let wide = word.width();
        if used > 0 && used + 1 + wide > room {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            used = 0;
        } else if number > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += wide;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_of_others_drives_the_terminal_or_fills_it() {
        let evil = "\x1b]0;x\x07\u{9b}2J\u{7f}\u{202e}\u{200b}\u{feff}\n";
        assert_eq!(clean(evil), "\u{fffd}]0;x\u{fffd}\u{fffd}2J".to_owned() + &REPLACEMENT.repeat(5));
        assert_eq!(lines("a\x1b[2J\n\u{200e}b\n"), "a\u{fffd}[2J\n\u{fffd}b\n");
        let long = clean(&"é".repeat(5000)).into_owned();
        assert_eq!((long.chars().count(), long.chars().last()), (MAX_TEXT + 1, Some('…')));
        assert!(matches!(clean("東京 🦀"), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("東京都", 4), ["東京", "都"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn a_long_text_hangs_below_its_beginning() {
        let text = "one two three four five six";
        assert_eq!(hang(text, 4, Some(24)), "one two three four\n    five six");
        assert_eq!(hang(text, 4, None), text);
        assert_eq!(hang(text, 4, Some(23)), text, "too narrow");
        let key = "k".repeat(44);
        assert_eq!(hang(&format!("key {key} a  b"), 2, Some(30)), format!("key\n  {key}\n  a  b"));
    }

    proptest! {
        #[test]
        fn a_broken_text_has_the_same_words(text in "[a-z ]{0,80}", indent in 0usize..10, width in 0usize..60) {
            let broken = hang(&text, indent, Some(width));
            prop_assert!(broken.split_whitespace().eq(text.split_whitespace()));
        }

        #[test]
        fn no_line_is_wider_than_allowed(text in "\\PC{0,60}", width in 2usize..40) {
            for line in wrap(&text, width) {
                prop_assert!(line.width() <= width || line.chars().count() == 1, "{:?}", line);
            }
        }
    }
}
