//! Publishing with confirms: a window of messages in flight per call, each call on a channel of its own.
//!
//! A channel is never shared by two calls at a time. The broker returns an unroutable message before it confirms it, but one
//! confirm may stand for many messages, so which confirm a return belongs to is only known from the message itself; and a
//! channel whose queue lost its leader may nack everything until it is replaced. Channels are kept for the next call.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Semaphore;

use super::address::Address;
use super::fields::{encode, short_string};
use super::link::{Link, Open, lock};
use super::topology::EXCHANGE;
use crate::broker::{BrokerError, BrokerLimits, Outgoing, PublishError};
use crate::clock::within;

/// Most publish calls at a time; further ones wait for the time of a confirm. Far above what a worker's lanes need.
const MAX_CALLS: usize = 512;
/// Most unused channels that are kept.
const MAX_IDLE_CHANNELS: usize = 32;

#[derive(Debug)]
pub(super) struct Publisher {
    link: Arc<Link>,
    address: Arc<Address>,
    limits: BrokerLimits,
    calls: Semaphore,
    idle: Mutex<Vec<ConfirmChannel>>,
}

/// A channel in confirm mode that nobody uses, or one call.
struct ConfirmChannel {
    channel: Channel,
    open: Arc<Open>,
}

impl std::fmt::Debug for ConfirmChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfirmChannel").field("id", &self.channel.id()).finish_non_exhaustive()
    }
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, address: Arc<Address>, limits: BrokerLimits) -> Self {
        Self { link, address, limits, calls: Semaphore::new(MAX_CALLS), idle: Mutex::default() }
    }

    /// Closes the channels that are kept.
    pub(super) fn forget_channels(&self) {
        lock(&self.idle).clear();
    }

    pub(super) async fn publish(&self, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let none_sent = |error: BrokerError| messages.iter().map(|_| Err(error.clone().into())).collect();
        let Ok(_permit) = within(self.limits.confirm_timeout, self.calls.acquire()).await else {
            return none_sent(self.address.unavailable(format!("more than {MAX_CALLS} publish calls at a time")));
        };
        let channel = match self.take_channel().await {
            Ok(channel) => channel,
            Err(error) => return none_sent(error),
        };
        let mut batch = Batch::new(&channel, &self.address, self.limits, messages);
        batch.run().await;
        let (results, sound) = batch.finish();
        if sound {
            self.put_back(channel);
        }
        results
    }

    async fn take_channel(&self) -> Result<ConfirmChannel, BrokerError> {
        loop {
            let kept = lock(&self.idle).pop();
            let Some(kept) = kept else { break };
            if kept.channel.status().connected() && kept.open.is_connected() {
                return self.unless_blocked(kept);
            }
        }
        let (open, channel) = self.link.channel().await?;
        let confirming = self.unless_blocked(ConfirmChannel { channel, open })?;
        within(self.limits.confirm_timeout, confirming.channel.confirm_select(ConfirmSelectOptions::default()))
            .await
            .map_err(|late| self.address.unavailable(format!("asking for confirms: {late}")))?
            .map_err(|error| self.address.explain("asking for confirms", &error))?;
        Ok(confirming)
    }

    /// What the broker does not read now would only pile up here: say so at once, nothing was sent.
    fn unless_blocked(&self, channel: ConfirmChannel) -> Result<ConfirmChannel, BrokerError> {
        match channel.open.blocked() {
            Some(why) => Err(self.address.unavailable(format!("it blocks publishers: {why}"))),
            None => Ok(channel),
        }
    }

    fn put_back(&self, channel: ConfirmChannel) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE_CHANNELS {
            idle.push(channel);
        }
    }
}

type Confirming<'a> = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send + 'a>>;

/// One call: its messages, those in flight, and what became of each.
struct Batch<'a> {
    channel: &'a ConfirmChannel,
    address: &'a Address,
    limits: BrokerLimits,
    messages: &'a [Outgoing],
    results: Vec<Result<(), PublishError>>,
    in_flight: VecDeque<(usize, Confirming<'a>)>,
    returned: Vec<BasicReturnMessage>,
    /// Why nothing more can be sent on this channel.
    broken: Option<String>,
    nacked: bool,
}

impl<'a> Batch<'a> {
    fn new(channel: &'a ConfirmChannel, address: &'a Address, limits: BrokerLimits, messages: &'a [Outgoing]) -> Self {
        Self {
            channel,
            address,
            limits,
            messages,
            results: Vec::with_capacity(messages.len()),
            in_flight: VecDeque::with_capacity(messages.len().min(limits.publish_window)),
            returned: Vec::new(),
            broken: None,
            nacked: false,
        }
    }

    async fn run(&mut self) {
        let frame_max = self.channel.open.frame_max();
        for (index, outgoing) in self.messages.iter().enumerate() {
            let result = match prepare(outgoing, frame_max) {
                Ok((route, properties)) => self.send(index, outgoing, route, properties).await,
                Err(why) => Err(self.address.refused(why).into()),
            };
            self.results.push(result);
        }
        while !self.in_flight.is_empty() {
            self.settle_oldest().await;
        }
    }

    /// Hands a message to the connection, waiting for the oldest confirm first when the window is full.
    async fn send(
        &mut self,
        index: usize,
        outgoing: &'a Outgoing,
        route: ShortString,
        properties: BasicProperties,
    ) -> Result<(), PublishError> {
        if self.in_flight.len() >= self.limits.publish_window.max(1) {
            self.settle_oldest().await;
        }
        if let Some(why) = &self.broken {
            return Err(self.address.unavailable(format!("not sent after an earlier failure: {why}")).into());
        }
        let channel = &self.channel.channel;
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut confirming: Confirming<'a> = Box::pin(async move {
            channel.basic_publish(EXCHANGE.into(), route, mandatory, &outgoing.message.body, properties).await?.await
        });
        // the first poll queues the frames, so messages go out in order
        match (&mut confirming).now_or_never() {
            None => self.in_flight.push_back((index, confirming)),
            Some(Err(error)) => {
                self.broken = Some(error.to_string());
                return Err(self.address.unavailable(format!("publishing: {error}")).into());
            }
            Some(Ok(confirmation)) => return self.judge(confirmation),
        }
        Ok(()) // for now: the confirm decides
    }

    async fn settle_oldest(&mut self) {
        let Some((index, confirming)) = self.in_flight.pop_front() else { return };
        let limit = if self.broken.is_some() { std::time::Duration::ZERO } else { self.limits.confirm_timeout };
        let result = match within(limit, confirming).await {
            Ok(Ok(confirmation)) => self.judge(confirmation),
            Ok(Err(error)) => {
                let why = self.address.explain("publishing", &error).to_string();
                self.broken.get_or_insert_with(|| why.clone());
                Err(PublishError::Unconfirmed(why))
            }
            Err(late) => {
                let blocked = self.channel.open.blocked().map(|why| format!("; it blocks publishers: {why}"));
                let why = format!("{late}{}", blocked.unwrap_or_default());
                Err(PublishError::Unconfirmed(self.broken.get_or_insert(why).clone()))
            }
        };
        self.results[index] = result;
    }

    fn judge(&mut self, confirmation: Confirmation) -> Result<(), PublishError> {
        let (returned, result) = match confirmation {
            Confirmation::Ack(returned) => (returned, Ok(())),
            Confirmation::Nack(returned) => {
                self.nacked = true;
                (returned, Err(PublishError::Nacked("a replica failed or the queue is full".to_owned())))
            }
            Confirmation::NotRequested => {
                (None, Err(PublishError::Unconfirmed("the channel is not in confirm mode".to_owned())))
            }
        };
        self.returned.extend(returned);
        result
    }

    /// What became of each message, and whether the channel may be used again.
    fn finish(mut self) -> (Vec<Result<(), PublishError>>, bool) {
        let sound = self.broken.is_none() && !self.nacked && self.channel.channel.status().connected();
        let mut by_route: HashMap<&str, VecDeque<usize>> = HashMap::new();
        if !self.returned.is_empty() {
            for (index, outgoing) in self.messages.iter().enumerate() {
                by_route.entry(&outgoing.route).or_default().push_back(index);
            }
        }
        for returned in std::mem::take(&mut self.returned) {
            let route = returned.routing_key.as_str();
            let Some(candidates) = by_route.get_mut(route) else { continue };
            let same = |index: &usize| {
                let message = &self.messages[*index].message;
                message.body == returned.data
                    && encode(message, usize::MAX).is_ok_and(|properties| properties == returned.properties)
            };
            let position = candidates.iter().position(same).unwrap_or(0);
            if let Some(index) = candidates.remove(position) {
                self.results[index] = Err(PublishError::Unroutable { route: route.to_owned() });
            }
        }
        (self.results, sound)
    }
}

fn prepare(outgoing: &Outgoing, frame_max: usize) -> Result<(ShortString, BasicProperties), String> {
    let route = short_string(&outgoing.route).ok_or("the route is longer than 255 bytes")?;
    Ok((route, encode(&outgoing.message, frame_max)?))
}
