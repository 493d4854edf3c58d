//! A whole worker: registers, runs its lanes and their helpers, and ends in order.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::lane::{self, LaneEnd};
use super::settings::WorkerSettings;
use super::upkeep::{self, Upkeep};
use super::{
    CallTimes, FailureWait, LaneContext, Liveness, Parked, Progress, graveyard, history, lessons, monitor, operations,
    releaser, turns,
};
use crate::broker::Broker;
use crate::clock::{self, SharedClock, Timestamp};
use crate::dispatch::Dispatch;
use crate::governor::Governor;
use crate::job::LaneName;
use crate::policy::pacing::Budgets;
use crate::store::{Store, WorkerId};
use crate::telemetry::Telemetry;
use crate::telemetry::health::Health;

/// After the calls were cut: how long their settlements may take.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(5);

/// What a worker is made of. Each lane has its own handle to the store (its own connections).
#[derive(Debug)]
pub struct WorkerParts {
    /// Everything it has to know.
    pub settings: WorkerSettings,
    /// The queues.
    pub broker: Arc<dyn Broker>,
    /// The store of each lane.
    pub lane_stores: HashMap<LaneName, Arc<dyn Store>>,
    /// The store for liveness, sweeps and retention.
    pub control_store: Arc<dyn Store>,
    /// The store for heartbeats alone.
    pub liveness_store: Arc<dyn Store>,
    /// What makes the calls.
    pub dispatch: Arc<dyn Dispatch>,
    /// What is told.
    pub telemetry: Telemetry,
    /// What it says of itself to load balancers.
    pub health: Health,
    /// The store's time.
    pub clock: SharedClock,
}

/// A task of the worker ended although nobody had told it to: a bug. What it owned is taken over after the lease.
#[derive(Debug, thiserror::Error)]
#[error("a part of the worker failed ({0}); start it again, and please report this")]
pub struct WorkerFailed(String);

/// Runs until `stop`, then ends in order: takes nothing new, lets calls finish within the drain time, gives the rest back.
///
/// # Errors
/// A task failed. The process should end, so that it is started anew and others take its jobs over.
pub async fn run(parts: WorkerParts, stop: CancellationToken) -> Result<(), WorkerFailed> {
    let Some((worker, asked_at)) = register(&parts, &stop).await else { return Ok(()) };
    let over = CancellationToken::new();
    let end = LaneEnd { stop: stop.clone(), cut: CancellationToken::new() };
    let liveness = Arc::new(Liveness::new(worker, asked_at, parts.settings.lease));
    let lanes = contexts(&parts, &liveness);
    let upkeep = Arc::new(Upkeep {
        settings: parts.settings.clone(),
        store: Arc::clone(&parts.control_store),
        liveness_store: Arc::clone(&parts.liveness_store),
        lanes: lanes.clone(),
        telemetry: parts.telemetry.clone(),
        health: parts.health.clone(),
        clock: Arc::clone(&parts.clock),
        liveness: Arc::clone(&liveness),
    });
    let mut helpers = JoinSet::new();
    helpers.spawn(upkeep::liveness(Arc::clone(&upkeep), over.clone()));
    helpers.spawn(upkeep::takeovers(Arc::clone(&upkeep), stop.clone()));
    helpers.spawn(monitor::run(Arc::clone(&upkeep), Arc::clone(&parts.broker), stop.clone()));
    helpers.spawn(operations::run(Arc::clone(&upkeep), Arc::clone(&parts.broker), stop.clone()));
    helpers.spawn(history::run(Arc::clone(&upkeep), over.clone()));
    helpers.spawn(upkeep::retention(upkeep, stop.clone()));
    if let Some(first) = lanes.first() {
        lessons::first(&first.governor, &*parts.control_store, parts.clock.now()).await;
    }
    let mut running = JoinSet::new();
    for ctx in &lanes {
        running.spawn(lane::run(Arc::clone(ctx), end.clone()));
        helpers.spawn(releaser::run(Arc::clone(ctx), stop.clone()));
        helpers.spawn(turns::run(Arc::clone(ctx), stop.clone()));
        helpers.spawn(upkeep::sweep_queued(Arc::clone(ctx), stop.clone()));
    }
    if let Some(first) = lanes.first() {
        helpers.spawn(graveyard::run(Arc::clone(first), stop.clone()));
        let store = Arc::clone(&parts.control_store);
        // to the end of the drain: what the last calls show is told too
        helpers.spawn(lessons::run(Arc::clone(&first.governor), store, Arc::clone(first), over.clone()));
    }
    let failed = tokio::select! {
        biased; // helpers end because of the stop: it has to be seen first
        () = stop.cancelled() => None,
        Some(ended) = running.join_next() => Some(why(ended)),
        Some(ended) = helpers.join_next() => Some(why(ended)),
    };
    if let Some(why) = failed {
        tracing::error!(%why, "a part of the worker failed");
        parts.health.set("worker", Err(why.clone()));
        return Err(WorkerFailed(why));
    }
    let drained = drain(&parts, running, &end).await;
    over.cancel();
    let helped = all(&mut helpers).await;
    // without it the lease ends by itself, and that is when others look for what is left
    if matches!(drained, Ok(Drained::Settled))
        && let Err(error) = parts.liveness_store.deregister(liveness.worker()).await
    {
        tracing::warn!(%error, "not deregistered; other workers notice when the lease is over");
    }
    drained.and(helped)
}

fn why(ended: Result<(), tokio::task::JoinError>) -> String {
    ended.map_or_else(|error| error.to_string(), |()| "it ended by itself".to_owned())
}

/// The new worker, and the time it is written under, from which others count its lease.
async fn register(parts: &WorkerParts, stop: &CancellationToken) -> Option<(WorkerId, Timestamp)> {
    let lanes = upkeep::lanes_of(&parts.settings);
    let mut wait = FailureWait::new();
    loop {
        let now = parts.clock.now();
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            answer = parts.liveness_store.register(&parts.settings.name, &lanes, now) => match answer {
                Ok(worker) => return Some((worker, now)),
                Err(error) => error,
            }
        };
        parts.health.set("store", Err(error.to_string()));
        tracing::error!(%error, "not registered yet, will try again");
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = wait.wait(&*parts.clock) => {}
        }
    }
}

fn contexts(parts: &WorkerParts, liveness: &Arc<Liveness>) -> Vec<Arc<LaneContext>> {
    let endpoints = Arc::new(parts.settings.endpoints.clone());
    let governor = Arc::new(Governor::new(Budgets::clone(&parts.settings.budgets)));
    let context = |settings: &super::settings::LaneSettings| {
        let store = parts.lane_stores.get(&settings.name).unwrap_or(&parts.control_store);
        Arc::new(LaneContext {
            settings: settings.clone(),
            endpoints: Arc::clone(&endpoints),
            store: Arc::clone(store),
            broker: Arc::clone(&parts.broker),
            dispatch: Arc::clone(&parts.dispatch),
            telemetry: parts.telemetry.clone(),
            health: parts.health.clone(),
            clock: Arc::clone(&parts.clock),
            liveness: Arc::clone(liveness),
            parked: Parked::default(),
            governor: Arc::clone(&governor),
            times: CallTimes::default(),
            backlog: Backlog::default(),
            in_turn: Parked::default(),
            progress: Progress::default(),
        })
    };
    parts.settings.lanes.iter().map(context).collect()
}

/// Whether the lanes left anything behind.
enum Drained {
    Settled,
    GivenUp,
}

/// Waits for the lanes: as long as the drain time allows, then cuts their calls, then gives up (another worker takes over
/// what could not be settled, as after a crash).
///
/// # Errors
/// A lane failed, and nobody knows what it left behind.
async fn drain(parts: &WorkerParts, mut running: JoinSet<()>, end: &LaneEnd) -> Result<Drained, WorkerFailed> {
    let clock = &*parts.clock;
    tracing::info!(within = ?parts.settings.drain_timeout, "stopping: finishing calls in flight");
    // one future for both waits, so that a lane which failed in the first is still known in the second
    let mut ended = pin!(all(&mut running));
    tokio::select! {
        ended = &mut ended => return ended.map(|()| Drained::Settled),
        () = clock::sleep(clock, parts.settings.drain_timeout) => {}
    }
    tracing::warn!("the drain time is over: calls in flight are cut and given back");
    end.cut.cancel();
    tokio::select! {
        ended = &mut ended => ended.map(|()| Drained::Settled),
        () = clock::sleep(clock, LAST_SETTLEMENTS) => {
            tracing::error!("not everything could be settled; other workers take it over when the lease is over");
            Ok(Drained::GivenUp)
        }
    }
}

/// Waits for all of them; the first that failed is the error.
async fn all(tasks: &mut JoinSet<()>) -> Result<(), WorkerFailed> {
    let mut failed = None;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the worker failed while it stopped");
            failed.get_or_insert(WorkerFailed(error.to_string()));
        }
    }
    failed.map_or(Ok(()), Err)
}
