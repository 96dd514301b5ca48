//! Files that a crash leaves whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Gives a file of a directory, which is open, new content, for its user's eyes only: after a crash at any moment it
/// holds either the old or the new one. What is written first is in a file of the same name with `.new` after it.
///
/// # Errors
/// If the new content is not safely on disk.
pub fn replace(directory: &File, path: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = path.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path.join(name))?;
    directory.sync_all()
}
