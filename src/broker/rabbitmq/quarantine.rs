//! Takes messages that the client cannot read out of a queue.
//!
//! AMQP says that short strings (a message id, a header's name) are UTF-8, but RabbitMQ passes on whatever was published. The
//! client ends the whole connection at such a message; the broker then delivers it again, and so on: one message would stop
//! every lane of every worker for ever. So when a session ends that way, its queues are searched before they are consumed
//! again, on a connection of their own, and the message is rejected without having been read: the broker moves it to the
//! dead queue, unchanged, and from there, when the dead queue in its turn is searched, to [`UNREADABLE_QUEUE`], which nobody
//! reads. Rejecting needs only the delivery's number, and on a fresh channel those are 1, 2, 3, ...

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer, ErrorKind};

use super::address::Address;
use super::fields::short_string;
use super::link::{connect, lock};
use super::topology::UNREADABLE_QUEUE;
use crate::broker::{BrokerError, BrokerLimits, DEAD_QUEUE};
use crate::clock::within;

/// Messages looked at from the head of a queue: more than workers usually hold unsettled, and the most a quorum queue hands out.
const SEARCH: u16 = 2_000;
/// No message for this long: there is none, or none that can be read.
const QUIET: Duration = Duration::from_secs(1);
/// Unreadable messages taken out of one queue at a time; whatever is left is found at the next subscription.
const MAX_REMOVED: usize = 100;
const SEARCHING: &str = "searching for an unreadable message";

/// Queues that may hold an unreadable message.
#[derive(Debug)]
pub(super) struct Quarantine {
    address: Arc<Address>,
    limits: BrokerLimits,
    suspects: Mutex<BTreeSet<String>>,
}

impl Quarantine {
    pub(super) fn new(address: Arc<Address>, limits: BrokerLimits) -> Self {
        Self { address, limits, suspects: Mutex::default() }
    }

    /// Notes that consuming `queue` ended with `error`.
    pub(super) fn suspect(&self, queue: &str, error: &lapin::Error) {
        if queue != UNREADABLE_QUEUE && is_unreadable(error) {
            lock(&self.suspects).insert(queue.to_owned());
        }
    }

    /// Searches `queue` if it is suspected.
    pub(super) async fn clear(&self, queue: &str) -> Result<(), BrokerError> {
        if !lock(&self.suspects).contains(queue) {
            return Ok(());
        }
        let name = short_string(queue).ok_or_else(|| self.address.refused("a queue name is longer than 255 bytes"))?;
        let kept_in = if queue == DEAD_QUEUE { UNREADABLE_QUEUE } else { DEAD_QUEUE };
        for _ in 0..MAX_REMOVED {
            // first how many readable ones stand before it, then, with those in hand, the one behind them
            let Some(readable) = self.search(&name).await? else { break };
            if self.reject_after(&name, readable).await? {
                tracing::error!(
                    queue,
                    kept_in,
                    "moved a message whose properties are not UTF-8 from {queue:?} to {kept_in:?}"
                );
            }
        }
        lock(&self.suspects).remove(queue);
        Ok(())
    }

    /// The number of readable messages before the first unreadable one; `None` when there is none.
    async fn search(&self, queue: &ShortString) -> Result<Option<u16>, BrokerError> {
        let connection = connect(&self.address, self.limits, "searching").await?;
        let searching = async {
            let channel = connection.create_channel().await?;
            Hold::take(&channel, queue, SEARCH).await
        };
        let held = self.bounded(searching).await?;
        Ok(held.unreadable.then_some(held.count))
    }

    /// Rejects the message behind the first `readable` ones; whether an unreadable one was there.
    async fn reject_after(&self, queue: &ShortString, readable: u16) -> Result<bool, BrokerError> {
        let connection = connect(&self.address, self.limits, "searching").await?;
        let rejecting = async {
            let channel = connection.create_channel().await?;
            if readable == 0 {
                return reject_next(&channel, queue, 1, None).await;
            }
            let held = Hold::take(&channel, queue, readable).await?;
            if held.unreadable || held.count < readable {
                return Ok(false); // it has moved: the next search sees where it is
            }
            reject_next(&channel, queue, u64::from(readable) + 1, Some(held.consumer)).await
        };
        self.bounded(rejecting).await
    }

    async fn bounded<T>(&self, work: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        within(self.limits.confirm_timeout, work)
            .await
            .map_err(|late| self.address.unavailable(format!("{SEARCHING}: {late}")))?
            .map_err(|error| self.address.explain(SEARCHING, &error))
    }
}

/// Messages from the head of a queue, unsettled.
struct Hold {
    consumer: Consumer,
    count: u16,
    /// An unreadable one came next, and the connection is gone.
    unreadable: bool,
}

impl Hold {
    async fn take(channel: &Channel, queue: &ShortString, most: u16) -> lapin::Result<Self> {
        channel.basic_qos(most, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue.clone(), "".into(), options, arguments).await?;
        let mut held = Self { consumer, count: 0, unreadable: false };
        while held.count < most {
            match within(QUIET, held.consumer.next()).await {
                Ok(Some(Ok(_))) => held.count += 1,
                Ok(Some(Err(error))) if is_unreadable(&error) => {
                    held.unreadable = true;
                    break;
                }
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) | Err(_) => break, // there are no more
            }
        }
        Ok(held)
    }
}

/// Asks for the next message, which will have the number `tag`, and rejects it before the answer can end the connection. Whether that
/// one was unreadable.
async fn reject_next(
    channel: &Channel,
    queue: &ShortString,
    tag: u64,
    consumer: Option<Consumer>,
) -> lapin::Result<bool> {
    let mut get = Box::pin(channel.basic_get(queue.clone(), BasicGetOptions::default()));
    let early = (&mut get).now_or_never(); // the request is on its way
    channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never();
    let got = match early {
        Some(got) => Ok(got),
        None => within(QUIET, get).await,
    };
    drop(consumer); // it held what stands before
    let readable = match got {
        Ok(Err(error)) if !is_unreadable(&error) => return Err(error),
        Ok(Ok(Some(readable))) => readable,
        Ok(Ok(None)) => return Ok(false), // somebody else took it, and there is no other
        Ok(Err(_)) | Err(_) => return Ok(true), // an unreadable answer may never complete the request
    };
    // somebody else took the unreadable one and this is another: a copy was moved, this one goes on
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (options, delivery) = (BasicPublishOptions::default(), &readable.delivery);
    let properties = delivery.properties.clone();
    channel.basic_publish("".into(), queue.clone(), options, &delivery.data, properties).await?.await?;
    Ok(false)
}

fn is_unreadable(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ParsingError(_))
}
