//! Liveness, sweeps and retention: everything that happens by the clock and belongs to no single job.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::settings::WorkerSettings;
use super::{FailureWait, LaneContext, Liveness, pausing, releaser};
use crate::clock::{self, SharedClock, Timestamp};
use crate::job::LaneName;
use crate::job::event::Event;
use crate::job::verdict::DeadReason;
use crate::store::{Retention, State, Store, StoreResult, TakenOver, Wake};
use crate::telemetry::Telemetry;
use crate::telemetry::health::Health;

/// Most rows of one sweep statement.
const SWEEP_MAX: usize = 500;
/// A wake-up that was not claimed after this time is published again.
const QUEUED_GRACE: Duration = Duration::from_mins(1);
/// How often overdue wake-ups are looked for.
const SWEEP_QUEUED_EVERY: Duration = Duration::from_secs(10);
/// How often rows of workers that nobody knows are looked for, though no worker was buried: a worker that was frozen over
/// its own burial may have committed a claim afterwards. It scans the table, so it is rare.
const SWEEP_RUN_EVERY: Duration = Duration::from_mins(1);
/// How often ended rows are forgotten, and the watermark of each lane is raised.
const RETENTION_EVERY: Duration = Duration::from_secs(30);
/// How long the number of a budget is kept that nobody took tokens of.
const BUDGETS_KEPT: Duration = Duration::from_hours(1);
/// How long a pause is kept that has ended by itself: no clock of a worker is so late that it would still count.
const PAUSES_KEPT: Duration = Duration::from_hours(1);
/// How long it is known who changed what.
const AUDIT_KEPT: Duration = Duration::from_hours(24 * 400);
/// How long an operation is remembered that has ended.
const OPERATIONS_KEPT: Duration = Duration::from_hours(24 * 90);
/// Most ended rows forgotten in one statement.
const PURGE_MAX: usize = 5_000;
/// Consuming minutes after which everything unacked at that time has been decided: the broker's longest unacked time
/// (RabbitMQ's consumer_timeout, 30 min) and 5 more for its redelivery.
const WATERMARK_MINUTES: u32 = 35;
/// Publishes of one instance may be this far out of order: the publishers' deadline and the skew of their clocks.
const RETENTION_SLACK: Duration = Duration::from_mins(2);

/// What upkeep works with.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub settings: WorkerSettings,
    pub store: Arc<dyn Store>,
    /// A connection of its own: nothing slow stands before a heartbeat.
    pub liveness_store: Arc<dyn Store>,
    pub lanes: Vec<Arc<LaneContext>>,
    pub telemetry: Telemetry,
    pub health: Health,
    pub clock: SharedClock,
    pub liveness: Arc<Liveness>,
}

/// Renews the sign of life, and does nothing else: whatever is slow must not cost the lease. Runs until `stop`.
pub(super) async fn liveness(upkeep: Arc<Upkeep>, stop: CancellationToken) {
    let mut wait = FailureWait::new();
    loop {
        let round = async {
            match beat(&upkeep).await {
                Ok(()) => {
                    wait = FailureWait::new();
                    upkeep.health.set("store", Ok(()));
                    clock::sleep(&*upkeep.clock, upkeep.liveness.beat_every()).await;
                }
                Err(error) => {
                    upkeep.health.set("store", Err(error.to_string()));
                    tracing::error!(%error, "no heartbeat; calls stop when the lease is over");
                    wait.wait_at_most(&*upkeep.clock, upkeep.liveness.beat_every()).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

async fn beat(upkeep: &Upkeep) -> StoreResult<()> {
    let now = upkeep.clock.now();
    let worker = upkeep.liveness.worker();
    if upkeep.liveness_store.heartbeat(worker, now).await? {
        upkeep.liveness.heard(worker, now);
    } else {
        let worker = upkeep.liveness_store.register(&upkeep.settings.name, &lanes_of(&upkeep.settings), now).await?;
        upkeep.liveness.heard(worker, now);
        tracing::warn!("this worker was declared dead (frozen, or cut off from the store); its jobs were taken over");
    }
    Ok(())
}

/// Declares silent workers dead and takes their jobs over. Runs until `stop`.
pub(super) async fn takeovers(upkeep: Arc<Upkeep>, stop: CancellationToken) {
    let mut swept_at = Timestamp::EPOCH;
    loop {
        let round = async {
            if let Err(error) = take_over(&upkeep, &mut swept_at).await {
                tracing::warn!(%error, "dead workers not looked for this time");
            }
            clock::sleep(&*upkeep.clock, upkeep.liveness.beat_every()).await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

async fn take_over(upkeep: &Upkeep, swept_at: &mut Timestamp) -> StoreResult<()> {
    let now = upkeep.clock.now();
    if !upkeep.liveness.may_bury(now) {
        return Ok(());
    }
    let buried = upkeep.store.bury_workers(now.minus(upkeep.settings.lease), upkeep.liveness.worker()).await?;
    if buried > 0 {
        tracing::warn!(buried, "workers were not heard of for a lease; their jobs are taken over");
        *swept_at = Timestamp::EPOCH; // until a sweep has worked, every round tries one
    }
    if now.since(*swept_at) >= SWEEP_RUN_EVERY {
        sweep_run(upkeep).await?;
        *swept_at = now;
    }
    Ok(())
}

/// The lanes of a worker as people see them.
pub(super) fn lanes_of(settings: &WorkerSettings) -> String {
    settings.lanes.iter().map(|lane| lane.name.as_str()).collect::<Vec<_>>().join(",")
}

async fn sweep_run(upkeep: &Upkeep) -> StoreResult<()> {
    loop {
        let now = upkeep.clock.now();
        let taken = upkeep.store.sweep_run(now, upkeep.settings.poison_after, SWEEP_MAX).await?;
        let full = taken.len() == SWEEP_MAX;
        for (lane, wakes) in tell_takeovers(upkeep, taken) {
            // its own context where this worker runs the lane, any other one does as well
            let own = upkeep.lanes.iter().find(|ctx| ctx.settings.name == lane);
            if let Some(ctx) = own.or(upkeep.lanes.first()) {
                releaser::publish(ctx, wakes).await;
            }
        }
        if !full {
            return Ok(());
        }
    }
}

fn tell_takeovers(upkeep: &Upkeep, taken: Vec<TakenOver>) -> HashMap<LaneName, Vec<Wake>> {
    let mut wakes: HashMap<LaneName, Vec<Wake>> = HashMap::new();
    for TakenOver { row, key } in taken {
        let (lane, instance, takeovers) = (row.lane.clone(), row.instance, row.takeovers);
        match row.state {
            State::Queued => {
                upkeep.telemetry.record(&Event::TakenOver { lane: lane.clone(), instance, takeovers });
                wakes.entry(lane.clone()).or_default().push(Wake { lane, key, instance });
            }
            // an operator had asked for it while it ran
            State::Cancelled => upkeep.telemetry.record(&Event::Cancelled { lane }),
            _ => upkeep.telemetry.record(&Event::Died {
                lane,
                endpoint: row.endpoint,
                tenant: row.tenant,
                instance,
                reason: DeadReason::Poison,
                detail: format!("{takeovers} workers died while it was running"),
            }),
        }
    }
    wakes
}

/// Publishes overdue wake-ups of one lane again. Runs until `stop`; rests while the lane is paused: nobody takes them, and a
/// long pause would fill the queue with them.
pub(super) async fn sweep_queued(ctx: Arc<LaneContext>, stop: CancellationToken) {
    loop {
        let round = async {
            clock::sleep(&*ctx.clock, SWEEP_QUEUED_EVERY).await;
            pausing::over(&ctx).await;
            let now = ctx.clock.now();
            let overdue = now.minus(QUEUED_GRACE);
            match ctx.store.sweep_queued(&ctx.settings.name, now, overdue, SWEEP_MAX).await {
                Ok(wakes) => releaser::publish(&ctx, wakes).await,
                Err(error) => tracing::warn!(lane = %ctx.settings.name, %error, "overdue wake-ups not swept"),
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

/// Raises the watermarks and forgets what they have passed. Runs until `stop`.
pub(super) async fn retention(upkeep: Arc<Upkeep>, stop: CancellationToken) {
    loop {
        let round = async {
            clock::sleep(&*upkeep.clock, RETENTION_EVERY).await;
            if let Err(error) = forget(&upkeep).await {
                tracing::warn!(%error, "finished rows not forgotten this time");
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

/// One lane's failure does not keep the others, or the letters, from being forgotten; the first one is told.
async fn forget(upkeep: &Upkeep) -> StoreResult<()> {
    let mut failed = None;
    for ctx in &upkeep.lanes {
        if let Err(error) = forget_lane(upkeep, ctx).await {
            failed.get_or_insert(error);
        }
    }
    // a window that has rested so long is as good as new, whatever its tolerance
    let budgets_before = upkeep.clock.now().minus(BUDGETS_KEPT);
    if let Err(error) = upkeep.store.purge_budgets(budgets_before).await {
        failed.get_or_insert(error);
    }
    // whoever writes an account says how long it is kept
    if let Err(error) = upkeep.store.purge_accounts(upkeep.clock.now()).await {
        failed.get_or_insert(error);
    }
    if let Err(error) = upkeep.store.purge_history(upkeep.clock.now(), PURGE_MAX).await {
        failed.get_or_insert(error);
    }
    if let Err(error) = forget_operators(upkeep).await {
        failed.get_or_insert(error);
    }
    let letters_before = upkeep.clock.now().minus(upkeep.settings.letters_kept);
    while upkeep.store.purge_letters(letters_before, PURGE_MAX).await? == PURGE_MAX as u64 {}
    failed.map_or(Ok(()), Err)
}

async fn forget_operators(upkeep: &Upkeep) -> StoreResult<()> {
    let now = upkeep.clock.now();
    upkeep.store.purge_controls(now.minus(PAUSES_KEPT)).await?;
    upkeep.store.purge_operations(now.minus(OPERATIONS_KEPT)).await?;
    while upkeep.store.purge_audit(now.minus(AUDIT_KEPT), PURGE_MAX).await? == PURGE_MAX as u64 {}
    Ok(())
}

async fn forget_lane(upkeep: &Upkeep, ctx: &LaneContext) -> StoreResult<()> {
    let lane = &ctx.settings;
    let now = upkeep.clock.now();
    if let Some(mark) = ctx.progress.mark(now, RETENTION_SLACK) {
        upkeep.store.raise_mark(&lane.name, now, mark).await?;
    }
    let mark = upkeep.store.mark(&lane.name, WATERMARK_MINUTES).await?;
    let retention = Retention {
        published_before: mark.map_or(Timestamp::EPOCH, |mark| mark.minus(lane.window).minus(RETENTION_SLACK)),
        ended_before: now.minus(upkeep.settings.ended_kept),
        limit: PURGE_MAX,
    };
    loop {
        let purged = upkeep.store.purge(&lane.name, retention).await?;
        if purged.by_cap > 0 {
            upkeep.telemetry.purged_by_cap(&lane.name, purged.by_cap);
        }
        if purged.by_watermark + purged.by_cap < PURGE_MAX as u64 {
            return Ok(());
        }
    }
}
