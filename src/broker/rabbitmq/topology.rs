//! Exchanges, queues and bindings; declared and asked about on channels that are thrown away, because a refusal closes them.

use std::sync::Arc;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};

use super::address::Address;
use super::fields::short_string;
use super::link::Link;
use crate::broker::{BrokerError, BrokerLimits, DEAD_QUEUE, Depth, QueueSpec};
use crate::clock::within;

/// The exchange that publishers address.
pub(super) const EXCHANGE: &str = "lanes";
/// The exchange through which the broker hands over what it gives up; it leads to [`DEAD_QUEUE`].
const DEAD_EXCHANGE: &str = DEAD_QUEUE;
/// The queue that keeps messages of [`DEAD_QUEUE`] which the client cannot read, for a person with other tools.
pub const UNREADABLE_QUEUE: &str = "lanes.dead.unreadable";
/// The exchange that leads to [`UNREADABLE_QUEUE`]; each message keeps its routing key.
const UNREADABLE_EXCHANGE: &str = UNREADABLE_QUEUE;

/// Deliveries after which the broker itself gives a message up.
///
/// Every crash and every deploy counts as a delivery of all prefetched messages, so RabbitMQ 4's default of 20 would drop jobs
/// that were never tried; -1 drops at the first return on 3.10. Attempts are counted elsewhere.
const DELIVERY_LIMIT: i32 = 100_000;

pub(super) async fn declare(
    link: &Arc<Link>,
    address: &Address,
    limits: BrokerLimits,
    queues: &[QueueSpec],
) -> Result<(), BrokerError> {
    let (_open, channel) = link.channel().await?;
    // every step is one round trip
    within(limits.confirm_timeout, declare_on(&channel, address, queues))
        .await
        .map_err(|late| address.unavailable(format!("declaring queues: {late}")))?
}

async fn declare_on(channel: &Channel, address: &Address, queues: &[QueueSpec]) -> Result<(), BrokerError> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = |name: &'static str, kind: ExchangeKind| async move {
        channel
            .exchange_declare(name.into(), kind, durable, FieldTable::default())
            .await
            .map_err(|error| address.explain(&format!("declaring the exchange {name:?}"), &error))
    };
    // the target of dead letters first: an at-least-once dead-letter worker that finds no queue stalls its source
    exchange(UNREADABLE_EXCHANGE, ExchangeKind::Fanout).await?;
    declare_queue(channel, address, UNREADABLE_QUEUE, queue_arguments()).await?;
    bind(channel, address, UNREADABLE_QUEUE, UNREADABLE_EXCHANGE, "").await?;
    exchange(DEAD_EXCHANGE, ExchangeKind::Fanout).await?;
    declare_queue(channel, address, DEAD_QUEUE, giving_up_to(UNREADABLE_EXCHANGE)).await?;
    bind(channel, address, DEAD_QUEUE, DEAD_EXCHANGE, "").await?;
    exchange(EXCHANGE, ExchangeKind::Topic).await?;
    for queue in queues.iter().filter(|queue| ![DEAD_QUEUE, UNREADABLE_QUEUE].contains(&queue.name.as_str())) {
        declare_queue(channel, address, &queue.name, giving_up_to(DEAD_EXCHANGE)).await?;
        bind(channel, address, &queue.name, EXCHANGE, &queue.route).await?;
    }
    Ok(())
}

async fn declare_queue(
    channel: &Channel,
    address: &Address,
    name: &str,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel
        .queue_declare(checked(address, name)?, durable, arguments)
        .await
        .map_err(|error| address.explain(&format!("declaring the queue {name:?}"), &error))?;
    Ok(())
}

async fn bind(
    channel: &Channel,
    address: &Address,
    queue: &str,
    exchange: &str,
    route: &str,
) -> Result<(), BrokerError> {
    let (queue_name, route) = (checked(address, queue)?, checked(address, route)?);
    channel
        .queue_bind(queue_name, exchange.into(), route, QueueBindOptions::default(), FieldTable::default())
        .await
        .map_err(|error| address.explain(&format!("binding the queue {queue:?} to {exchange:?}"), &error))
}

fn checked(address: &Address, name: &str) -> Result<ShortString, BrokerError> {
    short_string(name).ok_or_else(|| address.refused(format!("the name {name:?} is longer than 255 bytes")))
}

fn queue_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    arguments
}

/// Dead letters leave for `exchange` at least once, so a crash of the broker between the two queues loses none. That needs `reject-publish`,
/// which without a length limit never rejects anything.
fn giving_up_to(exchange: &'static str) -> FieldTable {
    let mut arguments = queue_arguments();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(exchange.into()));
    arguments.insert("x-dead-letter-strategy".into(), AMQPValue::LongString("at-least-once".into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments
}

pub(super) async fn depth(
    link: &Arc<Link>,
    address: &Address,
    limits: BrokerLimits,
    queue: &str,
) -> Result<Option<Depth>, BrokerError> {
    let doing = format!("asking for the depth of {queue:?}");
    let (_open, channel) = link.channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asking = channel.queue_declare(checked(address, queue)?, passive, FieldTable::default());
    let answer =
        within(limits.confirm_timeout, asking).await.map_err(|late| address.unavailable(format!("{doing}: {late}")))?;
    match answer {
        Ok(found) => Ok(Some(Depth {
            ready: found.message_count().into(),
            unacked: None,
            consumers: found.consumer_count().into(),
        })),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(address.explain(&doing, &error)),
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if said.get_id() == 404)
}
