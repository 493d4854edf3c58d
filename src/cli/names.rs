//! Names given on the command line, looked up in the configuration.

use super::error::{CliError, Exit};
use crate::config::Specs;
use crate::config::problem::similar;
use crate::config::specs::{EndpointSpec, LaneSpec};
use crate::job::{EndpointName, LaneName};

/// The lane of that name; `exit` when there is none.
pub fn lane<'a>(specs: &'a Specs, name: &LaneName, exit: Exit) -> Result<&'a LaneSpec, CliError> {
    let known = specs.lanes.iter().map(|lane| lane.name.as_str());
    let found = specs.lanes.iter().find(|lane| lane.name == *name);
    found.ok_or_else(|| unknown(exit, "lane", name.as_str(), &known.collect::<Vec<_>>()))
}

/// The endpoint of that name; `exit` when there is none.
pub fn endpoint<'a>(specs: &'a Specs, name: &EndpointName, exit: Exit) -> Result<&'a EndpointSpec, CliError> {
    let known = specs.endpoints.iter().map(|endpoint| endpoint.name.as_str());
    let found = specs.endpoints.iter().find(|endpoint| endpoint.name == *name);
    found.ok_or_else(|| unknown(exit, "endpoint", name.as_str(), &known.collect::<Vec<_>>()))
}

fn unknown(exit: Exit, kind: &str, name: &str, known: &[&str]) -> CliError {
    let meant = match similar(name, known.iter().copied()) {
        Some(meant) => format!("; did you mean {meant:?}?"),
        None => String::new(),
    };
    let configured = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    CliError::new(exit, format!("{kind} {name:?} is not configured{meant}"))
        .help(format!("configured {kind}s: {configured}"))
}
