//! i2planctl.

use std::process::ExitCode;

use i2plan_ipc::version;

fn main() -> ExitCode {
    version::set(version::build!());
    i2planctl::run(std::env::args_os().collect())
}
