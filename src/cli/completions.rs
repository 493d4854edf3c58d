//! `lanes completions`: scripts that let a shell complete commands, options and words.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::error::{CliError, Exit};
use super::out::Out;

/// Arguments of `lanes completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    // not straight to stdout: the generator panics when a write fails
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "lanes", &mut script);
    let mut out = Out::new(false);
    out.bytes(&script)?;
    out.flush()?;
    Ok(Exit::Ok)
}
