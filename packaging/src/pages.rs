//! Manual pages.

use std::io;
use std::path::Path;
use std::process::Command;

use i2plan_config::KEYS;

use crate::roff;

/// Pages about one daemon each, whose options are filled in.
const DAEMONS: [(&str, &str); 7] = [
    ("i2plan-keyd", include_str!("../man/i2plan-keyd.8.in")),
    ("i2plan-connector", include_str!("../man/i2plan-connector.8.in")),
    ("i2plan-meshd", include_str!("../man/i2plan-meshd.8.in")),
    ("i2plan-tund", include_str!("../man/i2plan-tund.8.in")),
    ("i2plan-rpcd", include_str!("../man/i2plan-rpcd.8.in")),
    ("i2plan-webd", include_str!("../man/i2plan-webd.8.in")),
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
    let fill = |page: &str| page.replace("@DATE@", date).replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    for (name, page) in DAEMONS {
        let output = Command::new(programs.join(name)).arg("--help").output()?;
        let help = String::from_utf8(output.stdout).map_err(io::Error::other)?;
        if help.is_empty() {
            return Err(io::Error::other(format!("{name} --help says nothing")));
        }
        let page = fill(page).replace("@OPTIONS@", &roff::from_help(&help));
        std::fs::write(directory.join(format!("{name}.8")), page)?;
    }
    for (name, page) in OTHERS {
        std::fs::write(directory.join(name), fill(page).replace("@KEYS@", &roff::from_keys(KEYS)))?;
    }
    write_command(&i2planctl::command(), "i2planctl", date, &directory)
}

/// The page of a command, and those of the commands in it.
fn write_command(command: &clap::Command, name: &str, date: &str, directory: &Path) -> io::Result<()> {
    let own = command.clone().name(name.to_owned()).display_name(name.to_owned());
    let page = clap_mangen::Man::new(own)
        .section("1")
        .date(date)
        .manual("User Commands")
        .source(concat!("i2plan ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(directory.join(format!("{name}.1")), text)?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
    {
        write_command(inner, &format!("{name}-{}", inner.get_name()), date, directory)?;
    }
    Ok(())
}
