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

/// What a daemon's `--help` says after its usage: options as a list, everything else as paragraphs.
#[must_use]
pub fn from_help(help: &str) -> String {
    let mut out = String::new();
    let body = help
        .split_once("Usage:")
        .map_or(help, |(_, rest)| rest.split_once('\n').map_or("", |(_, body)| body));
    for line in body.lines() {
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
    tidy.join("\n")
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
                    -h, --help\n\nMore:\n      --check  look\n\nThe end.\n";
        assert_eq!(
            from_help(help),
            ".TP\n.B \\-\\-store DIR\nwhere\nit is\n.TP\n.B \\-h, \\-\\-help\n.PP\nMore:\n.TP\n.B \\-\\-check\nlook\n.PP\nThe end."
        );
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
