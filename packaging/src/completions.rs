//! Completions for shells.

use std::fs::File;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use i2planctl::args::Args;

/// Writes them into `out`, named as each shell looks for them.
///
/// # Errors
/// If a file cannot be written.
pub fn write(out: &Path) -> io::Result<()> {
    for (shell, name) in
        [(Shell::Bash, "i2planctl"), (Shell::Zsh, "_i2planctl"), (Shell::Fish, "i2planctl.fish")]
    {
        let directory = out.join("completions").join(shell.to_string());
        std::fs::create_dir_all(&directory)?;
        let mut file = File::create(directory.join(name))?;
        clap_complete::generate(shell, &mut Args::command(), "i2planctl", &mut file);
    }
    Ok(())
}
