//! A broker inside the process, with the semantics of the real ones; for tests, examples and handlers under test.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{
    Broker, BrokerError, DEAD_QUEUE, Deliveries, Delivery, Depth, Outgoing, PublishError, QueueSpec, Receipt, Session,
    Subscription,
};
use crate::message::Message;

/// How errors name this broker.
const ADDRESS: &str = "memory:";

/// A handle of a broker in memory. What it holds is gone with its last handle and session.
#[derive(Debug, Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
    closed: Arc<AtomicBool>,
    sessions: Mutex<Vec<Weak<MemorySession>>>,
}

#[derive(Debug, Default)]
struct Shared {
    queues: Mutex<HashMap<String, Queue>>,
    /// Something became ready, was settled, or a handle was closed.
    changed: Notify,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    route: String,
    /// By publish order, which a returned message keeps.
    ready: BTreeMap<u64, Stored>,
    unacked: u64,
    consumers: u64,
}

#[derive(Debug)]
struct Stored {
    message: Message,
    redelivered: bool,
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another handle of the same broker, as another process would have; closing one does not close the other.
    #[must_use]
    pub fn another_handle(&self) -> Self {
        Self { shared: self.shared.clone(), ..Self::default() }
    }

    fn check_open(&self) -> Result<(), BrokerError> {
        if self.closed.load(Ordering::Acquire) { Err(over("this broker handle was closed")) } else { Ok(()) }
    }
}

fn over(why: &str) -> BrokerError {
    BrokerError::Unavailable { address: ADDRESS.to_owned(), why: why.to_owned() }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, HashMap<String, Queue>> {
        lock(&self.queues)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn declare(&self, queues: &[QueueSpec]) -> Result<(), BrokerError> {
        self.check_open()?;
        let mut existing = self.shared.queues();
        existing.entry(DEAD_QUEUE.to_owned()).or_default();
        for queue in queues {
            existing.entry(queue.name.clone()).or_default().route.clone_from(&queue.route);
        }
        Ok(())
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        if let Err(error) = self.check_open() {
            return messages.iter().map(|_| Err(error.clone().into())).collect();
        }
        let mut queues = self.shared.queues();
        let results = messages
            .into_iter()
            .map(|Outgoing { route, message }| {
                let Some(queue) = queues.values_mut().find(|queue| queue.route == route && !route.is_empty()) else {
                    return Err(PublishError::Unroutable { route });
                };
                let position = self.shared.next.fetch_add(1, Ordering::Relaxed);
                queue.ready.insert(position, Stored { message, redelivered: false });
                Ok(())
            })
            .collect();
        drop(queues);
        self.shared.changed.notify_waiters();
        results
    }

    async fn subscribe(&self, subscriptions: &[Subscription]) -> Result<Vec<Box<dyn Deliveries>>, BrokerError> {
        self.check_open()?;
        let mut queues = self.shared.queues();
        if let Some(missing) = subscriptions.iter().find(|wanted| !queues.contains_key(&wanted.queue)) {
            let why = format!("there is no queue {:?}: declare it first", missing.queue);
            return Err(BrokerError::Refused { address: ADDRESS.to_owned(), why });
        }
        let session = Arc::new(MemorySession {
            shared: self.shared.clone(),
            closed: self.closed.clone(),
            unsettled: Mutex::default(),
        });
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(&session));
        let deliveries = subscriptions.iter().enumerate().map(|(consumer, Subscription { queue, prefetch })| {
            queues.get_mut(queue).expect("looked up above").consumers += 1;
            let prefetch = usize::from((*prefetch).max(1));
            Box::new(MemoryDeliveries { session: session.clone(), consumer, queue: queue.clone(), prefetch })
                as Box<dyn Deliveries>
        });
        Ok(deliveries.collect())
    }

    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        self.check_open()?;
        Ok(self.shared.queues().get(queue).map(|queue| Depth {
            ready: queue.ready.len() as u64,
            unacked: Some(queue.unacked),
            consumers: queue.consumers,
        }))
    }

    fn health(&self) -> Result<(), String> {
        self.check_open().map_err(|error| error.to_string())
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        sessions.iter().filter_map(Weak::upgrade).for_each(|session| session.give_back_all());
    }
}

#[derive(Debug)]
struct MemorySession {
    shared: Arc<Shared>,
    closed: Arc<AtomicBool>,
    /// By tag (the position in the queue).
    unsettled: Mutex<BTreeMap<u64, Unsettled>>,
}

#[derive(Debug)]
struct Unsettled {
    consumer: usize,
    queue: String,
    message: Message,
}

impl MemorySession {
    fn is_over(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn give_back_all(&self) {
        let unsettled = std::mem::take(&mut *lock(&self.unsettled));
        self.requeue(unsettled);
    }

    fn requeue(&self, unsettled: impl IntoIterator<Item = (u64, Unsettled)>) {
        let mut queues = self.shared.queues();
        for (position, Unsettled { queue, message, .. }) in unsettled {
            if let Some(queue) = queues.get_mut(&queue) {
                queue.unacked -= 1;
                queue.ready.insert(position, Stored { message, redelivered: true });
            }
        }
        drop(queues);
        self.shared.changed.notify_waiters();
    }
}

#[async_trait]
impl Session for MemorySession {
    async fn ack(&self, tags: Vec<u64>) {
        if self.is_over() {
            return; // what it held went back when the handle was closed
        }
        let mut unsettled = lock(&self.unsettled);
        let settled: Vec<_> = tags.iter().filter_map(|tag| unsettled.remove(tag)).collect();
        drop(unsettled);
        let mut queues = self.shared.queues();
        for done in settled {
            if let Some(queue) = queues.get_mut(&done.queue) {
                queue.unacked -= 1;
            }
        }
        drop(queues);
        self.shared.changed.notify_waiters();
    }

    async fn give_back(&self, tags: Vec<u64>) {
        if self.is_over() {
            return; // what it held went back when the handle was closed
        }
        let mut unsettled = lock(&self.unsettled);
        let returned: Vec<_> = tags.into_iter().filter_map(|tag| unsettled.remove_entry(&tag)).collect();
        drop(unsettled);
        self.requeue(returned);
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.give_back_all();
    }
}

#[derive(Debug)]
struct MemoryDeliveries {
    session: Arc<MemorySession>,
    consumer: usize,
    queue: String,
    prefetch: usize,
}

impl MemoryDeliveries {
    fn take(&self, max: usize) -> Vec<Delivery> {
        let mut queues = self.session.shared.queues();
        let mut unsettled = lock(&self.session.unsettled);
        let held = unsettled.values().filter(|held| held.consumer == self.consumer).count();
        let Some(queue) = queues.get_mut(&self.queue) else { return Vec::new() };
        let mut got = Vec::new();
        while got.len() < max.max(1).min(self.prefetch.saturating_sub(held)) {
            let Some((position, Stored { message, redelivered })) = queue.ready.pop_first() else { break };
            queue.unacked += 1;
            let held = Unsettled { consumer: self.consumer, queue: self.queue.clone(), message: message.clone() };
            unsettled.insert(position, held);
            got.push(Delivery { message, redelivered, receipt: Receipt::new(self.session.clone(), position) });
        }
        got
    }
}

#[async_trait]
impl Deliveries for MemoryDeliveries {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let mut changed = std::pin::pin!(self.session.shared.changed.notified());
            changed.as_mut().enable(); // before looking, so that nothing slips between look and wait
            if self.session.is_over() {
                return Err(over("the session is over: this broker handle was closed"));
            }
            let got = self.take(max);
            if !got.is_empty() {
                return Ok(got);
            }
            changed.await;
        }
    }
}

impl Drop for MemoryDeliveries {
    fn drop(&mut self) {
        if let Some(queue) = self.session.shared.queues().get_mut(&self.queue) {
            queue.consumers -= 1;
        }
    }
}
