//! How many calls a lane makes at a time in this worker, and how many messages it has in hand for them: as configured, or as
//! an operator has said while workers run.

use super::LaneContext;
use crate::clock::Timestamp;
use crate::policy::control;

impl LaneContext {
    /// Most calls of this lane in flight in this worker; what all workers may make together is another matter.
    pub(super) fn concurrency(&self, now: Timestamp) -> usize {
        let said = self.governor.concurrency(&self.settings.name, now);
        said.map_or(self.settings.concurrency, |said| said.calls as usize)
    }

    /// When that changes by itself.
    pub(super) fn concurrency_ends(&self, now: Timestamp) -> Option<Timestamp> {
        self.governor.concurrency(&self.settings.name, now)?.until
    }

    /// Messages of one queue in hand and not yet acked.
    pub(super) fn prefetch(&self, now: Timestamp) -> u16 {
        let said = self.governor.concurrency(&self.settings.name, now);
        let (configured, calls) = (self.settings.prefetch, self.settings.concurrency);
        said.map_or(configured, |said| control::prefetch(configured, calls, said.calls))
    }
}

/// Completes once the lane is to have more messages in hand than `prefetch`, or fewer.
pub(super) async fn prefetch_is_not(ctx: &LaneContext, prefetch: u16) {
    let mut changes = ctx.governor.operator_changes();
    loop {
        let now = ctx.clock.now();
        if ctx.prefetch(now) != prefetch {
            return;
        }
        let end = async {
            match ctx.concurrency_ends(now) {
                Some(at) => ctx.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = changes.changed() => if told.is_err() {
                std::future::pending::<()>().await; // the governor lives as long as the lane: it only ends with it
            },
            () = end => {}
        }
    }
}
