//! Turns what the broker itself gave up (`lanes.dead`) into dead letters that people can see and send again.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::claim::raw_letter;
use super::settle::{Closing, Step, close};
use super::{FailureWait, LaneContext};
use crate::broker::{BrokerError, DEAD_QUEUE, Delivery, Subscription};
use crate::job::event::Event;
use crate::job::verdict::DeadReason;
use crate::job::wire::{self, Undecodable};

/// Most unsettled deliveries.
const PREFETCH: u16 = 100;

/// Runs until `stop`. `ctx` is any lane's context: the letters name the lane whose queue gave the message up only in
/// their headers, which the letter keeps.
pub(super) async fn run(ctx: Arc<LaneContext>, stop: CancellationToken) {
    let mut wait = FailureWait::new();
    loop {
        let session = async {
            if let Err(error) = drain(&ctx, &mut wait).await {
                tracing::warn!(%error, "{DEAD_QUEUE} is not being read, will try again");
            }
            wait.wait(&*ctx.clock).await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = session => {}
        }
    }
}

async fn drain(ctx: &LaneContext, wait: &mut FailureWait) -> Result<(), BrokerError> {
    ctx.broker.declare(&super::intake::queues(&ctx.settings.name)).await?;
    let subscription = Subscription { queue: DEAD_QUEUE.to_owned(), prefetch: PREFETCH };
    let mut streams = ctx.broker.subscribe(&[subscription]).await?;
    let Some(stream) = streams.first_mut() else { return Ok(()) };
    loop {
        let deliveries = stream.next(usize::from(PREFETCH)).await?;
        *wait = FailureWait::new();
        close(ctx, deliveries.into_iter().map(|delivery| closing(ctx, delivery)).collect()).await;
    }
}

fn closing(ctx: &LaneContext, delivery: Delivery) -> Closing {
    let Delivery { message, receipt, .. } = delivery;
    let lane = ctx.settings.name.clone();
    if wire::decode_wake_up(&message).is_some() {
        // only a hint: the row it belongs to is swept
        return Closing { receipt: Some(receipt), step: Step::AckOnly, event: Event::Stale { lane }, again: None };
    }
    let detail = "the broker gave it up after too many deliveries; its headers say which queue it was in".to_owned();
    let reason = DeadReason::BrokerDeadLettered;
    let refused = Undecodable {
        reason,
        detail: detail.clone(),
        tenant: None,
        id: message.properties.message_id.clone(),
        endpoint: None,
    };
    let letter = raw_letter(ctx, &message, refused, ctx.clock.now());
    Closing {
        receipt: Some(receipt),
        step: Step::Bury(Box::new(letter)),
        event: Event::Refused { lane, reason, detail },
        again: None,
    }
}
