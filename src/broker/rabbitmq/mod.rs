//! RabbitMQ (AMQP 0-9-1): quorum queues, confirmed publishing, pushed deliveries, reconnects; the only place that names `lapin`.
//!
//! Two connections, because a broker that is low on memory or disk stops reading from whoever publishes, and acks on such a
//! connection would stop with it: one publishes, the other consumes, declares and asks. What the broker gave up is consumed on a
//! third, because it may hold messages that end the connection they are read on. Each is opened on demand and reopened after it
//! was lost ([`link`]); a failed operation answers at once and the next one tries again.

mod address;
mod consumer;
mod fields;
mod link;
mod publisher;
mod quarantine;
mod topology;

use std::sync::Arc;

use async_trait::async_trait;

use self::address::Address;
use self::link::Link;
use self::publisher::Publisher;
use self::quarantine::Quarantine;
pub use self::topology::UNREADABLE_QUEUE;
use super::{
    Broker, BrokerError, BrokerLimits, DEAD_QUEUE, Deliveries, Depth, Outgoing, PublishError, QueueSpec, Subscription,
};
use crate::clock::SharedClock;

/// A RabbitMQ broker, or a cluster behind one address.
#[derive(Debug)]
pub struct RabbitMq {
    address: Arc<Address>,
    limits: BrokerLimits,
    consuming: Arc<Link>,
    /// Consumes [`DEAD_QUEUE`].
    burying: Arc<Link>,
    publishing: Arc<Link>,
    publisher: Publisher,
    quarantine: Arc<Quarantine>,
}

impl RabbitMq {
    /// Reads the url (`amqp://` or `amqps://`); connects at the first use.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] when the url is malformed.
    pub fn new(url: &str, limits: BrokerLimits, clock: SharedClock) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(url, limits.connect_timeout)?);
        let consuming = Link::new("consuming", address.clone(), limits, clock.clone());
        let burying = Link::new("burying", address.clone(), limits, clock.clone());
        let publishing = Link::new(link::PUBLISHING, address.clone(), limits, clock);
        let publisher = Publisher::new(publishing.clone(), address.clone(), limits);
        let quarantine = Arc::new(Quarantine::new(address.clone(), limits));
        Ok(Self { address, limits, consuming, burying, publishing, publisher, quarantine })
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn declare(&self, queues: &[QueueSpec]) -> Result<(), BrokerError> {
        topology::declare(&self.consuming, &self.address, self.limits, queues).await
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        self.publisher.publish(&messages).await
    }

    async fn subscribe(&self, subscriptions: &[Subscription]) -> Result<Vec<Box<dyn Deliveries>>, BrokerError> {
        let dead = subscriptions.iter().any(|subscription| subscription.queue == DEAD_QUEUE);
        let link = if dead { &self.burying } else { &self.consuming };
        consumer::subscribe(link, &self.address, self.limits, &self.quarantine, subscriptions).await
    }

    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        topology::depth(&self.consuming, &self.address, self.limits, queue).await
    }

    fn health(&self) -> Result<(), String> {
        if !self.consuming.was_opened() && !self.publishing.was_opened() {
            return Err("not connected yet".to_owned());
        }
        // not `burying`: that it ends at an unreadable message keeps nobody from working
        self.consuming.health().and_then(|()| self.publishing.health())
    }

    async fn close(&self) {
        self.publisher.forget_channels();
        tokio::join!(self.publishing.close(), self.consuming.close(), self.burying.close());
    }
}
