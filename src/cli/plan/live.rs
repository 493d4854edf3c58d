//! The present as a load: jobs that wait now, budgets as they are, what is known of the APIs.

use std::collections::{BTreeMap, BTreeSet};

use super::{PlanArgs, endpoint_of, filled, tenants};
use crate::app;
use crate::broker::Broker;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::text::{count, counted};
use crate::clock::Timestamp;
use crate::config::specs::LaneSpec;
use crate::governor::{self, Governor};
use crate::job::{EndpointName, LaneName, Tenant, wire};
use crate::plan::{self, Forecast, Load, Present, Setup, TENANTS_MAX, Way};
use crate::store::{HeldCount, State, StateCount, Store};

/// The end of a pause that lasts until it is resumed: not within any plan.
const NEVER: Timestamp = Timestamp::MAX;

/// Simulates what waits now, beside what the command line adds.
pub async fn forecast(
    ctx: &Context,
    args: &PlanArgs,
    setup: &mut Setup,
    loads: &mut Vec<Load>,
    notes: &mut Vec<String>,
) -> Result<Forecast, CliError> {
    let store = ctx.store().await?;
    let broker = ctx.broker().await?;
    setup.start = store.time().await?;
    if args.workers.is_none() {
        let alive = |heartbeat_at: Timestamp| setup.start.since(heartbeat_at) <= ctx.specs.worker.lease;
        let workers = store.workers().await?.iter().filter(|worker| alive(worker.heartbeat_at)).count();
        setup.workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    }
    let governor = app::open_governor(&ctx.specs, &*store, setup.start).await?;
    for paused in governor.lasting_pauses(setup.start) {
        let end = paused.pause.until.map_or("until it is resumed".to_owned(), |until| format!("until {until}"));
        notes.push(format!("{} is paused {end}: its jobs wait so long", paused.target));
    }
    loads.extend(present_loads(ctx, args, &*store, &*broker, notes).await?);
    if !filled(loads) {
        notes.push("nothing waits now; say what would: --backlog bulk=35000, --rate realtime=2/s".to_owned());
    }
    let mut keys = BTreeSet::new();
    for load in &*loads {
        for tenant in &load.tenants {
            if let Way::Windows(windows) = way(&governor, &load.lane, &load.endpoint, tenant, setup.start) {
                keys.extend(windows.into_iter().map(|window| window.key));
            }
        }
    }
    let keys: Vec<String> = keys.into_iter().collect();
    let due = store.peek(&keys).await?.into_iter().collect();
    let way =
        |lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant, now| way(&governor, lane, endpoint, tenant, now);
    Ok(plan::plan(setup, loads, Some(&Present { way: &way, due })))
}

fn way(governor: &Governor, lane: &LaneName, endpoint: &EndpointName, tenant: &Tenant, now: Timestamp) -> Way {
    if let Some(paused) = governor.job_pause((lane, endpoint, tenant), now) {
        return Way::Shut(paused.pause.until.unwrap_or(NEVER));
    }
    match governor.way(lane, endpoint, tenant, now) {
        governor::Way::Free => Way::Windows(Vec::new()),
        governor::Way::Paced(windows) => Way::Windows(windows),
        governor::Way::Shut { until, .. } => Way::Shut(until.unwrap_or(NEVER)),
        // the call that shows how things are is taken to work
        governor::Way::Probe(_) => Way::Unknown,
    }
}

/// What waits now, by lane, endpoint and tenant.
async fn present_loads(
    ctx: &Context,
    args: &PlanArgs,
    store: &dyn Store,
    broker: &dyn Broker,
    notes: &mut Vec<String>,
) -> Result<Vec<Load>, CliError> {
    let counts = store.state_counts().await?;
    let held = store.held(TENANTS_MAX).await?;
    let mut loads = Vec::new();
    for lane in &ctx.specs.lanes {
        let depth =
            broker.depth(&wire::queue(&lane.name)).await.map_err(|error| CliError::failed(error.to_string()))?;
        // a queue that nobody has declared yet is empty
        let ready = depth.map_or(0, |depth| depth.ready);
        let held: Vec<&HeldCount> = held.iter().filter(|held| held.lane == lane.name).collect();
        let of_lane: Vec<&StateCount> = counts.iter().filter(|count| count.lane == lane.name).collect();
        loads.extend(of_one(ctx, args, lane, ready, &held, &of_lane, notes)?);
    }
    Ok(loads)
}

fn of_one(
    ctx: &Context,
    args: &PlanArgs,
    lane: &LaneSpec,
    ready: u64,
    held: &[&HeldCount],
    counts: &[&StateCount],
    notes: &mut Vec<String>,
) -> Result<Vec<Load>, CliError> {
    let in_state = |state| counts.iter().filter(|count| count.state == state).map(|count| count.jobs).sum::<u64>();
    let known: u64 = held.iter().map(|held| held.jobs).sum();
    // those that wait for a time of their own, and those whose tenant is not told
    let later = in_state(State::Waiting).saturating_sub(known);
    let unknown = ready + in_state(State::Queued) + later;
    let mut whose: BTreeMap<(EndpointName, Tenant), u64> = BTreeMap::new();
    for held in held {
        // what is not configured any more can't be called
        if ctx.specs.endpoints.iter().any(|endpoint| endpoint.name == held.endpoint) {
            *whose.entry((held.endpoint.clone(), held.tenant.clone())).or_default() += held.jobs;
        }
    }
    if later > 0 {
        notes.push(format!(
            "lane {}: {} that wait for a time of their own (retries) count as if it had come",
            lane.name,
            counted(later, "job")
        ));
    }
    if unknown > 0 && whose.is_empty() {
        let endpoint = endpoint_of(&ctx.specs, args, lane, None)?;
        let tenants = tenants(args);
        let over =
            if args.tenants.is_some() { counted(tenants.len() as u64, "tenant") } else { "tenant default".to_owned() };
        notes.push(format!(
            "lane {}: nobody knows whose {} ready are before a worker has read them; they count for {endpoint}, {over}",
            lane.name,
            jobs_are(unknown)
        ));
        return Ok(vec![Load { lane: lane.name.clone(), endpoint, tenants, backlog: unknown, rate: 0.0 }]);
    }
    if unknown > 0 {
        notes.push(format!(
            "lane {}: {} of unknown tenants are spread like the {} that wait for budgets",
            lane.name,
            counted(unknown, "job"),
            count(known)
        ));
    }
    spread(&mut whose, unknown);
    let load = |((endpoint, tenant), backlog)| Load {
        lane: lane.name.clone(),
        endpoint,
        tenants: vec![tenant],
        backlog,
        rate: 0.0,
    };
    Ok(whose.into_iter().map(load).collect())
}

fn jobs_are(jobs: u64) -> String {
    if jobs == 1 { "1 job that is".to_owned() } else { format!("{} jobs that are", count(jobs)) }
}

/// Adds jobs in proportion to those that are known; what does not divide goes to the last.
fn spread(whose: &mut BTreeMap<(EndpointName, Tenant), u64>, more: u64) {
    let known: u64 = whose.values().sum();
    if known == 0 {
        return;
    }
    let (mut seen, mut given) = (0_u64, 0);
    for jobs in whose.values_mut() {
        seen += *jobs;
        let until = u64::try_from(u128::from(more) * u128::from(seen) / u128::from(known)).unwrap_or(more);
        *jobs += until - given;
        given = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_jobs_are_spread_like_the_known_ones() {
        let endpoint = EndpointName::new("crm").expect("an endpoint");
        let key = |tenant: &str| (endpoint.clone(), Tenant::new(tenant).expect("a tenant"));
        let mut whose = BTreeMap::from([(key("a"), 1), (key("b"), 2), (key("c"), 0)]);
        spread(&mut whose, 10);
        assert_eq!(whose.into_values().collect::<Vec<_>>(), [4, 9, 0]);
    }
}
