//! i2planctl.

use std::process::ExitCode;

fn main() -> ExitCode {
    i2planctl::run(std::env::args_os().collect())
}
