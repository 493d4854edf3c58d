//! Keeps what this worker knows of accounts and what the others know the same, and shows the state of their circuits.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::LaneContext;
use crate::clock::{self, Timestamp};
use crate::governor::{Governor, sync};
use crate::store::Store;

/// Longest time that a start waits for what others know.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(2);

/// Reads what the others know, before the first call: an account that is blocked must not be called once more.
pub(super) async fn first(governor: &Governor, store: &dyn Store, now: Timestamp) {
    match clock::within(FIRST_LOOK_MAX, sync::round(governor, store, now, Timestamp::EPOCH)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what others know of accounts is not read yet"),
        Err(_) => tracing::warn!("what others know of accounts is not read yet: no answer within {FIRST_LOOK_MAX:?}"),
    }
}

/// Runs until `stop`, and once more then.
pub(super) async fn run(
    governor: Arc<Governor>,
    store: Arc<dyn Store>,
    ctx: Arc<LaneContext>,
    stop: CancellationToken,
) {
    let (mut heard_at, mut reachable) = (Timestamp::EPOCH, true);
    let endpoints: Vec<_> = ctx.endpoints.keys().cloned().collect();
    loop {
        let last = stop.is_cancelled();
        let now = ctx.clock.now();
        match sync::round(&governor, &*store, now, heard_at).await {
            Ok(()) => (heard_at, reachable) = (now, true),
            Err(error) => {
                if reachable {
                    tracing::warn!(%error, "what is known of accounts is not shared until the store answers");
                }
                reachable = false;
            }
        }
        for endpoint in &endpoints {
            ctx.telemetry.circuit(endpoint, governor.circuit_word(endpoint));
        }
        if last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sync::wait(&governor, &ctx.clock) => {}
        }
    }
}
