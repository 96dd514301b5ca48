//! The executables of a node.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where packages put the daemons.
const PACKAGED: &str = "/usr/libexec/i2plan";

/// Why an executable cannot be used.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The system does not tell where the executable of this process is.
    #[error("cannot find this program's own file: {0}")]
    CurrentProgram(io::Error),
    /// A daemon is in none of the directories.
    #[error("{name} is missing: there is {}", not_there(searched))]
    Missing {
        /// The name of its executable.
        name: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
}

fn not_there(searched: &[PathBuf]) -> String {
    searched.iter().map(|path| format!("no {}", path.display())).collect::<Vec<_>>().join(" and ")
}

/// Where the executables of a node are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The program that becomes each daemon: it calls [`intercept`](crate::launch::intercept) first in `main`.
    pub launcher: PathBuf,
    /// The directories in which the daemons (`i2plan-keyd` and the others) are looked for, in this order.
    pub directories: Vec<PathBuf>,
}

impl Programs {
    /// This program as the launcher, and daemons in its directory or where packages put them.
    ///
    /// # Errors
    /// [`ProgramError::CurrentProgram`].
    pub fn beside_this() -> Result<Self, ProgramError> {
        let launcher = std::env::current_exe().map_err(ProgramError::CurrentProgram)?;
        let beside = launcher.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { launcher, directories: vec![beside, PACKAGED.into()] })
    }

    /// The executable of a daemon.
    ///
    /// # Errors
    /// [`ProgramError::Missing`].
    pub fn find(&self, daemon: &str) -> Result<PathBuf, ProgramError> {
        let name = format!("i2plan-{daemon}");
        let paths: Vec<_> = self.directories.iter().map(|directory| directory.join(&name)).collect();
        match paths.iter().find(|path| path.is_file()) {
            Some(path) => Ok(path.clone()),
            None => Err(ProgramError::Missing { name, searched: paths }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_has_a_daemon_counts() {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let directories = [&first, &second].map(|directory| directory.path().to_owned());
        let programs = Programs { launcher: "/launcher".into(), directories: directories.to_vec() };
        let in_both = [&first, &second].map(|directory| directory.path().join("i2plan-keyd"));
        let error = programs.find("keyd").unwrap_err().to_string();
        let [one, other] = in_both.each_ref().map(|path| path.display());
        assert_eq!(error, format!("i2plan-keyd is missing: there is no {one} and no {other}"));

        std::fs::write(&in_both[1], "").unwrap();
        assert_eq!(programs.find("keyd").unwrap(), in_both[1]);
        std::fs::write(&in_both[0], "").unwrap();
        assert_eq!(programs.find("keyd").unwrap(), in_both[0]);
    }
}
