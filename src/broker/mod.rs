//! Seam 1: moves opaque messages between named queues; knows no job and no limit.

pub mod memory;
pub mod rabbitmq;
pub mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::message::Message;

/// The queue that catches what the broker itself gives up.
pub const DEAD_QUEUE: &str = "lanes.dead";

/// A durable queue and the route (routing key) that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// The queue's name.
    pub name: String,
    /// What a publisher addresses.
    pub route: String,
}

/// A message and where it goes.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The route of a declared queue.
    pub route: String,
    /// What is sent.
    pub message: Message,
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages waiting for a consumer.
    pub ready: u64,
    /// Messages delivered and not yet settled; `None` where the broker does not tell.
    pub unacked: Option<u64>,
    /// Consumers attached.
    pub consumers: u64,
}

/// What can go wrong at a broker. Every text names the address without its password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached, or the connection ended.
    #[error("broker {address}: {why}")]
    Unavailable {
        /// Where, without credentials.
        address: String,
        /// Why.
        why: String,
    },
    /// It was reached and said no: arguments differ, no permission, unknown vhost.
    #[error("broker {address} refused: {why}")]
    Refused {
        /// Where, without credentials.
        address: String,
        /// Why, and what to do.
        why: String,
    },
}

/// Why a message is not known to be stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// No queue has that route: nothing was stored, sending again will not help.
    #[error("no queue takes messages for {route:?}")]
    Unroutable {
        /// The route.
        route: String,
    },
    /// The broker refused it (full queue, failed replica): nothing is known to be stored, try again.
    #[error("the broker refused the message: {0}")]
    Nacked(String),
    /// No confirm came: it may or may not be stored. Publish again with the same instance.
    #[error("no confirm from the broker: {0}")]
    Unconfirmed(String),
    /// It was never sent.
    #[error(transparent)]
    Unavailable(#[from] BrokerError),
}

/// A broker: RabbitMQ, SQLite or memory.
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug {
    /// Makes sure the queues exist. Idempotent.
    async fn declare(&self, queues: &[QueueSpec]) -> Result<(), BrokerError>;

    /// Publishes with confirms, many in flight, order kept per route; answers in the order of `messages`.
    ///
    /// `Ok` = the broker has it on disk. Bounded in time: a blocked or silent broker yields `Unconfirmed`.
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>>;

    /// Opens a session of its own (a channel) with one subscription per entry; ends when dropped.
    async fn subscribe(&self, subscriptions: &[Subscription]) -> Result<Vec<Box<dyn Deliveries>>, BrokerError>;

    /// Depth of a queue; `None` when it does not exist.
    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError>;

    /// Whether it can be used at this moment, and if not, why ("blocked: low on disk").
    fn health(&self) -> Result<(), String>;

    /// Ends connections in order. Unsettled deliveries go back to their queues.
    async fn close(&self);
}

/// One subscription: a queue and the most unsettled deliveries it may have.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The queue.
    pub queue: String,
    /// Most deliveries unsettled at a time.
    pub prefetch: u16,
}

/// A stream of deliveries from one queue.
#[async_trait]
pub trait Deliveries: Send {
    /// The next deliveries: waits for one, then takes what is ready, at most `max`.
    ///
    /// # Errors
    /// `Err` = the session is over (connection lost, channel closed, consumer cancelled): subscribe again. Cancel-safe.
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError>;
}

/// A message in hand, with the one receipt that settles it.
#[derive(Debug)]
pub struct Delivery {
    /// What was published.
    pub message: Message,
    /// The broker has delivered it before.
    pub redelivered: bool,
    /// Settles it; given up by value, so a second ack does not compile.
    pub receipt: Receipt,
}

/// The right to settle one delivery. Dropped unused, the message comes back when the session ends.
#[derive(Debug)]
#[must_use = "an unsettled delivery comes back only when its session ends"]
pub struct Receipt {
    session: Arc<dyn Session>,
    tag: u64,
}

impl Receipt {
    /// A receipt of `session` for its delivery `tag`. For backends.
    pub fn new(session: Arc<dyn Session>, tag: u64) -> Self {
        Self { session, tag }
    }
}

/// Where receipts of one subscription session are handed in. For backends.
#[async_trait]
pub trait Session: Send + Sync + fmt::Debug {
    /// Acks these delivery tags. After the session has ended this does nothing: the messages come back by themselves.
    async fn ack(&self, tags: Vec<u64>);

    /// Gives these deliveries back to their queues, marked redelivered. After the session has ended this does nothing.
    async fn give_back(&self, tags: Vec<u64>);
}

/// Acks deliveries: the broker forgets them. Late acks (the session is over) are harmless and do nothing.
pub async fn ack(receipts: Vec<Receipt>) {
    for (session, tags) in by_session(receipts) {
        session.ack(tags).await;
    }
}

/// Gives deliveries back: they are ready for any consumer at once, marked redelivered, while their session goes on.
///
/// A subscription of the same session may get them again, so drop its [`Deliveries`] first to leave them to others. Late ones
/// (the session is over) are harmless and do nothing.
pub async fn give_back(receipts: Vec<Receipt>) {
    for (session, tags) in by_session(receipts) {
        session.give_back(tags).await;
    }
}

fn by_session(receipts: Vec<Receipt>) -> Vec<(Arc<dyn Session>, Vec<u64>)> {
    let mut all: Vec<(Arc<dyn Session>, Vec<u64>)> = Vec::new();
    for Receipt { session, tag } in receipts {
        match all.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &session)) {
            Some((_, tags)) => tags.push(tag),
            None => all.push((session, vec![tag])),
        }
    }
    all
}

/// Bounds and waits that every backend keeps.
#[derive(Debug, Clone, Copy)]
pub struct BrokerLimits {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a confirm.
    pub confirm_timeout: Duration,
    /// Most messages published and not yet confirmed.
    pub publish_window: usize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            confirm_timeout: Duration::from_secs(10),
            publish_window: 1_000,
        }
    }
}
