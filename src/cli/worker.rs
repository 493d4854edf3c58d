//! `lanes worker`: consume and call until a signal; a second signal does not wait.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Globals};
use super::error::{CliError, Exit};
use super::names;
use super::signals::Signals;
use crate::app::{self, WorkerOptions};
use crate::job::LaneName;

/// Arguments of `lanes worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Consume only this lane (repeat for more) [default: all configured lanes]
    #[arg(long = "lane", value_name = "LANE", value_parser = LaneName::new)]
    lanes: Vec<LaneName>,
    /// Do not serve metrics and health over HTTP
    #[arg(long)]
    no_http: bool,
}

/// Runs the worker.
pub async fn run(globals: &Globals, args: WorkerArgs) -> Result<Exit, CliError> {
    let (ctx, loaded) = Context::load(globals, true)?;
    for lane in &args.lanes {
        names::lane(&ctx.specs, lane, Exit::Usage)?;
    }
    tracing::info!(configuration = %loaded.source, version = env!("CARGO_PKG_VERSION"), "starting");
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let stop = CancellationToken::new();
    let mut signals =
        Signals::listen().map_err(|error| CliError::failed(format!("cannot listen to signals: {error}")))?;
    let asked = stop.clone();
    let watch = tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping in order; a second signal stops at once");
        asked.cancel();
        let exit = signals.next().await;
        tracing::warn!("stopping at once: calls in flight are cut, other workers take their jobs over");
        std::process::exit(i32::from(exit as u8));
    });
    let only = (!args.lanes.is_empty()).then_some(args.lanes);
    let http = ctx.specs.http.enabled && !args.no_http;
    let settings = app::settings(&loaded);
    let options = WorkerOptions { only, metrics: ctx.metrics.clone(), http, settings, bound: None };
    let ended = app::run_worker(&ctx.specs, options, &ctx.telemetry, &ctx.clock, stop).await;
    watch.abort();
    ended?;
    Ok(Exit::Ok)
}
