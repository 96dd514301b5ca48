//! Files of wg-quick(8), and what is wrong in them.

use std::net::IpAddr;
use std::path::Path;

use i2plan_config::wg_quick::{self, Fault, WgQuick, WgQuickError};

use crate::failure::Failure;
use crate::output;

/// Reads a file. The SAM bridge of the I2P router is at these addresses.
///
/// # Errors
/// What is wrong in it, with lines and remedies.
pub fn load(json: bool, file: &Path, routers: &[IpAddr]) -> Result<WgQuick, Failure> {
    wg_quick::load(file, routers).map_err(|error| match error {
        WgQuickError::Faults(faults) => explain(json, &faults),
        WgQuickError::Read { .. } => Failure::invalid(error.to_string()),
    })
}

/// Makes one failure of all faults. For people all but the last are told at once, each with its remedy.
fn explain(json: bool, faults: &[Fault]) -> Failure {
    let single = |fault: &Fault| Failure::invalid(fault.to_string()).with_hint(fault.problem.remedy());
    match faults {
        [others @ .., last] if !json => {
            for fault in others {
                output::note(single(fault).to_string().trim_end());
            }
            single(last)
        }
        [only] => single(only),
        _ => {
            let join = |texts: Vec<String>, with| texts.join(with);
            let messages = faults.iter().map(ToString::to_string).collect();
            let hints = faults
                .iter()
                .map(|fault| format!("line {}: {}", fault.line, fault.problem.remedy()))
                .collect();
            Failure::invalid(join(messages, "; ")).with_hint(join(hints, "\n"))
        }
    }
}
