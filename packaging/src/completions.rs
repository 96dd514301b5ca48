//! Completions for shells: what `i2planctl completions` prints.

use std::io;
use std::path::Path;
use std::process::Command;

/// Shells, and how each wants the file named.
const SHELLS: [(&str, &str); 3] = [("bash", "i2planctl"), ("zsh", "_i2planctl"), ("fish", "i2planctl.fish")];

/// Writes them into `completions` in `out`. `programs` is where the built programs are.
///
/// # Errors
/// If the program cannot be run or refuses, or a file cannot be written.
pub fn write(programs: &Path, out: &Path) -> io::Result<()> {
    for (shell, name) in SHELLS {
        let output = Command::new(programs.join("i2planctl")).args(["completions", shell]).output()?;
        if !output.status.success() || output.stdout.is_empty() {
            return Err(io::Error::other(format!(
                "i2planctl completions {shell} ended with {}",
                output.status
            )));
        }
        let directory = out.join("completions").join(shell);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(name), output.stdout)?;
    }
    Ok(())
}
