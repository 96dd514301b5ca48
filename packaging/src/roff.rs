//! Text as manual pages want it: roff with the macros of man(7).

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

/// The keys of the configuration, from the README's table of them: key, variable, default.
#[must_use]
pub fn from_table(readme: &str) -> String {
    let mut out = String::new();
    for line in readme.lines() {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [key, variable, default] = cells[..] else { continue };
        let (Some(key), Some(variable)) = (code(key), code(variable)) else { continue };
        if !variable.starts_with("I2PLAN_") {
            continue;
        }
        let default = default.replace('`', "");
        out.push_str(&format!(
            ".TP\n.BR {} \" (\" {variable} )\nDefault: {}.\n",
            escape(key),
            escape(&default)
        ));
    }
    out.trim_end().to_owned()
}

/// What stands between backticks.
fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

#[cfg(test)]
mod tests {
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
    fn keys_come_from_the_table() {
        let readme = "| key | variable | default |\n| --- | --- | --- |\n| `a.b` | `I2PLAN_B` | `1`; or more |\n| `x` | y | z |\n";
        assert_eq!(from_table(readme), ".TP\n.BR a.b \" (\" I2PLAN_B )\nDefault: 1; or more.");
    }
}
