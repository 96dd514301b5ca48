//! `i2plan-connector`.

use std::process::ExitCode;

use i2plan_connector::options::{self, HELP};
use i2plan_ipc::daemon::program;

fn main() -> ExitCode {
    let asked = options::parse(std::env::args_os().skip(1));
    program::run("i2plan-connector", HELP, asked, |options| i2plan_connector::run(&options))
}
