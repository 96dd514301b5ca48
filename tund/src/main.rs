//! The program.

use std::process::ExitCode;

use i2plan_ipc::daemon::program;
use i2plan_tund::options;

fn main() -> ExitCode {
    let asked = options::parse(std::env::args_os().skip(1));
    program::run("i2plan-tund", options::HELP, asked, |options| Ok(i2plan_tund::run(&options)?))
}
