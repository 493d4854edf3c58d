//! The embedded broker: queues in the SQLite file that also holds the store, shared by all processes that open it.
//!
//! A publish is one transaction. A consumer claims messages in batches for its session and deletes them when they are acked.
//! A session lives as long as its lease is renewed; what it held then goes back to its place in the queue, marked redelivered.

mod deliveries;
mod session;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{QueryBuilder, SqliteConnection, SqliteTransaction};

use self::session::Sessions;
use self::watch::FileWatch;
use super::{Broker, BrokerError, DEAD_QUEUE, Deliveries, Depth, Outgoing, PublishError, QueueSpec, Subscription};
use crate::clock::{SharedClock, TimedOut, within};
use crate::db::{STATEMENT_TIMEOUT, Sqlite};
use crate::message::{HeaderValue, Message};

/// How long a session outlives its worker; renewed three times as often.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
/// Messages inserted by one statement.
const INSERT_ROWS: usize = 100;

/// Takes the writer's place in the file at once: a transaction that upgrades later can fail instead of wait.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// A handle of the broker in a SQLite file.
#[derive(Debug)]
pub struct SqliteBroker {
    db: Sqlite,
    closed: AtomicBool,
    sessions: Sessions,
}

impl SqliteBroker {
    /// A broker in an open file. Sessions of a process that died are over after `lease` (usually [`DEFAULT_LEASE`]).
    pub fn new(db: Sqlite, clock: SharedClock, lease: Duration) -> Self {
        let watch = Arc::new(FileWatch::of(&db));
        let sessions = Sessions::new(db.clone(), clock, lease, watch);
        Self { db, closed: AtomicBool::new(false), sessions }
    }

    fn check_open(&self) -> Result<(), BrokerError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(unavailable(&self.db, "this broker handle was closed"));
        }
        Ok(())
    }

    async fn declare_all(&self, queues: &[QueueSpec]) -> Result<(), sqlx::Error> {
        let mut tx = self.db.write.begin_with(BEGIN).await?;
        insert_queue(&mut tx, DEAD_QUEUE, DEAD_QUEUE).await?;
        for queue in queues {
            insert_queue(&mut tx, &queue.name, &queue.route).await?;
        }
        tx.commit().await
    }

    /// Inserts the messages; the inner results say which were routed. The transaction is still open.
    async fn insert<'t>(
        &self,
        messages: &[Outgoing],
    ) -> Result<(SqliteTransaction<'t>, Vec<Result<(), PublishError>>), sqlx::Error> {
        let mut tx = self.db.write.begin_with(BEGIN).await?;
        let queues: Vec<(String, String)> =
            sqlx::query_as("SELECT name, route FROM broker_queues").fetch_all(&mut *tx).await?;
        let mut results = Vec::with_capacity(messages.len());
        let mut routed = Vec::with_capacity(messages.len());
        for outgoing in messages {
            let before = routed.len();
            let names = queues.iter().filter(|(_, route)| *route == outgoing.route).map(|(name, _)| name.as_str());
            routed.extend(names.map(|queue| (queue, &outgoing.message)));
            results.push(match routed.len() {
                after if after == before => Err(PublishError::Unroutable { route: outgoing.route.clone() }),
                _ => Ok(()),
            });
        }
        for rows in routed.chunks(INSERT_ROWS) {
            insert_messages(&mut tx, rows).await?;
        }
        Ok((tx, results))
    }
}

async fn insert_queue(tx: &mut SqliteConnection, name: &str, route: &str) -> Result<(), sqlx::Error> {
    let insert =
        "INSERT INTO broker_queues (name, route) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET route = excluded.route";
    sqlx::query(insert).bind(name).bind(route).execute(tx).await?;
    Ok(())
}

async fn insert_messages(tx: &mut SqliteConnection, rows: &[(&str, &Message)]) -> Result<(), sqlx::Error> {
    let mut insert = QueryBuilder::new("INSERT INTO broker_messages (queue, fields, body) ");
    insert.push_values(rows, |mut row, (queue, message)| {
        row.push_bind(*queue).push_bind(fields_of(message)).push_bind(&message.body[..]);
    });
    insert.build().persistent(rows.len() == INSERT_ROWS).execute(tx).await?;
    Ok(())
}

/// Properties and headers as stored. JSON has no number that is not finite: such a header travels as text.
fn fields_of(message: &Message) -> String {
    let finite = |value: &HeaderValue| match value {
        HeaderValue::Float(number) if !number.is_finite() => HeaderValue::Other(number.to_string()),
        other => other.clone(),
    };
    let headers: Vec<_> = message.headers.iter().map(|(name, value)| (name, finite(value))).collect();
    serde_json::to_string(&(&message.properties, headers)).expect("plain data with text keys is JSON")
}

fn unavailable(db: &Sqlite, why: impl Into<String>) -> BrokerError {
    BrokerError::Unavailable { address: db.address.to_string(), why: why.into() }
}

/// Flattens the bound on an operation and its own error into one.
fn settle_error<T>(
    db: &Sqlite,
    doing: &str,
    outcome: Result<Result<T, sqlx::Error>, TimedOut>,
) -> Result<T, BrokerError> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(unavailable(db, format!("{doing}: {error}"))),
        Err(late) => Err(unavailable(db, format!("{doing}: {late}"))),
    }
}

#[async_trait]
impl Broker for SqliteBroker {
    async fn declare(&self, queues: &[QueueSpec]) -> Result<(), BrokerError> {
        self.check_open()?;
        settle_error(&self.db, "declaring queues", within(STATEMENT_TIMEOUT, self.declare_all(queues)).await)
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        let all = |error: PublishError| messages.iter().map(|_| Err(error.clone())).collect();
        if let Err(error) = self.check_open() {
            return all(error.into());
        }
        let inserted = within(STATEMENT_TIMEOUT, self.insert(&messages)).await;
        let (tx, results) = match settle_error(&self.db, "publishing", inserted) {
            Ok(inserted) => inserted,
            Err(error) => return all(error.into()), // rolled back: nothing is stored
        };
        match within(STATEMENT_TIMEOUT, tx.commit()).await {
            Ok(Ok(())) => {
                self.db.wrote.notify_waiters();
                results
            }
            Ok(Err(error)) => all(PublishError::Unconfirmed(format!("commit: {error}"))),
            Err(late) => all(PublishError::Unconfirmed(format!("commit: {late}"))),
        }
    }

    async fn subscribe(&self, subscriptions: &[Subscription]) -> Result<Vec<Box<dyn Deliveries>>, BrokerError> {
        self.check_open()?;
        self.sessions.open(subscriptions).await
    }

    async fn depth(&self, queue: &str) -> Result<Option<Depth>, BrokerError> {
        self.check_open()?;
        let counts = "SELECT (SELECT count(*) FROM broker_messages WHERE queue = name AND session IS NULL),
                             (SELECT count(*) FROM broker_messages WHERE queue = name AND session IS NOT NULL),
                             (SELECT count(*) FROM broker_consumers WHERE queue = name)
                      FROM broker_queues WHERE name = ?";
        let asking = sqlx::query_as::<_, (i64, i64, i64)>(counts).bind(queue).fetch_optional(&self.db.read);
        let found = settle_error(&self.db, "asking for a depth", within(STATEMENT_TIMEOUT, asking).await)?;
        Ok(found.map(|(ready, unacked, consumers)| Depth {
            ready: ready.unsigned_abs(),
            unacked: Some(unacked.unsigned_abs()),
            consumers: consumers.unsigned_abs(),
        }))
    }

    fn health(&self) -> Result<(), String> {
        self.check_open().map_err(|error| error.to_string())
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.sessions.end_all().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_do_not_lose_a_message() {
        let mut message = Message::default();
        message.headers.insert("n".to_owned(), HeaderValue::Float(f64::NAN));
        let stored = fields_of(&message);
        let back = deliveries::message_of(&stored, Vec::new());
        assert_eq!(back.headers["n"], HeaderValue::Other("NaN".to_owned()));
    }
}
