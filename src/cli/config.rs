//! `lanes config`: is it right, and what is in effect.

use clap::Subcommand;
use serde_json::json;

use super::context::{self, Globals};
use super::error::{CliError, Exit};
use super::out::{Out, note};
use super::text::counted;
use crate::config;

/// Subcommands of `lanes config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with the configuration; connects to nothing
    Check,
    /// Show every setting in effect and where it comes from, secrets masked
    Show,
}

/// Runs it.
pub fn run(globals: &Globals, command: &ConfigCommand) -> Result<Exit, CliError> {
    let loaded = context::load(globals)?;
    let mut out = Out::new(globals.json);
    match command {
        ConfigCommand::Check => {
            let (lanes, endpoints) = (loaded.specs.lanes.len() as u64, loaded.specs.endpoints.len() as u64);
            if out.is_json() {
                let document = json!({
                    "schema": 1, "valid": true, "source": loaded.source, "warnings": loaded.warnings,
                    "lanes": lanes, "endpoints": endpoints,
                });
                out.document(&document)?;
            } else {
                for warning in &loaded.warnings {
                    note(format_args!("warning: {warning}"));
                }
                let (lanes, endpoints) = (counted(lanes, "lane"), counted(endpoints, "endpoint"));
                out.line(format_args!("{}: ok, {lanes}, {endpoints}", loaded.source))?;
            }
        }
        ConfigCommand::Show if out.is_json() => {
            let mut document = config::show_json(&loaded);
            document["schema"] = 1.into();
            out.document(&document)?;
        }
        ConfigCommand::Show => out.bytes(config::show(&loaded).as_bytes())?,
    }
    out.flush()?;
    Ok(Exit::Ok)
}
