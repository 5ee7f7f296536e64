//! The place of `klamm serve`.

use std::process::ExitCode;

use crate::output;

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    output::complain(
        false,
        "FAILED",
        "the broker is not built into this command yet",
    );
    ExitCode::FAILURE
}
