//! The file: TOML, of which every key and value is known by its line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One key that the file sets.
#[derive(Debug)]
pub(super) struct FileEntry {
    /// As it stands there, with its section: it need not exist.
    pub(super) name: String,
    /// Where it stands, from 1.
    pub(super) line: usize,
    /// Its value as it would stand in the environment; none for what no key can have.
    pub(super) value: Option<String>,
    /// It is a section in which nothing is set.
    pub(super) is_empty_section: bool,
}

/// What a file sets, in the order of its lines.
///
/// # Errors
/// The line of what is no TOML, and why it is not.
pub(super) fn entries(text: &str) -> Result<Vec<FileEntry>, (usize, String)> {
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let table = DeTable::parse(text)
        .map_err(|error| (line(error.span().map_or(0, |span| span.start)), error.message().to_owned()))?;
    let mut entries = Vec::new();
    for (section, value) in table.get_ref() {
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
                entries.push(FileEntry { name, line, value: None, is_empty_section });
            }
        }
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn text_of(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(choice) => Some(choice.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
