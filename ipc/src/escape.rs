//! Text from others, made fit for a terminal and for one line of a log.
//!
//! Names and reasons come from routers, peers, other processes and files. A terminal obeys what is in them, and some
//! characters reorder a line or hide in it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns whether a character could drive a terminal, end or reorder a line, or hide in it.
#[must_use]
pub fn is_unsafe(char: char) -> bool {
    // Line separators, bidirectional marks, and what Unicode has displayed as nothing (Default_Ignorable_Code_Point).
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Writes unsafe characters as Rust does: `\n`, `\u{1b}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        push(&mut escaped, char);
    }
    Cow::Owned(escaped)
}

/// As [`escape`], for bytes that should be UTF-8. Those that are not are written as `\xff`.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return escape(text);
    }
    let mut escaped = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            push(&mut escaped, char);
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    Cow::Owned(escaped)
}

/// Writes unsafe characters of a JSON text as `\u001b`. They can only stand in its strings, line ends excepted.
#[must_use]
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let must_go = |char| char != '\n' && is_unsafe(char);
    if !json.contains(must_go) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if must_go(char) {
            push_json(&mut escaped, char);
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

fn push(text: &mut String, char: char) {
    if is_unsafe(char) {
        text.extend(char.escape_default());
    } else {
        text.push(char);
    }
}

/// An escape sequence of RFC 8259, section 7.
pub(crate) fn push_json(text: &mut String, char: char) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        let _ = write!(text, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reply as a router could make it up: title, clipboard, colours by C0 and C1, a line of its own, marks.
    const EVIL: &str = "\u{1b}]0;x\u{7}\u{9b}31m\u{7f}a\r\nb\u{202e}\u{200b}\u{2028}\u{feff}\u{e0041}é🦀";

    #[test]
    fn unsafe_characters_are_escaped_and_others_kept() {
        assert_eq!(
            escape(EVIL),
            "\\u{1b}]0;x\\u{7}\\u{9b}31m\\u{7f}a\\r\\nb\\u{202e}\\u{200b}\\u{2028}\\u{feff}\\u{e0041}é🦀"
        );
        assert!(matches!(escape("Grüße, 東京 🦀"), Cow::Borrowed(_)));
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(escape_bytes(b"a\xff\x9b\x1b\xc3\xa9"), "a\\xff\\x9b\\u{1b}é");
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = serde_json::to_string_pretty(&[EVIL]).unwrap();
        let escaped = escape_json(&text);
        assert!(!escaped.contains(|char| char != '\n' && is_unsafe(char)), "{escaped}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [EVIL]);
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left(bytes in prop::collection::vec(any::<u8>(), 0..100), text in ".*") {
            prop_assert!(!escape_bytes(&bytes).contains(is_unsafe));
            prop_assert!(!escape(&text).contains(is_unsafe));
        }
    }
}
