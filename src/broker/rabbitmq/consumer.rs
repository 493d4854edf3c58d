//! Consuming: a channel per session, a consumer per queue, and acks that never acknowledge what is not settled.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, future};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::address::Address;
use super::fields::{decode, short_string};
use super::link::{Link, Open, lock};
use super::quarantine::Quarantine;
use crate::broker::{BrokerError, BrokerLimits, Deliveries, Delivery, Receipt, Session, Subscription};
use crate::clock::within;

pub(super) async fn subscribe(
    link: &Arc<Link>,
    address: &Arc<Address>,
    limits: BrokerLimits,
    quarantine: &Arc<Quarantine>,
    subscriptions: &[Subscription],
) -> Result<Vec<Box<dyn Deliveries>>, BrokerError> {
    for subscription in subscriptions {
        quarantine.clear(&subscription.queue).await?;
    }
    let (open, channel) = link.channel().await?;
    let session = Arc::new(ChannelSession {
        channel,
        _open: open,
        limits,
        progress: Mutex::default(),
        sending: tokio::sync::Mutex::default(),
    });
    let mut all: Vec<Box<dyn Deliveries>> = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions {
        let doing = format!("consuming from {:?}", subscription.queue);
        let queue = short_string(&subscription.queue)
            .ok_or_else(|| address.refused(format!("{doing}: the name is longer than 255 bytes")))?;
        let consumer = within(limits.confirm_timeout, consume(&session.channel, queue, subscription.prefetch))
            .await
            .map_err(|late| address.unavailable(format!("{doing}: {late}")))?
            .map_err(|error| address.explain(&doing, &error))?;
        let queue = subscription.queue.clone();
        all.push(Box::new(QueueDeliveries {
            session: session.clone(),
            consumer: Some(consumer),
            address: address.clone(),
            quarantine: quarantine.clone(),
            queue,
            ended: None,
        }));
    }
    Ok(all)
}

async fn consume(channel: &Channel, queue: ShortString, prefetch: u16) -> lapin::Result<Consumer> {
    // a limit set after the subscription would not apply to it; zero would mean no limit at all
    channel.basic_qos(prefetch.max(1), BasicQosOptions { global: false }).await?;
    channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// A channel with its consumers. It closes, and the broker takes back what is unsettled, when the last receipt is gone.
struct ChannelSession {
    channel: Channel,
    _open: Arc<Open>,
    limits: BrokerLimits,
    progress: Mutex<Progress>,
    /// Acks leave one call at a time: a `multiple` ack must not overtake a single one below it.
    sending: tokio::sync::Mutex<()>,
}

impl fmt::Debug for ChannelSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSession").field("channel", &self.channel.id()).finish_non_exhaustive()
    }
}

/// Which delivery tags of a channel are settled. The broker numbers them from 1 without a gap.
#[derive(Debug)]
struct Progress {
    /// Every tag below is settled.
    low: u64,
    /// Settled tags from `low` on.
    above: BTreeSet<u64>,
    /// Handed in and not yet sent to the broker.
    waiting: Vec<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { low: 1, above: BTreeSet::new(), waiting: Vec::new() }
    }
}

impl Progress {
    /// The acks for what is waiting: at most one `multiple`, up to a tag below which everything is settled; the rest one by one.
    fn plan(&mut self) -> (Option<u64>, Vec<u64>) {
        let tags = std::mem::take(&mut self.waiting);
        self.settled(&tags);
        let (below, single): (Vec<u64>, Vec<u64>) = tags.into_iter().partition(|tag| *tag < self.low);
        // the broker knows only unsettled tags: the highest of these, not one that was acked before
        (below.into_iter().max(), single)
    }

    fn settled(&mut self, tags: &[u64]) {
        self.above.extend(tags);
        while self.above.remove(&self.low) {
            self.low += 1;
        }
    }
}

#[async_trait]
impl Session for ChannelSession {
    async fn ack(&self, tags: Vec<u64>) {
        lock(&self.progress).waiting.extend(tags);
        let sent = within(self.limits.confirm_timeout, self.send_acks()).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "late acks: the session is over, their messages come back"),
            Err(late) => {
                tracing::warn!(%late, "acks are not being sent; if the connection ends their messages come back");
            }
        }
    }

    async fn give_back(&self, tags: Vec<u64>) {
        match within(self.limits.confirm_timeout, self.send_nacks(&tags)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "nothing to give back: the session is over"),
            Err(late) => {
                tracing::warn!(%late, "messages are not being given back; they come back when the session ends");
            }
        }
    }
}

impl ChannelSession {
    async fn send_acks(&self) -> lapin::Result<()> {
        let _in_order = self.sending.lock().await;
        let (multiple, single) = lock(&self.progress).plan(); // perhaps with the tags of callers who wait for the lock
        let multiple = multiple.map(|tag| (tag, BasicAckOptions { multiple: true }));
        let single = single.into_iter().map(|tag| (tag, BasicAckOptions { multiple: false }));
        let acks = multiple.into_iter().chain(single).map(|(tag, options)| self.channel.basic_ack(tag, options));
        future::try_join_all(acks).await?;
        Ok(())
    }

    /// Gives deliveries back to their queue, one by one: those below may still be worked on.
    async fn send_nacks(&self, tags: &[u64]) -> lapin::Result<()> {
        let _in_order = self.sending.lock().await;
        let options = BasicNackOptions { multiple: false, requeue: true };
        future::try_join_all(tags.iter().map(|tag| self.channel.basic_nack(*tag, options))).await?;
        // only now: a `multiple` ack that counted on a nack which was given up half-way would remove the message
        lock(&self.progress).settled(tags);
        Ok(())
    }
}

struct QueueDeliveries {
    session: Arc<ChannelSession>,
    /// `None` only while being dropped.
    consumer: Option<Consumer>,
    address: Arc<Address>,
    quarantine: Arc<Quarantine>,
    queue: String,
    ended: Option<BrokerError>,
}

impl QueueDeliveries {
    fn take(&mut self, item: Option<lapin::Result<lapin::message::Delivery>>, into: &mut Vec<Delivery>) {
        match item {
            Some(Ok(delivery)) => into.push(Delivery {
                message: decode(&delivery.properties, delivery.data),
                redelivered: delivery.redelivered,
                receipt: Receipt::new(self.session.clone(), delivery.delivery_tag),
            }),
            Some(Err(error)) => {
                self.quarantine.suspect(&self.queue, &error);
                self.ended = Some(self.address.explain(&format!("consuming from {:?}", self.queue), &error));
            }
            // the queue was deleted or moved, or a delivery was held too long
            None => {
                self.ended =
                    Some(self.address.unavailable(format!("the broker cancelled the consumer of {:?}", self.queue)));
            }
        }
    }
}

#[async_trait]
impl Deliveries for QueueDeliveries {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut got = Vec::new();
        while got.len() < max.max(1) && self.ended.is_none() {
            let Some(consumer) = &mut self.consumer else { break };
            let item = if got.is_empty() {
                consumer.next().await
            } else {
                match consumer.next().now_or_never() {
                    Some(item) => item,
                    None => break,
                }
            };
            self.take(item, &mut got);
        }
        match &self.ended {
            Some(error) if got.is_empty() => Err(error.clone()),
            _ => Ok(got),
        }
    }
}

impl Drop for QueueDeliveries {
    /// Stops the consumer and gives back what it has buffered, while receipts that are out keep the session open.
    fn drop(&mut self) {
        let (Some(mut consumer), true) = (self.consumer.take(), self.session.channel.status().connected()) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let session = self.session.clone();
        runtime.spawn(async move {
            let stop = async {
                session.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
                let mut unseen = Vec::new();
                while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
                    unseen.push(delivery.delivery_tag);
                }
                session.send_nacks(&unseen).await
            };
            match within(session.limits.confirm_timeout, stop).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the consumer ended with its session"),
                Err(late) => tracing::debug!(%late, "the consumer did not stop in order"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(progress: &mut Progress, tags: &[u64]) -> (Option<u64>, Vec<u64>) {
        progress.waiting.extend(tags);
        progress.plan()
    }

    #[test]
    fn multiple_acks_never_reach_over_an_unsettled_delivery() {
        let mut progress = Progress::default();
        assert_eq!(acks(&mut progress, &[2, 4]), (None, vec![2, 4]));
        assert_eq!(acks(&mut progress, &[1]), (Some(1), vec![])); // 2 is settled too, but the broker forgot it
        assert_eq!(acks(&mut progress, &[3, 6, 5]), (Some(6), vec![]));
        assert_eq!(acks(&mut progress, &[9, 8]), (None, vec![9, 8]));
        assert_eq!(acks(&mut progress, &[7]), (Some(7), vec![]));
        assert_eq!((progress.low, progress.above.len()), (10, 0));
    }
}
