//! `i2planctl --version`.

use i2plan_ipc::version::Version;

use crate::failure::Failure;
use crate::output;

/// Prints version, commit and build time.
///
/// # Errors
/// If it cannot be written.
pub fn run(json: bool) -> Result<(), Failure> {
    let version = Version::current();
    if json { output::json::print(&version) } else { output::print(&format!("i2planctl {version}\n")) }
}
