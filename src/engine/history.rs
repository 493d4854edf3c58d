//! Writes what was counted to the store, in steps of time: history for those who have no Prometheus.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::upkeep::Upkeep;
use crate::clock;
use crate::store::HISTORY_MAX;

/// How often: as long as the shortest step.
const EVERY: Duration = Duration::from_secs(10);

/// Runs until `stop`, and writes once more then.
pub(super) async fn run(upkeep: Arc<Upkeep>, stop: CancellationToken) {
    loop {
        let stopped = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            () = clock::sleep(&*upkeep.clock, EVERY) => false,
        };
        write(&upkeep).await;
        if stopped {
            return;
        }
    }
}

async fn write(upkeep: &Upkeep) {
    let mut counts = upkeep.telemetry.take_history();
    // few at a time even after a long outage of the store, in which nothing much is counted
    while !counts.is_empty() {
        let rest = counts.split_off(counts.len().min(HISTORY_MAX));
        if let Err(error) = upkeep.store.add_history(upkeep.clock.now(), &counts).await {
            tracing::warn!(%error, "the history is not written this time, its counts are kept");
            upkeep.telemetry.give_back_history(counts);
            upkeep.telemetry.give_back_history(rest);
            return;
        }
        counts = rest;
    }
}
