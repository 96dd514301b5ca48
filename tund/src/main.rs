//! The program.

use std::process::ExitCode;

use i2plan_ipc::daemon::notify::Supervisor;
use i2plan_ipc::version::Version;
use i2plan_tund::options::{self, Action};

fn main() -> ExitCode {
    let action = match options::parse(std::env::args_os().skip(1)) {
        Ok(action) => action,
        Err(error) => {
            eprintln!("i2plan-tund: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    match action {
        Action::Version => {
            println!("i2plan-tund {}", Version::current());
            ExitCode::SUCCESS
        }
        Action::Help => {
            print!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Action::Run(options) => {
            if let Err(error) = i2plan_tund::run(&options) {
                eprintln!("i2plan-tund: {error}");
                Supervisor::of_this_process().status(&error.to_string());
                return ExitCode::from(error.exit_status());
            }
            ExitCode::SUCCESS
        }
    }
}
