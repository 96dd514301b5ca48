//! Makes manual pages and completions for i2plan's packages.

use std::path::Path;
use std::process::ExitCode;

use i2plan_packaging::{completions, pages};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let [programs, date, out] = &args[..] else {
        eprintln!(
            "usage: i2plan-packaging PROGRAMS DATE OUT, where PROGRAMS is the directory of the built programs"
        );
        return ExitCode::from(2);
    };
    let (programs, out) = (Path::new(programs), Path::new(out));
    let made =
        pages::write(programs, &date.to_string_lossy(), out).and_then(|()| completions::write(programs, out));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("i2plan-packaging: {error}");
            ExitCode::FAILURE
        }
    }
}
