//! The program `larder`, which is `kubectl larder` too when it is called by that name.

use std::process::ExitCode;

fn main() -> ExitCode {
    operator::cli::main(std::env::args_os())
}
