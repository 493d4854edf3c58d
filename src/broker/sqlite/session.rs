//! Sessions of the embedded broker: acks, leases, and the task that renews, sweeps and takes back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use tokio::sync::{Notify, mpsc};

use super::deliveries::FileDeliveries;
use super::watch::FileWatch;
use super::{BEGIN, settle_error};
use crate::broker::{BrokerError, Deliveries, Session, Subscription};
use crate::clock::{self, SharedClock, within};
use crate::db::{STATEMENT_TIMEOUT, Sqlite};

/// Renewals within one lease.
const RENEWALS_PER_LEASE: u32 = 3;

/// The sessions of one broker handle.
#[derive(Debug)]
pub(super) struct Sessions {
    shared: Arc<Shared>,
    /// To the keeper, started with the first session; it ends when this and every session are gone.
    keeper: Mutex<Option<mpsc::UnboundedSender<i64>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) db: Sqlite,
    clock: SharedClock,
    lease: Duration,
    pub(super) watch: Arc<FileWatch>,
    live: Mutex<HashMap<i64, Weak<FileSession>>>,
}

impl Sessions {
    pub(super) fn new(db: Sqlite, clock: SharedClock, lease: Duration, watch: Arc<FileWatch>) -> Self {
        let shared = Arc::new(Shared { db, clock, lease, watch, live: Mutex::default() });
        Self { shared, keeper: Mutex::default() }
    }

    pub(super) async fn open(&self, subscriptions: &[Subscription]) -> Result<Vec<Box<dyn Deliveries>>, BrokerError> {
        let db = &self.shared.db;
        let opened = within(STATEMENT_TIMEOUT, self.shared.insert_session(subscriptions)).await;
        let id = settle_error(db, "subscribing", opened)?.map_err(|missing| BrokerError::Refused {
            address: db.address.to_string(),
            why: format!("there is no queue {missing:?}: declare it first"),
        })?;
        let session = Arc::new(FileSession {
            id,
            shared: self.shared.clone(),
            over: AtomicBool::new(false),
            held: Mutex::new(Held {
                consumer_of: HashMap::new(),
                counts: vec![0; subscriptions.len()],
                settled: Settled::default(),
            }),
            settling: tokio::sync::Mutex::default(),
            look: Notify::new(),
            ended: self.keeper(),
        });
        lock(&self.shared.live).insert(id, Arc::downgrade(&session));
        let deliveries = subscriptions.iter().enumerate().map(|(consumer, subscription)| {
            let (session, queue) = (session.clone(), subscription.queue.clone());
            let prefetch = usize::from(subscription.prefetch.max(1));
            Box::new(FileDeliveries::new(session, consumer, queue, prefetch)) as Box<dyn Deliveries>
        });
        Ok(deliveries.collect())
    }

    fn keeper(&self) -> mpsc::UnboundedSender<i64> {
        let mut keeper = lock(&self.keeper);
        keeper
            .get_or_insert_with(|| {
                // bounded by the number of sessions: each sends one number
                let (sender, ended) = mpsc::unbounded_channel();
                tokio::spawn(keep(self.shared.clone(), ended));
                sender
            })
            .clone()
    }

    /// Ends every session; what they held is ready again when this returns.
    pub(super) async fn end_all(&self) {
        let live: Vec<i64> = lock(&self.shared.live)
            .drain()
            .map(|(id, session)| {
                if let Some(session) = session.upgrade() {
                    session.set_over();
                }
                id
            })
            .collect();
        self.shared.end(&live).await;
        lock(&self.keeper).take();
    }
}

/// Renews the leases of this handle's sessions, takes back the messages of dead ones, and ends those that were dropped.
async fn keep(shared: Arc<Shared>, mut ended: mpsc::UnboundedReceiver<i64>) {
    loop {
        let tick = clock::sleep(&*shared.clock, shared.lease / RENEWALS_PER_LEASE);
        tokio::select! {
            id = ended.recv() => {
                let Some(id) = id else { return };
                let mut ids = vec![id];
                while let Ok(id) = ended.try_recv() {
                    ids.push(id);
                }
                lock(&shared.live).retain(|id, _| !ids.contains(id));
                shared.end(&ids).await;
            }
            () = tick => shared.tick().await,
        }
    }
}

impl Shared {
    async fn insert_session(&self, subscriptions: &[Subscription]) -> Result<Result<i64, String>, sqlx::Error> {
        let mut tx = self.db.write.begin_with(BEGIN).await?;
        let insert = "INSERT INTO broker_sessions (lease_until) VALUES (?) RETURNING id";
        let lease_until = self.clock.now().plus(self.lease).as_micros();
        let id: i64 = sqlx::query_scalar(insert).bind(lease_until).fetch_one(&mut *tx).await?;
        for (consumer, subscription) in (0_i64..).zip(subscriptions) {
            let insert = "INSERT INTO broker_consumers (session, queue, consumer) SELECT ?, name, ? FROM broker_queues WHERE name = ?";
            let insert = sqlx::query(insert).bind(id).bind(consumer).bind(&subscription.queue);
            if insert.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(Err(subscription.queue.clone())); // rolls back
            }
        }
        tx.commit().await?;
        Ok(Ok(id))
    }

    /// One turn of the keeper.
    async fn tick(&self) {
        let mine: Vec<Arc<FileSession>> = lock(&self.live).values().filter_map(Weak::upgrade).collect();
        let ids: Vec<i64> = mine.iter().map(|session| session.id).collect();
        match settle_error(&self.db, "renewing leases", within(STATEMENT_TIMEOUT, self.renew_and_sweep(&ids)).await) {
            Ok((renewed, returned)) => {
                for lost in mine.iter().filter(|session| !renewed.contains(&session.id)) {
                    tracing::warn!(session = lost.id, "a session's lease ran out, its messages went to others");
                    lost.set_over();
                }
                if returned > 0 {
                    tracing::info!(messages = returned, "messages of dead sessions are ready again");
                }
                self.db.wrote.notify_waiters();
            }
            Err(error) => tracing::warn!(%error, "leases were not renewed; the next turn tries again"),
        }
        for session in mine {
            session.settle().await; // what an earlier attempt could not
        }
    }

    /// The sessions renewed of `mine`, and the number of messages that came back from dead ones.
    async fn renew_and_sweep(&self, mine: &[i64]) -> Result<(Vec<i64>, u64), sqlx::Error> {
        let now = self.clock.now();
        let mut tx = self.db.write.begin_with(BEGIN).await?;
        let renew =
            "UPDATE broker_sessions SET lease_until = ? WHERE id IN (SELECT value FROM json_each(?)) RETURNING id";
        let until = now.plus(self.lease).as_micros();
        let renewed = sqlx::query_scalar(renew).bind(until).bind(json(mine)).fetch_all(&mut *tx).await?;
        let dead = "SELECT id FROM broker_sessions WHERE lease_until < ?";
        let dead: Vec<i64> = sqlx::query_scalar(dead).bind(now.as_micros()).fetch_all(&mut *tx).await?;
        let returned = if dead.is_empty() { 0 } else { end_sessions(&mut tx, &dead).await? };
        tx.commit().await?;
        Ok((renewed, returned))
    }

    async fn end(&self, ids: &[i64]) {
        if ids.is_empty() {
            return;
        }
        let ending = async {
            let mut tx = self.db.write.begin_with(BEGIN).await?;
            end_sessions(&mut tx, ids).await?;
            tx.commit().await
        };
        match settle_error(&self.db, "ending sessions", within(STATEMENT_TIMEOUT, ending).await) {
            Ok(()) => self.db.wrote.notify_waiters(),
            Err(error) => {
                tracing::warn!(%error, "sessions did not end in order; their messages come back after the lease");
            }
        }
    }
}

async fn end_sessions(tx: &mut SqliteConnection, ids: &[i64]) -> Result<u64, sqlx::Error> {
    let ids = json(ids);
    let give_back = "UPDATE broker_messages SET session = NULL, redelivered = 1
                     WHERE session IN (SELECT value FROM json_each(?))";
    let returned = sqlx::query(give_back).bind(&ids).execute(&mut *tx).await?.rows_affected();
    for delete in [
        "DELETE FROM broker_consumers WHERE session IN (SELECT value FROM json_each(?))",
        "DELETE FROM broker_sessions WHERE id IN (SELECT value FROM json_each(?))",
    ] {
        sqlx::query(delete).bind(&ids).execute(&mut *tx).await?;
    }
    Ok(returned)
}

pub(super) fn json(ids: &[i64]) -> String {
    serde_json::to_string(ids).expect("numbers are JSON")
}

/// One session: what it has in hand, and its acks.
#[derive(Debug)]
pub(super) struct FileSession {
    pub(super) id: i64,
    pub(super) shared: Arc<Shared>,
    /// Its lease ran out or its handle was closed.
    over: AtomicBool,
    pub(super) held: Mutex<Held>,
    /// Acks are written one batch at a time; who waits here finds its own already done.
    settling: tokio::sync::Mutex<()>,
    /// There is room for more, or the session is over.
    pub(super) look: Notify,
    ended: mpsc::UnboundedSender<i64>,
}

/// Deliveries that are not settled.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) consumer_of: HashMap<u64, usize>,
    pub(super) counts: Vec<usize>,
    settled: Settled,
}

/// What was handed in and is not yet written.
#[derive(Debug, Default)]
struct Settled {
    /// To be deleted.
    acked: Vec<u64>,
    /// To be ready again.
    given_back: Vec<u64>,
}

impl Held {
    fn forget(&mut self, tags: &[u64]) {
        for tag in tags {
            if let Some(consumer) = self.consumer_of.remove(tag) {
                self.counts[consumer] -= 1;
            }
        }
    }
}

impl FileSession {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn set_over(&self) {
        self.over.store(true, Ordering::Release);
        self.look.notify_waiters();
    }

    /// Deletes what was acked, frees what was given back. What fails stays noted for the keeper's next turn.
    async fn settle(&self) {
        let _one_at_a_time = self.settling.lock().await;
        let settled = std::mem::take(&mut lock(&self.held).settled);
        if self.is_over() {
            return;
        }
        // what is given up half-way must not be forgotten while the session lives
        let mut kept = PutBack { session: self, settled };
        if !kept.settled.acked.is_empty() {
            let delete = "DELETE FROM broker_messages WHERE session = ? AND id IN (SELECT value FROM json_each(?))";
            if self.write("acking", delete, &kept.settled.acked).await {
                lock(&self.held).forget(&std::mem::take(&mut kept.settled.acked));
                self.look.notify_waiters(); // there is room for more
            }
        }
        if !kept.settled.given_back.is_empty() {
            let free = "UPDATE broker_messages SET session = NULL, redelivered = 1
                        WHERE session = ? AND id IN (SELECT value FROM json_each(?))";
            // before it is free: this session itself may claim it again at once
            lock(&self.held).forget(&kept.settled.given_back);
            if self.write("giving back", free, &kept.settled.given_back).await {
                kept.settled.given_back.clear();
                self.shared.db.wrote.notify_waiters();
            }
        }
    }

    /// Runs a statement on messages of this session; whether it was stored.
    async fn write(&self, doing: &str, statement: &'static str, tags: &[u64]) -> bool {
        let ids = serde_json::to_string(tags).expect("numbers are JSON");
        let writing = sqlx::query(statement).bind(self.id).bind(ids).execute(&self.shared.db.write);
        match settle_error(&self.shared.db, doing, within(STATEMENT_TIMEOUT, writing).await) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "deliveries were not settled; the next turn tries again");
                false
            }
        }
    }
}

/// Puts what was not written back on the list.
struct PutBack<'a> {
    session: &'a FileSession,
    settled: Settled,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let mut held = lock(&self.session.held);
        held.settled.acked.append(&mut self.settled.acked);
        held.settled.given_back.append(&mut self.settled.given_back);
    }
}

#[async_trait]
impl Session for FileSession {
    async fn ack(&self, tags: Vec<u64>) {
        lock(&self.held).settled.acked.extend(tags);
        self.settle().await;
    }

    async fn give_back(&self, tags: Vec<u64>) {
        lock(&self.held).settled.given_back.extend(tags);
        self.settle().await;
    }
}

impl Drop for FileSession {
    fn drop(&mut self) {
        // without a keeper (the handle is closed, or the runtime is gone) the session has ended, or its lease ends it
        let _ = self.ended.send(self.id);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
