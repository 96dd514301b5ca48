//! The program.

use std::process::ExitCode;

use i2plan_ipc::daemon::program;
use i2plan_ipc::version::build;
use i2plan_tund::options;

fn main() -> ExitCode {
    let asked = options::parse(std::env::args_os().skip(1));
    program::run(build!(), "i2plan-tund", options::HELP, asked, |options| i2plan_tund::run(&options))
}
