//! `i2plan-connector`.

use std::process::ExitCode;

use i2plan_connector::options::{self, HELP};
use i2plan_ipc::daemon::program;
use i2plan_ipc::version::build;

fn main() -> ExitCode {
    let asked = options::parse(std::env::args_os().skip(1));
    program::run(build!(), "i2plan-connector", HELP, asked, i2plan_connector::run)
}
