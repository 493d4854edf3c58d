//! Reads what cannot be counted as it happens (depths, waiting jobs, workers, letters) and hands it to telemetry.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::upkeep::Upkeep;
use crate::broker::Broker;
use crate::clock;
use crate::job::{LaneName, wire};
use crate::store::{IN_TURN, State, StateCount, StoreResult};
use crate::telemetry::QueueReading;

/// How often the gauges are renewed.
const EVERY: Duration = Duration::from_secs(5);

/// Runs until `stop`.
pub(super) async fn run(upkeep: Arc<Upkeep>, broker: Arc<dyn Broker>, stop: CancellationToken) {
    loop {
        let round = async {
            read_health(&upkeep, &*broker);
            // each for itself: one reading that fails must not freeze the others
            let readings =
                [read_lanes(&upkeep, &*broker).await, read_letters(&upkeep).await, read_workers(&upkeep).await];
            for error in readings.into_iter().filter_map(Result::err) {
                tracing::warn!(%error, "some gauges keep their last values");
            }
            clock::sleep(&*upkeep.clock, EVERY).await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

fn read_health(upkeep: &Upkeep, broker: &dyn Broker) {
    let health = broker.health();
    upkeep.telemetry.broker_connected(health.is_ok());
    upkeep.health.set("broker", health);
}

async fn read_lanes(upkeep: &Upkeep, broker: &dyn Broker) -> StoreResult<()> {
    let counts = upkeep.store.state_counts().await?;
    for ctx in &upkeep.lanes {
        let lane = &ctx.settings;
        // released jobs are counted as rows: their wake-ups in the due queue are only hints
        let fresh = match broker.depth(&wire::queue(&lane.name)).await {
            Ok(depth) => depth.map_or(0, |depth| depth.ready),
            Err(error) => {
                tracing::debug!(lane = %lane.name, %error, "queue depth unknown, gauges keep their last values");
                continue;
            }
        };
        let running = ctx.progress.owned.load(Ordering::Relaxed) as u64;
        let reading = reading(&lane.name, fresh, running, &counts);
        let age = reading.oldest_published_at.map(|at| upkeep.clock.now().since(at));
        upkeep.telemetry.looked(&lane.name, fresh + reading.queued > 0, age);
        upkeep.telemetry.queue(&lane.name, reading);
    }
    Ok(())
}

async fn read_letters(upkeep: &Upkeep) -> StoreResult<()> {
    let letters: HashMap<LaneName, u64> = upkeep.store.letter_counts().await?.into_iter().collect();
    for lane in &upkeep.settings.lanes {
        upkeep.telemetry.dead_jobs(&lane.name, letters.get(&lane.name).copied().unwrap_or(0));
    }
    Ok(())
}

async fn read_workers(upkeep: &Upkeep) -> StoreResult<()> {
    let silent_since = upkeep.clock.now().minus(upkeep.settings.lease);
    let workers = upkeep.store.workers().await?;
    let alive = workers.iter().filter(|worker| worker.heartbeat_at > silent_since).count();
    upkeep.telemetry.workers(alive, workers.len() - alive);
    Ok(())
}

/// `running` is this worker's own number: the rows of all workers have no index, by design.
fn reading(lane: &LaneName, ready: u64, running: u64, counts: &[StateCount]) -> QueueReading {
    let of_lane = || counts.iter().filter(|count| count.lane == *lane);
    let jobs = |state| of_lane().filter(|count| count.state == state).map(|count| count.jobs).sum();
    let in_turn = of_lane().filter(|count| count.state == State::Waiting && count.next_resume_at == Some(IN_TURN));
    let held: u64 = in_turn.map(|count| count.jobs).sum();
    let waiting: u64 = jobs(State::Waiting);
    QueueReading {
        ready,
        running,
        waiting: waiting - held,
        held,
        queued: jobs(State::Queued),
        oldest_published_at: of_lane().filter_map(|count| count.oldest_published_at).min(),
    }
}
