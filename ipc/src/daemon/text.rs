//! Text for the log: of one line, bounded, and with nothing in it that drives a terminal.

use std::fmt;

use crate::escape::is_unsafe;

/// A message and its fields as one line, up to a length.
pub(super) struct Text {
    text: String,
    most: usize,
}

impl Text {
    pub(super) fn new(most: usize) -> Self {
        Self { text: String::new(), most }
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let escaped = is_unsafe(char).then(|| char.escape_default());
            let len = escaped.as_ref().map_or(char.len_utf8(), ExactSizeIterator::len);
            if self.text.len() + len > self.most {
                return Err(fmt::Error);
            }
            match escaped {
                Some(escaped) => self.text.extend(escaped),
                None => self.text.push(char),
            }
        }
        Ok(())
    }
}
