//! Deliveries in: keeps one session with the broker per lane, due queue first, and starts a new one when it ends. While the
//! lane is paused there is none, so that what is not claimed stays in the broker, for whoever goes on first.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{FailureWait, LaneContext, concurrency, pausing};
use crate::broker::{BrokerError, Deliveries, Delivery, QueueSpec, Subscription};
use crate::job::wire;

/// Most deliveries handed over at a time.
const HAND_OVER_MAX: usize = 256;

/// What the intake tells its lane.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Messages as published.
    Fresh(Vec<Delivery>),
    /// Messages of the due queue.
    Due(Vec<Delivery>),
    /// The lane is paused and nothing more comes: receipts in hand are good, what is not claimed is to be given back.
    Paused,
    /// The session is over in order, because the lane is to have more or fewer messages in hand: receipts are good, what is
    /// not claimed is to be given back, and another session follows.
    Resized,
    /// The session is over: its unsettled deliveries come back by themselves, receipts in hand are void.
    SessionOver,
}

/// Runs until `stop`. Ending drops the session at once: what is unsettled goes to other workers now, and what is in
/// flight here is carried by its row (any copy of a job that has a row may be acked by whoever gets it).
pub(super) async fn run(ctx: Arc<LaneContext>, arrivals: mpsc::Sender<Arrival>, stop: CancellationToken) {
    let mut wait = FailureWait::new();
    while !stop.is_cancelled() {
        let session = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            session = open(&ctx) => session,
        };
        let error = match session {
            Ok(session) => {
                wait = FailureWait::new();
                tracing::info!(lane = %ctx.settings.name, "consuming");
                ctx.progress.heard(ctx.clock.now());
                match consume(&ctx, session, &arrivals, &stop).await {
                    Ok(Ended::Stopped) => return,
                    Ok(Ended::InOrder(arrival)) => {
                        ctx.progress.session_over();
                        if arrivals.send(arrival).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        ctx.progress.session_over();
        ctx.health.set(&component(&ctx), Err(error.to_string()));
        tracing::warn!(lane = %ctx.settings.name, %error, "not consuming, will try again");
        if arrivals.send(Arrival::SessionOver).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = wait.wait(&*ctx.clock) => {}
        }
    }
}

/// The queues of a lane: fresh messages, and released jobs.
pub fn queues(lane: &crate::job::LaneName) -> [QueueSpec; 2] {
    [
        QueueSpec { name: wire::queue(lane), route: wire::route(lane) },
        QueueSpec { name: wire::due_queue(lane), route: wire::due_route(lane) },
    ]
}

fn component(ctx: &LaneContext) -> String {
    format!("lane:{}", ctx.settings.name)
}

/// What a lane consumes from, and how many messages of each it has in hand.
struct Session {
    due: Box<dyn Deliveries>,
    fresh: Box<dyn Deliveries>,
    prefetch: u16,
}

/// Opens a session once the lane is not paused. Its queues are there before: publishers need them now.
async fn open(ctx: &LaneContext) -> Result<Session, BrokerError> {
    let lane = &ctx.settings.name;
    ctx.broker.declare(&queues(lane)).await?;
    pausing::known(ctx).await;
    if let Some(paused) = pausing::pause_of(ctx) {
        // it does what it is told to do
        ctx.health.set(&component(ctx), Ok(()));
        let pause = &paused.pause;
        tracing::info!(%lane, by = pause.author, until = ?pause.until, note = pause.note, "paused");
        pausing::over(ctx).await;
        tracing::info!(%lane, "the pause is over");
    }
    let prefetch = ctx.prefetch(ctx.clock.now());
    let subscriptions =
        [Subscription { queue: wire::due_queue(lane), prefetch }, Subscription { queue: wire::queue(lane), prefetch }];
    let mut streams = ctx.broker.subscribe(&subscriptions).await?.into_iter();
    match (streams.next(), streams.next()) {
        (Some(due), Some(fresh)) => {
            ctx.health.set(&component(ctx), Ok(()));
            Ok(Session { due, fresh, prefetch })
        }
        _ => Err(BrokerError::Refused {
            address: format!("{:?}", ctx.broker),
            why: "two subscriptions were asked for and fewer were given".to_owned(),
        }),
    }
}

/// Why a session ended in order.
enum Ended {
    Stopped,
    /// The lane is to be told so.
    InOrder(Arrival),
}

async fn consume(
    ctx: &LaneContext,
    Session { mut due, mut fresh, prefetch }: Session,
    arrivals: &mpsc::Sender<Arrival>,
    stop: &CancellationToken,
) -> Result<Ended, BrokerError> {
    let mut paused = pin!(pausing::begun(ctx));
    let mut resized = pin!(concurrency::prefetch_is_not(ctx, prefetch));
    loop {
        let arrival = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Ended::Stopped),
            _ = &mut paused => return Ok(Ended::InOrder(Arrival::Paused)),
            () = &mut resized => return Ok(Ended::InOrder(Arrival::Resized)),
            deliveries = due.next(HAND_OVER_MAX) => Arrival::Due(deliveries?),
            deliveries = fresh.next(HAND_OVER_MAX) => Arrival::Fresh(deliveries?),
        };
        ctx.progress.heard(ctx.clock.now());
        if arrivals.send(arrival).await.is_err() {
            return Ok(Ended::Stopped);
        }
    }
}
