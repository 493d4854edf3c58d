//! Waiting for operators: a paused lane takes nothing in, calls nothing and releases nothing until its pause is over.

use super::LaneContext;
use crate::job::control::Paused;

/// The lane's pause, while it lasts.
pub(super) fn pause_of(ctx: &LaneContext) -> Option<Paused> {
    ctx.governor.lane_pause(&ctx.settings.name, ctx.clock.now())
}

/// Completes once the lane is paused.
pub(super) async fn begun(ctx: &LaneContext) -> Paused {
    let mut changes = ctx.governor.operator_changes();
    loop {
        if let Some(paused) = pause_of(ctx) {
            return paused;
        }
        // the governor lives as long as the lane: it only ends with it
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Completes once it is known what is paused: after a start nothing is called that may be.
pub(super) async fn known(ctx: &LaneContext) {
    let mut changes = ctx.governor.operator_changes();
    while !ctx.governor.knows_pauses() {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Completes once the lane is not paused: at once where it is not, when the pause ends by itself, or when somebody ends it.
pub(super) async fn over(ctx: &LaneContext) {
    known(ctx).await;
    let mut changes = ctx.governor.operator_changes();
    while let Some(paused) = pause_of(ctx) {
        let end = async {
            match paused.pause.until {
                Some(until) => ctx.clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            () = end => {}
        }
    }
}
