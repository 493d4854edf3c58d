//! `lanes plan`: what will happen before it happens; a load is simulated with the limits of the configuration.

mod live;
mod load;
mod show;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::error::{CliError, Exit};
use super::names;
use super::text::parse_duration;
use crate::app;
use crate::clock::Timestamp;
use crate::config::Specs;
use crate::job::EndpointName;
use crate::plan::{self, Forecast, LaneSetup, Load, Setup, TENANTS_MAX};
use load::LoadArg;

/// When a simulation begins that is not of the present: any moment will do, and it is always the same.
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Most workers.
const WORKERS_MAX: i64 = 10_000;
/// Longest time that is simulated.
const FOR_MAX: Duration = Duration::from_hours(24 * 366);

const EXAMPLES: &str = "\
Examples:
  lanes plan --backlog bulk=35000 --rate realtime=2/s --tenants 40
      when is the import of 40 tenants done, and does real-time wait for it
  lanes plan --backlog bulk=35000@crm/acme --latency crm=300ms --for 8h
      is the import of one tenant done in the night
  lanes plan --live --rate realtime=2/s
      the jobs that wait now, and what will be published

Exit codes: 0 all can be met, 3 structurally over capacity, or not done within --for.";

/// Arguments of `lanes plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// Jobs that are there at the start; a load may name its endpoint and tenant: bulk=35000@crm/acme
    #[arg(long, value_name = "LANE=JOBS", value_parser = load::backlog)]
    backlog: Vec<LoadArg>,
    /// Jobs that are published from then on: realtime=2/s, bulk=5000/h@crm
    #[arg(long, value_name = "LANE=N/UNIT", value_parser = load::rate)]
    rate: Vec<LoadArg>,
    /// Spread each load that names no tenant evenly over so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::try_from(TENANTS_MAX).unwrap_or(1)))]
    tenants: Option<u32>,
    /// The endpoint of loads that name none, where the lane has no default_endpoint
    #[arg(long, value_name = "ENDPOINT", value_parser = EndpointName::new)]
    endpoint: Option<EndpointName>,
    /// How long a call takes: 200ms, or of one endpoint: crm=300ms [default: 200ms]
    #[arg(long, value_name = "TIME", value_parser = load::latency)]
    latency: Vec<(Option<EndpointName>, Duration)>,
    /// How many workers run [default: 1, with --live those that are alive]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=WORKERS_MAX))]
    workers: Option<u32>,
    /// The longest time to look ahead
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = horizon)]
    horizon: Duration,
    /// Take the jobs that wait now, the budgets as they are, and what is known of the APIs (also without any load)
    #[arg(long)]
    live: bool,
}

fn horizon(text: &str) -> Result<Duration, String> {
    let horizon = parse_duration(text)?;
    if horizon.is_zero() || horizon > FOR_MAX {
        return Err("must be more than nothing and at most 366 days".to_owned());
    }
    Ok(horizon)
}

/// Runs it.
pub async fn run(mut ctx: Context, args: PlanArgs) -> Result<Exit, CliError> {
    let mut setup = setup(&ctx.specs, &args)?;
    let mut loads = load::loads(&ctx.specs, &args)?;
    let mut notes = Vec::new();
    let forecast = if args.live || loads.is_empty() {
        live::forecast(&ctx, &args, &mut setup, &mut loads, &mut notes).await?
    } else {
        plan::plan(&setup, &loads, None)
    };
    notes.extend(assumptions(&setup, &forecast));
    show::show(&mut ctx, &setup, &loads, &forecast, &notes)?;
    Ok(if forecast.is_met() { Exit::Ok } else { Exit::Unhealthy })
}

fn setup(specs: &Specs, args: &PlanArgs) -> Result<Setup, CliError> {
    let mut latency = BTreeMap::new();
    let mut latency_usual = Duration::from_millis(200);
    for (endpoint, time) in &args.latency {
        match endpoint {
            Some(endpoint) => {
                latency.insert(names::endpoint(specs, endpoint, Exit::Usage)?.name.clone(), *time);
            }
            None => latency_usual = *time,
        }
    }
    let lane = |lane: &crate::config::specs::LaneSpec| LaneSetup {
        name: lane.name.clone(),
        concurrency: lane.concurrency,
        global_concurrency: lane.global_concurrency,
    };
    Ok(Setup {
        budgets: app::budgets(specs),
        lanes: specs.lanes.iter().map(lane).collect(),
        workers: args.workers.unwrap_or(1),
        latency,
        latency_usual,
        horizon: args.horizon,
        start: START,
    })
}

/// What was taken for granted.
fn assumptions(setup: &Setup, forecast: &Forecast) -> Vec<String> {
    let mut latency = vec![plan::span(setup.latency_usual)];
    latency.extend(setup.latency.iter().map(|(endpoint, time)| format!("{} for {endpoint}", plan::span(*time))));
    let workers = super::text::counted(u64::from(setup.workers), "worker");
    let mut notes = vec![format!("assumed: {workers}, calls that succeed and take {}", latency.join(", "))];
    if forecast.is_cut {
        notes.push(format!(
            "too much to simulate all of it: simulated were the first {} calls ({}), the rest is told from the pace that they had",
            super::text::count(forecast.calls),
            plan::span(forecast.simulated)
        ));
    }
    notes
}

/// The endpoint of a load.
fn endpoint_of(
    specs: &Specs,
    args: &PlanArgs,
    lane: &crate::config::specs::LaneSpec,
    named: Option<&EndpointName>,
) -> Result<EndpointName, CliError> {
    let only = || match &specs.endpoints[..] {
        [only] => Some(&only.name),
        _ => None,
    };
    let found = named.or(lane.default_endpoint.as_ref()).or(args.endpoint.as_ref()).or_else(only);
    let Some(found) = found else {
        let configured: Vec<&str> = specs.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
        let message = format!("which endpoint do the jobs of lane {} call?", lane.name);
        let configured = if configured.is_empty() { "none".to_owned() } else { configured.join(", ") };
        return Err(CliError::usage(message).help(format!(
            "say it with --endpoint, or as {}=...@ENDPOINT; configured endpoints: {configured}",
            lane.name
        )));
    };
    Ok(names::endpoint(specs, found, Exit::Usage)?.name.clone())
}

/// The tenants that a load is spread over.
fn tenants(args: &PlanArgs) -> Vec<crate::job::Tenant> {
    let name = |nth: u32| crate::job::Tenant::new(&format!("t{nth}")).ok();
    args.tenants.map_or_else(|| vec![crate::job::Tenant::unnamed()], |count| (1..=count).filter_map(name).collect())
}

/// Loads with something in them.
fn filled(loads: &[Load]) -> bool {
    loads.iter().any(|load| load.backlog > 0 || load.rate > 0.0)
}
