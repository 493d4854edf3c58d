//! What every command starts from: the options given before it, the configuration, the ways out, and doors to the rest.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use metrics_exporter_prometheus::PrometheusHandle;

use super::error::CliError;
use super::out::{Out, colors_wanted};
use crate::app;
use crate::broker::Broker;
use crate::clock::{SharedClock, SystemClock};
use crate::config::specs::LogFormat;
use crate::config::{self, Loaded, Specs};
use crate::publish::Publisher;
use crate::store::Store;
use crate::telemetry::{Telemetry, logs};

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Configuration file [env: LANES_CONFIG] [default: lanes.toml in the current directory]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write JSON to stdout, errors included (to stderr)
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines on stderr look
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub log_format: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or by part (lanes=debug,info)
    #[arg(long, global = true, env = "LANES_LOG", value_name = "LEVEL")]
    pub log: Option<String>,
}

/// What is logged by commands that end by themselves.
const QUIET: &str = "warn";

/// A command's surroundings.
#[derive(Debug)]
pub struct Context {
    /// Standard output.
    pub out: Out,
    /// What is configured.
    pub specs: Specs,
    /// Time.
    pub clock: SystemClock,
    /// Where things are told.
    pub telemetry: Telemetry,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
}

impl Context {
    /// Loads the configuration and starts the log. Commands that run on log as configured, the others only warnings.
    pub fn load(globals: &Globals, runs_on: bool) -> Result<(Self, Loaded), CliError> {
        let loaded = load(globals)?;
        let specs = &loaded.specs;
        let configured = if runs_on { &specs.log.level } else { QUIET };
        let level = globals.log.as_deref().filter(|level| !level.is_empty()).unwrap_or(configured);
        let format = match (globals.log_format.as_deref(), specs.log.format) {
            (Some("json"), _) | (None, LogFormat::Json) => logs::Format::Json,
            _ => logs::Format::Text,
        };
        let color = io::stderr().is_terminal() && colors_wanted();
        logs::init(format, level, color).map_err(|error| CliError::usage(error.to_string()))?;
        let (telemetry, metrics) = Telemetry::prometheus();
        let (out, clock) = (Out::new(globals.json), SystemClock::new());
        Ok((Self { out, specs: loaded.specs.clone(), clock, telemetry, metrics }, loaded))
    }

    /// The clock, for those who share it.
    pub fn shared_clock(&self) -> SharedClock {
        Arc::new(self.clock.clone())
    }

    /// Opens the store for reading commands.
    pub async fn store(&self) -> Result<Arc<dyn Store>, CliError> {
        Ok(app::open_store(&self.specs).await?)
    }

    /// Opens the broker; it may turn out to be unreachable at the first use.
    pub async fn broker(&self) -> Result<Arc<dyn Broker>, CliError> {
        Ok(app::open_broker(&self.specs, &self.shared_clock()).await?)
    }

    /// Opens a publisher; the queues of the configured lanes exist then.
    pub async fn publisher(&self) -> Result<Publisher, CliError> {
        Ok(app::open_publisher(&self.specs, &self.telemetry, &self.shared_clock(), "cli").await?)
    }
}

/// Reads the configuration, or says everything that is wrong with it.
pub fn load(globals: &Globals) -> Result<Loaded, CliError> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let env: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
    Ok(config::load(globals.config.as_deref(), &env)?)
}
