//! The `lanes` program: the command line in front of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lanes::cli::main()
}
