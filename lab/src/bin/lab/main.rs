//! `lab`.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod cli;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    i2plan_ipc::version::set(i2plan_ipc::version::build!());
    cli::run()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("lab: the laboratory is made of Linux's namespaces and runs on no other system");
    ExitCode::from(3)
}
