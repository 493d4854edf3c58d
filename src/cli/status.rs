//! `lanes status`: what is waiting, for what, who works on it, and whether a person is needed.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, Exit};
use super::pause;
use super::signals::Signals;
use super::text::{Table, ago, count, shorten, until};
use super::view;
use crate::app;
use crate::broker::Broker;
use crate::clock::{self, Clock as _, Timestamp};
use crate::governor::view::Held;
use crate::job::LaneName;
use crate::job::control::Paused;
use crate::observe::{self, Lane, Picture};
use crate::store::{IN_TURN, State, StateCount, Store, WorkerRow};

/// Time between two pictures of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Most endpoints and tenants of a lane that are shown of those that wait for a turn; all of them: `lanes limits list`.
const HELD_SHOWN_MAX: usize = 20;
/// Most characters of a name, and of a reason.
const CELL_MAX: usize = 40;
const WHY_MAX: usize = 100;

/// Arguments of `lanes status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again and again, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// Runs it.
pub async fn run(mut ctx: Context, args: StatusArgs) -> Result<Exit, CliError> {
    let mut doors = Doors::default();
    if !args.watch {
        let picture = look(&ctx, &mut doors).await?;
        show(&mut ctx, &picture)?;
        return Ok(if picture.incidents.is_empty() { Exit::Ok } else { Exit::Unhealthy });
    }
    let listened = Signals::listen();
    let mut signals = listened.map_err(|error| CliError::failed(format!("cannot listen to signals: {error}")))?;
    loop {
        let picture = look(&ctx, &mut doors).await?;
        if ctx.out.is_terminal() && !ctx.out.is_json() {
            ctx.out.clear()?;
        }
        show(&mut ctx, &picture)?;
        tokio::select! {
            _ = signals.next() => return Ok(Exit::Ok),
            () = clock::sleep(&ctx.clock, WATCH_EVERY) => {}
        }
    }
}

/// Broker and store, kept open from one look to the next.
#[derive(Default)]
struct Doors {
    broker: Option<Arc<dyn Broker>>,
    store: Option<Arc<dyn Store>>,
}

/// What can be seen now; what cannot be reached is part of the picture.
async fn look(ctx: &Context, doors: &mut Doors) -> Result<Picture, CliError> {
    let store = opened(&mut doors.store, ctx.store()).await?;
    let broker = opened(&mut doors.broker, ctx.broker()).await?;
    let (store, broker) = (store.as_deref().map_err(Clone::clone), broker.as_deref().map_err(Clone::clone));
    Ok(observe::look(&app::scope(&ctx.specs), store, broker, ctx.clock.now()).await)
}

/// What is open already, or what `open` answers. An error of the configuration ends the command.
async fn opened<T: ?Sized>(
    kept: &mut Option<Arc<T>>,
    open: impl Future<Output = Result<Arc<T>, CliError>>,
) -> Result<Result<Arc<T>, String>, CliError> {
    if let Some(kept) = kept {
        return Ok(Ok(Arc::clone(kept)));
    }
    match open.await {
        Ok(new) => Ok(Ok(Arc::clone(kept.insert(new)))),
        Err(error) if error.exit() == Exit::Usage => Err(error),
        Err(error) => Ok(Err(error.message().to_owned())),
    }
}

fn show(ctx: &mut Context, picture: &Picture) -> Result<(), CliError> {
    if ctx.out.is_json() {
        ctx.out.document(&document(picture))?;
        ctx.out.flush()?;
        return Ok(());
    }
    ctx.out.table(&lanes_table(picture))?;
    for table in [paused_table(picture), waiting_table(picture), workers_table(picture)] {
        if !table.is_empty() {
            ctx.out.line("")?;
            ctx.out.table(&table)?;
        }
    }
    ctx.out.line("")?;
    if picture.incidents.is_empty() {
        ctx.out.line("healthy")?;
    }
    for incident in &picture.incidents {
        ctx.out.line(format_args!("! {}", super::text::clean_line(&incident.message)))?;
        if !incident.message.contains(&incident.step) {
            ctx.out.line(format_args!("  next: {}", super::text::clean_line(&incident.step)))?;
        }
    }
    ctx.out.flush()?;
    Ok(())
}

fn lanes_table(picture: &Picture) -> Table {
    let mut table =
        Table::new(&["LANE", ">READY", ">UNACKED", ">RUNNING", ">WAITING", ">QUEUED", ">DEAD", "OLDEST", ">WORKERS"]);
    for (name, lane) in &picture.lanes {
        let stored = |number: u64| if picture.store.is_ok() { count(number) } else { "?".to_owned() };
        let known = |number: Option<u64>| match (number, &picture.broker) {
            (_, Err(_)) => "?".to_owned(),
            (number, Ok(())) => number.map(count).unwrap_or_default(),
        };
        table.row([
            match (lane.configured, picture.pause_of(name)) {
                (true, None) => name.to_string(),
                (true, Some(_)) => format!("{name} (paused)"),
                (false, _) => format!("{name} (not configured)"),
            },
            known(Some(lane.ready)),
            known(lane.unacked),
            stored(lane.jobs(State::Run)),
            stored(lane.jobs(State::Waiting)),
            stored(lane.jobs(State::Queued)),
            stored(lane.dead),
            lane.oldest().map(|at| ago(at, picture.now)).unwrap_or_default(),
            stored(lane.workers),
        ]);
    }
    table
}

fn paused_table(picture: &Picture) -> Table {
    let mut table = Table::new(&["PAUSED", "ENDS", "BY", "SINCE", "NOTE"]);
    for Paused { target, pause } in &picture.paused {
        table.row([
            shorten(&target.to_string(), CELL_MAX),
            pause::ends(pause, picture.now),
            shorten(&pause.author, CELL_MAX),
            ago(pause.set_at, picture.now),
            shorten(&pause.note, WHY_MAX),
        ]);
    }
    table
}

fn waiting_table(picture: &Picture) -> Table {
    let mut table = Table::new(&["WAITING IN", "REASON", ">JOBS", "NEXT", "LAST", "ENDPOINT", "TENANT", "WHY"]);
    let in_time = |at: Option<Timestamp>| at.map(|at| until(at, picture.now)).unwrap_or_default();
    for (name, lane) in &picture.lanes {
        for waiting in lane.counts.iter().filter(|count| count.state == State::Waiting && !is_in_turn(count)) {
            // nothing of a paused lane goes on before its pause is over
            let next = match picture.pause_of(name).map(|pause| pause.until) {
                Some(None) => "when resumed".to_owned(),
                Some(end) => in_time(end.max(waiting.next_resume_at)),
                None => in_time(waiting.next_resume_at),
            };
            let unknown = [const { String::new() }; 4];
            let cells = [name.to_string(), waiting.reason.clone(), count(waiting.jobs), next];
            table.row(cells.into_iter().chain(unknown));
        }
        for held in picture.held.iter().filter(|held| held.of.lane == *name).take(HELD_SHOWN_MAX) {
            let next = held.next.as_ref();
            table.row([
                name.to_string(),
                next.map_or("due", |next| next.reason.as_str()).to_owned(),
                count(held.of.jobs),
                in_time(next.and_then(|next| next.until)),
                in_time(held.last_at),
                held.of.endpoint.to_string(),
                shorten(held.of.tenant.as_str(), CELL_MAX),
                next.map(|next| shorten(&next.why, WHY_MAX)).unwrap_or_default(),
            ]);
        }
    }
    table
}

/// Rows that wait for their turn: what holds them back is told by endpoint and tenant.
fn is_in_turn(count: &StateCount) -> bool {
    count.next_resume_at == Some(IN_TURN)
}

fn workers_table(picture: &Picture) -> Table {
    let mut table = Table::new(&["WORKER", "LANES", "STARTED", "HEARTBEAT", "STATE"]);
    for (worker, alive) in &picture.workers {
        table.row([
            worker.name.clone(),
            worker.lanes.clone(),
            ago(worker.started_at, picture.now),
            ago(worker.heartbeat_at, picture.now),
            if *alive { "alive" } else { "silent" }.to_owned(),
        ]);
    }
    table
}

fn document(picture: &Picture) -> Value {
    let reachable = |state: &Result<(), String>| json!({ "reachable": state.is_ok(), "error": state.as_ref().err() });
    let held = |held: &Held| {
        json!({
            "lane": held.of.lane, "endpoint": held.of.endpoint, "tenant": held.of.tenant, "jobs": held.of.jobs,
            "oldest_published_at": view::time(Some(held.of.oldest_published_at)),
            "reason": held.next.as_ref().map(|next| next.reason), "why": held.next.as_ref().map(|next| &next.why),
            "next_at": view::time(held.next.as_ref().and_then(|next| next.until)), "last_at": view::time(held.last_at),
        })
    };
    let lane = |(name, lane): &(LaneName, Lane)| {
        let waiting: Vec<Value> = lane
            .counts
            .iter()
            .filter(|count| count.state == State::Waiting)
            .map(|count| json!({ "reason": count.reason, "jobs": count.jobs, "next_resume_at": view::time(count.next_resume_at) }))
            .collect();
        json!({
            "name": name, "configured": lane.configured, "ready": lane.ready, "due_ready": lane.due,
            "unacked": lane.unacked, "running": lane.jobs(State::Run), "waiting": lane.jobs(State::Waiting),
            "waiting_by_reason": waiting, "queued": lane.jobs(State::Queued), "dead": lane.dead,
            "oldest_published_at": view::time(lane.oldest()), "workers": lane.workers,
            "pause": picture.pause_of(name).map(pause::pause_document),
            "concurrency": super::lane::concurrency_document(lane.concurrency, lane.said.as_ref()),
        })
    };
    let worker = |(worker, alive): &(WorkerRow, bool)| {
        json!({
            "id": worker.id, "name": worker.name, "lanes": worker.lanes.split(',').collect::<Vec<_>>(),
            "started_at": view::time(Some(worker.started_at)), "heartbeat_at": view::time(Some(worker.heartbeat_at)),
            "heartbeat_age_seconds": picture.now.since(worker.heartbeat_at).as_secs_f64(), "alive": alive,
        })
    };
    json!({
        "schema": 1, "healthy": picture.incidents.is_empty(), "time": view::time(Some(picture.now)),
        "broker": reachable(&picture.broker), "store": reachable(&picture.store),
        "lanes": picture.lanes.iter().map(lane).collect::<Vec<_>>(),
        "held": picture.held.iter().map(held).collect::<Vec<_>>(),
        "paused": picture.paused.iter().map(pause::document).collect::<Vec<_>>(),
        "workers": picture.workers.iter().map(worker).collect::<Vec<_>>(),
        "problems": picture.incidents,
    })
}
