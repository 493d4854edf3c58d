//! Brings waiting jobs back: marks due rows `queued` (committed), then publishes their wake-ups to the due queue.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{FailureWait, LaneContext, pausing, until_answered};
use crate::broker::{Outgoing, PublishError};
use crate::clock::Timestamp;
use crate::job::wire;
use crate::policy::turns;
use crate::store::Wake;

/// Most rows released in one statement.
const RELEASE_MAX: usize = 500;
/// Rows of one lane that are queued at a time, per message that one worker holds. The rest stays in due order in the
/// store, where it can be seen and cancelled, and the due queue stays short, so that the sweep rarely finds it overdue.
const QUEUED_PER_PREFETCH: usize = 2;
/// Longest time until rows are seen that another worker parked and did not live to release.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Shortest time between two looks while due rows cannot be released (enough are queued, or their key is busy).
const LOOK_AGAIN_BLOCKED: Duration = Duration::from_millis(100);

/// Runs until `stop`; rests while the lane is paused.
pub(super) async fn run(ctx: Arc<LaneContext>, stop: CancellationToken) {
    let lane = &ctx.settings.name;
    while !stop.is_cancelled() {
        let work = async {
            pausing::over(&ctx).await;
            let now = ctx.clock.now();
            // beside those whose turn has come, which must not keep the others waiting
            let queued_max = QUEUED_PER_PREFETCH * usize::from(ctx.prefetch(now)) + turns::RELEASE_MAX as usize;
            let wakes = until_answered(&ctx, "release", || ctx.store.release(lane, now, RELEASE_MAX, queued_max)).await;
            let full = wakes.len() == RELEASE_MAX;
            publish(&ctx, wakes).await;
            if !full {
                wait(&ctx, now).await;
            }
        };
        // giving up half-way is safe at every point: what is marked and not published is swept
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = work => {}
        }
    }
}

async fn wait(ctx: &LaneContext, looked_at: Timestamp) {
    let due = until_answered(ctx, "next_due", || ctx.store.next_due(&ctx.settings.name)).await;
    let latest = looked_at.plus(LOOK_AGAIN);
    let until = match due {
        Some(due) if due <= looked_at => looked_at.plus(LOOK_AGAIN_BLOCKED),
        Some(due) => due.min(latest),
        None => latest,
    };
    tokio::select! {
        () = ctx.clock.sleep_until(until) => {}
        () = ctx.parked.told() => {}
    }
}

/// Publishes wake-ups until every one is confirmed. Giving up half-way is safe: the rows are `queued`, and the sweep
/// publishes again what stays so; but that takes a grace, and here it is known at once what is missing.
pub(super) async fn publish(ctx: &LaneContext, mut wakes: Vec<Wake>) {
    let mut wait = FailureWait::new();
    while !wakes.is_empty() {
        let outgoing = wakes.iter().map(|wake| Outgoing {
            route: wire::due_route(&wake.lane),
            message: wire::encode_wake_up(wake.key, wake.instance),
        });
        let answers = ctx.broker.publish(outgoing.collect()).await;
        let mut failure = None;
        let mut answers = answers.into_iter();
        wakes.retain(|_| match answers.next() {
            Some(Ok(())) => false,
            Some(Err(error)) => {
                failure = Some(error);
                true
            }
            None => true,
        });
        if let Some(error) = failure {
            tracing::warn!(missing = wakes.len(), %error, "wake-ups not confirmed, sending them again");
            wait.wait(&*ctx.clock).await;
            if matches!(error, PublishError::Unroutable { .. }) {
                restore_queues(ctx, &wakes).await;
            }
        }
    }
}

/// Somebody removed a lane's queue or binding while workers run.
async fn restore_queues(ctx: &LaneContext, wakes: &[Wake]) {
    let mut lanes: Vec<_> = wakes.iter().map(|wake| &wake.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    for lane in lanes {
        if let Err(error) = ctx.broker.declare(&super::queues(lane)).await {
            tracing::warn!(%lane, %error, "the lane's queues cannot be declared again");
        }
    }
}
