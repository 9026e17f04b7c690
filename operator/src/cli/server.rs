//! `larder server`: a member in this very program, so that a laptop needs no second one.

use std::process::ExitCode;

/// Arguments of `larder server`: those of larder-server.
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// End in good order when the process with this ID, the parent, ends.
    #[arg(long, hide = true, value_name = "PID")]
    with_parent: Option<i32>,
    /// A configuration file, and directives as --name value.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

pub(super) fn server(args: &ServerArgs) -> ExitCode {
    if let Some(parent) = args.with_parent
        && !super::parent::end_with(parent)
    {
        eprintln!("larder server: the process {parent} is not there any more");
        return ExitCode::FAILURE;
    }
    let code = engine::main_with_args(&args.args);
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
