//! `lanes lane`: which lanes work and which are paused, how many calls they make at a time; changing both while workers run.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::error::{CliError, Exit};
use super::names;
use super::pause::{self, ByArgs, PauseArgs, ends};
use super::text::{Table, ago, parse_duration, shorten, until};
use super::view;
use crate::clock::Timestamp;
use crate::governor::lanes;
use crate::governor::operator;
use crate::job::LaneName;
use crate::job::control::{CONCURRENCY_MAX, Concurrency, Pause, Target};
use crate::store::{ConcurrencyRow, ControlRow, Store, StoreResult};

/// Most characters of a free text in a table.
const CELL_MAX: usize = 60;

/// Subcommands of `lanes lane`.
#[derive(Debug, Subcommand)]
pub enum LaneCommand {
    /// List lanes: how many calls they make at a time, which are paused; until when, by whom and why
    List,
    /// Hold a lane back, on all workers: nothing new is called, calls in flight finish, nothing is lost, no attempt is spent
    Pause {
        /// The lane
        #[arg(value_parser = LaneName::new)]
        lane: LaneName,
        #[command(flatten)]
        args: PauseArgs,
    },
    /// Let a paused lane go on
    Resume {
        /// The lane
        #[arg(value_parser = LaneName::new)]
        lane: LaneName,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Change how many calls a lane makes at a time in each worker, while workers run
    Set(SetArgs),
    /// Let a lane make as many calls at a time as is configured
    Reset {
        /// The lane
        #[arg(value_parser = LaneName::new)]
        lane: LaneName,
        #[command(flatten)]
        by: ByArgs,
    },
}

/// How many calls, and for how long.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The lane
    #[arg(value_parser = LaneName::new)]
    lane: LaneName,
    /// Most calls in flight, in each worker; where there are fewer than before, those in flight finish
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONCURRENCY_MAX)))]
    concurrency: u32,
    /// It ends by itself after this time: 15m, 2h; without it lasts until it is reset
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    lasts: Option<Duration>,
    #[command(flatten)]
    by: ByArgs,
}

/// Runs it.
pub async fn run(ctx: Context, command: LaneCommand) -> Result<Exit, CliError> {
    match command {
        LaneCommand::List => list(ctx).await,
        LaneCommand::Pause { lane, args } => {
            names::lane(&ctx.specs, &lane, Exit::NotFound)?;
            let resume = format!("lanes lane resume {lane}");
            pause::pause(ctx, &Target::Lane(lane), args, &resume).await
        }
        LaneCommand::Resume { lane, by } => {
            // one that is not configured any more may be paused still
            let unknown = names::lane(&ctx.specs, &lane, Exit::NotFound).err();
            let resumed = pause::resume(ctx, &Target::Lane(lane), by).await;
            match (resumed, unknown) {
                (Err(error), Some(unknown)) if error.exit() == Exit::NotFound => Err(unknown),
                (resumed, _) => resumed,
            }
        }
        LaneCommand::Set(args) => set(ctx, args).await,
        LaneCommand::Reset { lane, by } => reset(ctx, &lane, by).await,
    }
}

async fn set(mut ctx: Context, args: SetArgs) -> Result<Exit, CliError> {
    let SetArgs { lane, concurrency, lasts, by } = args;
    names::lane(&ctx.specs, &lane, Exit::NotFound)?;
    let store = ctx.store().await?;
    let now = store.time().await?;
    let until_at = operator::end_of(lasts, now)?;
    let before = lanes::set_concurrency(&*store, &lane, concurrency, until_at, &by.speaker(), now).await?;
    let configured = configured(&ctx, &lane);
    if ctx.out.is_json() {
        ctx.out.document(&json!({
            "lane": lane, "result": "set", "configured": configured, "now": concurrency, "until": view::time(until_at),
            "before": before.as_ref().map(view::said),
        }))?;
    } else {
        let ends = until_at.map(|at| format!(", ends {} ({at})", until(at, now))).unwrap_or_default();
        let usual = configured.map(|calls| format!(" (configured: {calls})")).unwrap_or_default();
        ctx.out.line(format_args!(
            "lane {lane} makes {concurrency} calls at a time in each worker{usual}{ends}; workers follow within a second; \
             back with: lanes lane reset {lane}"
        ))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

async fn reset(mut ctx: Context, lane: &LaneName, by: ByArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let now = store.time().await?;
    let Some(before) = lanes::reset_concurrency(&*store, lane, &by.speaker(), now).await? else {
        // one that is not configured any more may have been set still
        names::lane(&ctx.specs, lane, Exit::NotFound)?;
        return Err(CliError::not_found(format!("lane {lane} makes as many calls at a time as is configured"))
            .help("lanes lane list shows which were set"));
    };
    let configured = configured(&ctx, lane);
    if ctx.out.is_json() {
        ctx.out.document(&json!({
            "lane": lane, "result": "reset", "configured": configured, "now": configured, "until": null,
            "before": view::said(&before),
        }))?;
    } else {
        let usual = configured.map(|calls| format!(" ({calls})")).unwrap_or_default();
        ctx.out.line(format_args!(
            "lane {lane} makes as many calls at a time as is configured{usual}; workers follow within a second"
        ))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

/// Calls at a time in each worker, as the configuration says.
fn configured(ctx: &Context, lane: &LaneName) -> Option<u32> {
    ctx.specs.lanes.iter().find(|spec| spec.name == *lane).map(|spec| spec.concurrency)
}

/// A lane, what is configured of it, and what operators have said.
struct Listed {
    name: LaneName,
    configured: Option<u32>,
    pause: Option<Pause>,
    said: Option<Concurrency>,
}

async fn list(mut ctx: Context) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let now = store.time().await?;
    let lanes = listed(&ctx, &*store, now).await?;
    if ctx.out.is_json() {
        let document = |lane: &Listed| {
            json!({
                "name": lane.name, "configured": lane.configured.is_some(),
                "state": if lane.pause.is_some() { "paused" } else { "running" },
                "pause": lane.pause.as_ref().map(view::pause),
                "concurrency": view::concurrency(lane.configured, lane.said.as_ref()),
            })
        };
        ctx.out.document(&lanes.iter().map(document).collect())?;
    } else {
        let mut table =
            Table::new(&["LANE", "STATE", "ENDS", "BY", "SINCE", "NOTE", ">CALLS", "INSTEAD OF", "CALLS SET"]);
        for lane in &lanes {
            table.row(cells(lane, now));
        }
        ctx.out.table(&table)?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

async fn listed(ctx: &Context, store: &dyn Store, now: Timestamp) -> StoreResult<Vec<Listed>> {
    let of_lane = |row: ControlRow| match row.target {
        Target::Lane(lane) => Some((lane, row.pause)),
        _ => None,
    };
    let rows = store.controls().await?.into_iter().filter(|row| row.pause.lasts(now));
    let mut paused: BTreeMap<LaneName, Pause> = rows.filter_map(of_lane).collect();
    let rows = store.concurrencies().await?.into_iter().filter(|row| row.concurrency.lasts(now));
    let mut said: BTreeMap<LaneName, Concurrency> =
        rows.map(|ConcurrencyRow { lane, concurrency, .. }| (lane, concurrency)).collect();
    let configured: Vec<_> = ctx.specs.lanes.iter().map(|lane| (lane.name.clone(), Some(lane.concurrency))).collect();
    let others: Vec<_> = paused.keys().chain(said.keys()).map(|lane| (lane.clone(), None)).collect();
    let mut lanes: Vec<Listed> = Vec::new();
    for (name, configured) in configured.into_iter().chain(others) {
        if lanes.iter().all(|lane| lane.name != name) {
            let (pause, said) = (paused.remove(&name), said.remove(&name));
            lanes.push(Listed { name, configured, pause, said });
        }
    }
    Ok(lanes)
}

fn cells(lane: &Listed, now: Timestamp) -> Vec<String> {
    let name =
        if lane.configured.is_some() { lane.name.to_string() } else { format!("{} (not configured)", lane.name) };
    let mut cells = vec![name];
    cells.extend(match &lane.pause {
        None => ["running".to_owned()].into_iter().chain([const { String::new() }; 4]).collect::<Vec<_>>(),
        Some(pause) => vec![
            "paused".to_owned(),
            ends(pause, now),
            shorten(&pause.author, CELL_MAX),
            ago(pause.set_at, now),
            shorten(&pause.note, CELL_MAX),
        ],
    });
    let configured = lane.configured.map(|calls| calls.to_string()).unwrap_or_default();
    cells.extend(match &lane.said {
        None => [configured, String::new(), String::new()],
        Some(said) => [said.calls.to_string(), configured, shorten(&said_text(said, now), CELL_MAX)],
    });
    cells
}

/// `by ada, ends in 59m: the CRM is slow today`
fn said_text(said: &Concurrency, now: Timestamp) -> String {
    let end = said.until.map_or_else(|| "until it is reset".to_owned(), |at| format!("ends {}", until(at, now)));
    let note = if said.note.is_empty() { String::new() } else { format!(": {}", said.note) };
    format!("by {}, {end}{note}", said.author)
}
