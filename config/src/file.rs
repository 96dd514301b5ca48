//! The file: TOML, of which every key and value is known by its line.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::static_interface::sections;

/// One key that the file sets.
#[derive(Debug)]
pub(super) struct FileEntry {
    /// As it stands there, with its section: it need not exist.
    pub(super) name: String,
    /// Where it stands, from 1.
    pub(super) line: usize,
    /// Its value as it would stand in the environment, or why no key can have it.
    pub(super) value: Result<String, String>,
    /// It is a section in which nothing is set.
    pub(super) is_empty_section: bool,
}

/// What a file sets, in the order of its lines. What describes an interface with static peers is passed over.
///
/// # Errors
/// The line of what is no TOML, and why it is not.
pub(super) fn entries(text: &str) -> Result<Vec<FileEntry>, (usize, String)> {
    let line = |at| line_at(text, at);
    let table = DeTable::parse(text).map_err(|error| no_toml(text, &error))?;
    let mut entries = Vec::new();
    for (section, value) in table.get_ref() {
        if sections::is_section(section.get_ref(), value.get_ref()) {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(keys) if !keys.is_empty() => {
                for (key, value) in keys {
                    let name = format!("{}.{}", section.get_ref(), key.get_ref());
                    entries.push(FileEntry {
                        name,
                        line: line(key.span().start),
                        value: text_of(value),
                        is_empty_section: false,
                    });
                }
            }
            _ => {
                let (name, line) = (section.get_ref().to_string(), line(section.span().start));
                let is_empty_section = matches!(value.get_ref(), DeValue::Table(_));
                entries.push(FileEntry { name, line, value: text_of(value), is_empty_section });
            }
        }
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// The line of what is no TOML, and why it is not.
pub(super) fn no_toml(text: &str, error: &toml::de::Error) -> (usize, String) {
    let span = error.span().unwrap_or_default();
    let line = line_at(text, span.start);
    match (error.message(), text.get(span)) {
        // The parser leaves out which.
        ("duplicate key", Some(word)) if !word.is_empty() => {
            (line, format!("{word} is there twice: put what belongs together in one place"))
        }
        (message, _) => (line, message.to_owned()),
    }
}

/// The line of a place in a text, from 1.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

/// Where the value of a key stands in a file.
pub(super) fn value_of(text: &str, section: &str, name: &str) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let DeValue::Table(keys) = table.get_ref().get(section)?.get_ref() else { return None };
    keys.get(name).map(Spanned::span)
}

/// A value as it would stand in the environment.
pub(super) fn text_of(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    const EXPECTED: &str = "text, a whole number, or true or false is expected";
    let found = match value.get_ref() {
        DeValue::String(text) => return Ok(text.to_string()),
        DeValue::Boolean(choice) => return Ok(choice.to_string()),
        DeValue::Integer(number) => {
            return i64::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|_| format!("the number {number} is too large"));
        }
        DeValue::Float(number) => format!("{number} is no whole number"),
        DeValue::Datetime(date) => format!("{date} is a date"),
        DeValue::Array(_) => "this is a list".to_owned(),
        DeValue::Table(_) => "this is a section".to_owned(),
    };
    Err(format!("{found}; {EXPECTED}"))
}
