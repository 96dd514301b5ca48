//! Text as manual pages want it: roff with the macros of man(7).

use i2plan_config::Key;

/// Text with nothing in it that roff takes for more than text.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        for letter in line.chars() {
            match letter {
                '\\' => out.push_str("\\e"),
                '-' => out.push_str("\\-"),
                letter => out.push(letter),
            }
        }
    }
    out
}

/// What follows the options in a command's help, by the sections that it belongs to.
#[derive(Debug, Default)]
pub struct AfterHelp {
    /// Paragraphs.
    pub description: String,
    /// Of the section EXIT STATUS.
    pub exit_status: String,
    /// Lines of the section EXAMPLES.
    pub examples: String,
}

impl AfterHelp {
    /// Tells the sections apart: paragraphs that speak of the exit status, or begin with `Exit status:` or `Examples:`.
    #[must_use]
    pub fn parse(help: &str) -> Self {
        let mut parsed = Self::default();
        for paragraph in help.split("\n\n").map(str::trim_end).filter(|paragraph| !paragraph.is_empty()) {
            let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
            match first {
                "Exit status:" => {
                    for line in rest.lines() {
                        let (status, meaning) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
                        let line = format!(".TP\n.B {}\n{}\n", escape(status), escape(meaning));
                        parsed.exit_status.push_str(&line);
                    }
                }
                "Example:" | "Examples:" => {
                    for line in rest.lines() {
                        parsed.examples.push_str(&escape(line.trim()));
                        parsed.examples.push('\n');
                    }
                }
                _ if first.starts_with("The exit status") => {
                    parsed.exit_status.push_str(&format!("{}\n", escape(paragraph)));
                }
                _ => parsed.description.push_str(&format!(".PP\n{}\n", escape(paragraph))),
            }
        }
        parsed
    }
}

/// What a daemon's `--help` says after its usage: options as a list, the exit status as a section at the end, and
/// everything else as paragraphs.
#[must_use]
pub fn from_help(help: &str) -> String {
    const EXIT_STATUS: &str = "Exit status: ";
    let mut out = String::new();
    let body = help
        .split_once("Usage:")
        .map_or(help, |(_, rest)| rest.split_once('\n').map_or("", |(_, body)| body));
    let (exit_status, body): (Vec<_>, Vec<_>) =
        body.split("\n\n").partition(|paragraph| paragraph.starts_with(EXIT_STATUS));
    for line in body.join("\n\n").lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() {
            out.push_str(".PP\n");
        } else if indent > 0 && text.starts_with('-') {
            // An option and what it does are two spaces apart at least.
            let (option, does) = text.split_once("  ").unwrap_or((text, ""));
            out.push_str(&format!(".TP\n.B {}\n", escape(option)));
            if !does.is_empty() {
                out.push_str(&format!("{}\n", escape(does.trim())));
            }
        } else if text != "Options:" {
            out.push_str(&format!("{}\n", escape(text)));
        }
    }
    // A paragraph between an option and the next heading has nothing to part.
    let mut tidy: Vec<&str> = Vec::new();
    for line in out.lines() {
        let follows = tidy.last().copied();
        if line == ".PP" && (follows.is_none() || follows == Some(".PP")) {
            continue;
        }
        if line == ".TP" && follows == Some(".PP") {
            tidy.pop();
        }
        tidy.push(line);
    }
    if tidy.last() == Some(&".PP") {
        tidy.pop();
    }
    let mut out = tidy.join("\n");
    for paragraph in exit_status {
        let text = paragraph.trim_start_matches(EXIT_STATUS).trim_end();
        out.push_str(&format!("\n.SH EXIT STATUS\n{}", escape(text)));
    }
    out
}

/// The keys of the configuration, as a list.
#[must_use]
pub fn from_keys(keys: &[Key]) -> String {
    let mut out = String::new();
    for key in keys {
        let default = if key.default.is_empty() { key.example } else { key.default };
        let counts = if key.live { "a reload" } else { "a restart" };
        // Lines of help begin with the space that parts them from a comment sign.
        let help: Vec<_> = key.help.iter().map(|line| escape(line.trim())).collect();
        out.push_str(&format!(
            ".TP\n.BR {} \" (\" {} )\n{}\n.br\nDefault: {}. A change counts after {counts}.\n",
            escape(key.name),
            key.variable,
            help.join("\n"),
            escape(default)
        ));
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use i2plan_config::KEYS;

    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape(".dot\n'quote\na\\b --x"), "\\&.dot\n\\&'quote\na\\eb \\-\\-x");
    }

    #[test]
    fn options_become_a_list() {
        let help = "x: does things\n\nUsage: x [OPTIONS]\n\nOptions:\n      --store DIR  where\n                   it is\n  \
                    -h, --help\n\nExit status: 1 failed;\n2 wrong.\n\nMore:\n      --check  look\n\nThe end.\n";
        assert_eq!(
            from_help(help),
            ".TP\n.B \\-\\-store DIR\nwhere\nit is\n.TP\n.B \\-h, \\-\\-help\n.PP\nMore:\n.TP\n.B \\-\\-check\nlook\n.PP\nThe end.\n\
             .SH EXIT STATUS\n1 failed;\n2 wrong."
        );
    }

    #[test]
    fn what_follows_the_options_belongs_to_sections() {
        let help = "Some\ntext.\n\nThe exit status is 1 if not.\n\nExit status:\n  0  done\n\nExamples:\n  x -y\n  x z";
        let parsed = AfterHelp::parse(help);
        assert_eq!(parsed.description, ".PP\nSome\ntext.\n");
        assert_eq!(parsed.exit_status, "The exit status is 1 if not.\n.TP\n.B 0\ndone\n");
        assert_eq!(parsed.examples, "x \\-y\nx z\n");
    }

    #[test]
    fn every_key_is_listed() {
        let listed = from_keys(KEYS);
        for key in KEYS {
            assert!(
                listed.contains(&format!(".BR {} \" (\" {} )", escape(key.name), key.variable)),
                "{}",
                key.name
            );
        }
    }
}
