//! Manual pages.

use std::io;
use std::path::Path;
use std::process::Command;

use i2plan_config::KEYS;

use crate::roff;

/// Pages about one daemon each, whose options are filled in.
const DAEMONS: [(&str, &str); 8] = [
    ("i2plan-keyd", include_str!("../man/i2plan-keyd.8.in")),
    ("i2plan-connector", include_str!("../man/i2plan-connector.8.in")),
    ("i2plan-meshd", include_str!("../man/i2plan-meshd.8.in")),
    ("i2plan-tund", include_str!("../man/i2plan-tund.8.in")),
    ("i2plan-rpcd", include_str!("../man/i2plan-rpcd.8.in")),
    ("i2plan-webd", include_str!("../man/i2plan-webd.8.in")),
    ("i2plan-named", include_str!("../man/i2plan-named.8.in")),
    ("i2plan-routerd", include_str!("../man/i2plan-routerd.8.in")),
];

/// The other pages.
const OTHERS: [(&str, &str); 2] = [
    ("i2plan.7", include_str!("../man/i2plan.7.in")),
    ("i2plan.toml.5", include_str!("../man/i2plan.toml.5.in")),
];

/// Writes all pages into `man` in `out`, dated `date`. `programs` is where the built daemons are, which are asked for
/// their help.
///
/// # Errors
/// If a daemon cannot be run, or a file cannot be written.
pub fn write(programs: &Path, date: &str, out: &Path) -> io::Result<()> {
    let directory = out.join("man");
    std::fs::create_dir_all(&directory)?;
    let fill = |page: &str, own: &str| {
        page.replace("@DATE@", date)
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
            .replace("@SEE_ALSO@", &see_also(own))
    };
    for (name, page) in DAEMONS {
        let output = Command::new(programs.join(name)).arg("--help").output()?;
        let help = String::from_utf8(output.stdout).map_err(io::Error::other)?;
        if help.is_empty() {
            return Err(io::Error::other(format!("{name} --help says nothing")));
        }
        let page = fill(page, name).replace("@OPTIONS@", &roff::from_help(&help));
        std::fs::write(directory.join(format!("{name}.8")), page)?;
    }
    for (name, page) in OTHERS {
        let (own, _) = name.rsplit_once('.').unwrap_or((name, ""));
        std::fs::write(directory.join(name), fill(page, own).replace("@KEYS@", &roff::from_keys(KEYS)))?;
    }
    for (name, page) in commands(&i2planctl::command(), date)? {
        std::fs::write(directory.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// References to all pages but the page `own` and those of single commands.
fn see_also(own: &str) -> String {
    let others = OTHERS.iter().filter_map(|(name, _)| name.rsplit_once('.'));
    let daemons = DAEMONS.iter().map(|(name, _)| (*name, "8"));
    let mut pages: Vec<_> = [("i2planctl", "1")]
        .into_iter()
        .chain(others)
        .chain(daemons)
        .filter(|(name, _)| *name != own)
        .collect();
    pages.sort_by_key(|&(name, section)| (section, name));
    let pages: Vec<_> = pages.iter().map(|(name, section)| format!(".BR {name} ({section})")).collect();
    pages.join(",\n")
}

/// The name and the text of the page of a command and of each command in it.
fn commands(command: &clap::Command, date: &str) -> io::Result<Vec<(String, String)>> {
    // The pages are what `help` would print.
    let mut built = command.clone().disable_help_subcommand(true);
    built.build();
    let mut pages = Vec::new();
    write_command(&built, None, date, &mut pages)?;
    Ok(pages)
}

/// Appends the page of a command that is built, and those of the commands in it. `parent` is the name of the page of
/// the command that it is in.
fn write_command(
    command: &clap::Command,
    parent: Option<&str>,
    date: &str,
    pages: &mut Vec<(String, String)>,
) -> io::Result<()> {
    let name = parent
        .map_or_else(|| command.get_name().to_owned(), |parent| format!("{parent}-{}", command.get_name()));
    let usage = command.clone().render_usage().to_string();
    let typed = command.get_bin_name().unwrap_or(&name).to_owned();
    let own = command
        .clone()
        .display_name(name.clone())
        .bin_name(typed)
        .override_usage(usage.trim_start_matches("Usage:").trim().to_owned());
    let page = clap_mangen::Man::new(own)
        .section("1")
        .date(date)
        .manual("User Commands")
        .source(concat!("i2plan ", env!("CARGO_PKG_VERSION")));
    let after =
        roff::AfterHelp::parse(&command.get_after_help().map(ToString::to_string).unwrap_or_default());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    text.extend(after.description.as_bytes());
    page.render_options_section(&mut text)?;
    let inner: Vec<_> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).collect();
    if !inner.is_empty() {
        page.render_subcommands_section(&mut text)?;
    }
    text.extend(b".SH \"EXIT STATUS\"\n");
    text.extend(after.exit_status.as_bytes());
    if parent.is_some() {
        let other = if after.exit_status.is_empty() { "The exit status" } else { "Any other exit status" };
        text.extend(format!("{other} is as\n.BR i2planctl (1)\nsays.\n").as_bytes());
    }
    if !after.examples.is_empty() {
        text.extend(format!(".SH EXAMPLES\n.nf\n{}.fi\n", after.examples).as_bytes());
    }
    let above = parent.filter(|parent| *parent != "i2planctl").map(|parent| format!(".BR {parent} (1),\n"));
    let see_also = format!(".SH \"SEE ALSO\"\n{}{}\n", above.unwrap_or_default(), see_also(&name));
    text.extend(see_also.as_bytes());
    pages.push((name.clone(), String::from_utf8(text).map_err(io::Error::other)?));
    for inner in inner {
        write_command(inner, Some(&name), date, pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Vec<(String, String)> {
        commands(&i2planctl::command(), "2026-01-01").unwrap()
    }

    fn page(name: &str) -> String {
        pages().into_iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("no page {name}")).1
    }

    #[test]
    fn a_synopsis_is_what_is_typed() {
        let page = page("i2planctl-ping");
        let synopsis = page.split(".SH SYNOPSIS\n").nth(1).unwrap().lines().next().unwrap();
        assert!(synopsis.starts_with("\\fBi2planctl ping\\fR [OPTIONS]"), "{synopsis}");
        assert!(page.contains("\\fB\\-c\\fR, \\fB\\-\\-count\\fR"), "{page}");
    }

    #[test]
    fn what_follows_the_options_is_in_sections_of_its_own() {
        let page = page("i2planctl-ping");
        for section in ["\"EXIT STATUS\"\nThe exit status is 0", "EXAMPLES\n.nf\ni2planctl ping web\n"] {
            assert!(page.contains(&format!(".SH {section}")), "{section}: {page}");
        }
        assert!(self::page("i2planctl").contains(".SH \"EXIT STATUS\"\n.TP\n.B 0\ndone\n"));
        for (name, page) in pages() {
            assert!(!page.contains("EXTRA") && !page.contains("Examples:"), "{name}");
        }
    }

    #[test]
    fn every_page_that_is_listed_is_there() {
        let pages = pages();
        for (name, page) in &pages {
            let references = page.split_whitespace().filter_map(|word| word.strip_suffix("(1)"));
            for reference in
                references.map(|word| word.replace('\\', "")).filter(|word| word.starts_with("i2planctl-"))
            {
                assert!(pages.iter().any(|(name, _)| *name == reference), "{name}: {reference}");
            }
        }
        assert!(!page("i2planctl").contains("i2planctl\\-help"));
    }

    #[test]
    fn every_page_leads_to_those_of_all_programs() {
        for (name, page) in DAEMONS.iter().chain(&OTHERS) {
            assert!(page.contains("\n@SEE_ALSO@"), "{name}");
        }
        for (name, page) in pages() {
            for (daemon, _) in DAEMONS {
                assert!(page.contains(&format!(".BR {daemon} (8)")), "{name}: {daemon}");
            }
        }
        assert!(!see_also("i2plan-keyd").contains("keyd"));
    }
}
