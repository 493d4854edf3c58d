//! Asks before something that cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::error::CliError;

/// From this many things on, the number itself has to be typed.
const MANY: u64 = 10;

/// Asks whether to `verb` so many things. `yes` = asked already. An error when nobody can be asked, or said no.
pub fn confirm(yes: bool, verb: &str, count: u64, noun: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let what = super::text::counted(count, noun);
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(CliError::usage(format!("would {verb} {what}, and there is no terminal to ask on"))
            .help("add --yes to do it, or --dry-run to only see what would happen"));
    }
    let (expected, prompt) = if count >= MANY {
        (count.to_string(), format!("Type {count} to {verb} {what}: "))
    } else {
        ("y".to_owned(), format!("{verb} {what}? [y/N] "))
    };
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{prompt}").and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.map_err(|error| CliError::failed(format!("cannot ask: {error}")))?;
    let answer = answer.trim().to_ascii_lowercase();
    if answer == expected || (expected == "y" && answer == "yes") {
        Ok(())
    } else {
        Err(CliError::failed("not confirmed: nothing was changed"))
    }
}
