//! What a session of the embedded broker receives from one queue: claims that survive a caller who gives up waiting.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::session::{FileSession, json, lock};
use super::{settle_error, unavailable};
use crate::broker::{BrokerError, Deliveries, Delivery, Receipt};
use crate::clock::within;
use crate::db::STATEMENT_TIMEOUT;
use crate::message::Message;

type Claim = Result<Vec<(i64, bool, String, Vec<u8>)>, BrokerError>;

/// The subscription of a session to one queue.
pub(super) struct FileDeliveries {
    session: Arc<FileSession>,
    consumer: usize,
    queue: String,
    prefetch: usize,
    /// A claim that is under way: it goes on when whoever waits for it gives up, and is taken by the next call.
    claiming: Option<JoinHandle<Claim>>,
}

impl FileDeliveries {
    pub(super) fn new(session: Arc<FileSession>, consumer: usize, queue: String, prefetch: usize) -> Self {
        Self { session, consumer, queue, prefetch, claiming: None }
    }

    /// Claims at most `max` messages, waiting for none.
    async fn claim(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        if self.claiming.is_none() {
            let room = self.prefetch.saturating_sub(lock(&self.session.held).counts[self.consumer]);
            let wanted = max.max(1).min(room);
            if wanted == 0 || !self.has_ready().await? {
                return Ok(Vec::new());
            }
            let (session, queue) = (self.session.clone(), self.queue.clone());
            self.claiming = Some(tokio::spawn(async move { session.claim(&queue, wanted).await }));
        }
        let Some(claiming) = &mut self.claiming else { return Ok(Vec::new()) };
        let claimed = claiming.await;
        self.claiming = None;
        let rows = claimed.map_err(|error| unavailable(&self.session.shared.db, format!("claiming: {error}")))??;
        let mut held = lock(&self.session.held);
        let deliveries = rows.into_iter().map(|(id, redelivered, fields, body)| {
            let tag = id.unsigned_abs();
            held.consumer_of.insert(tag, self.consumer);
            held.counts[self.consumer] += 1;
            let receipt = Receipt::new(self.session.clone(), tag);
            Delivery { message: message_of(&fields, body), redelivered, receipt }
        });
        Ok(deliveries.collect())
    }

    /// Looks without disturbing the one writer.
    async fn has_ready(&self) -> Result<bool, BrokerError> {
        let db = &self.session.shared.db;
        let look = "SELECT EXISTS (SELECT 1 FROM broker_messages WHERE queue = ? AND session IS NULL)";
        let looking = sqlx::query_scalar(look).bind(&self.queue).fetch_one(&db.read);
        settle_error(db, "looking for messages", within(STATEMENT_TIMEOUT, looking).await)
    }
}

impl FileSession {
    async fn claim(&self, queue: &str, wanted: usize) -> Claim {
        let db = &self.shared.db;
        let claim = "UPDATE broker_messages SET session = ?1
                     WHERE id IN (SELECT id FROM broker_messages WHERE queue = ?2 AND session IS NULL ORDER BY id LIMIT ?3)
                       AND EXISTS (SELECT 1 FROM broker_sessions WHERE id = ?1)
                     RETURNING id, redelivered, fields, body";
        let claiming = sqlx::query_as::<_, (i64, bool, String, Vec<u8>)>(claim)
            .bind(self.id)
            .bind(queue)
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .fetch_all(&db.write);
        let mut rows = settle_error(db, "claiming messages", within(STATEMENT_TIMEOUT, claiming).await)?;
        rows.sort_unstable_by_key(|(id, ..)| *id); // RETURNING promises no order
        Ok(rows)
    }
}

/// A stored message. Fields that cannot be read are left out: whoever decodes the job says what is missing.
pub(super) fn message_of(fields: &str, body: Vec<u8>) -> Message {
    let (properties, headers) = serde_json::from_str::<(_, Vec<_>)>(fields).unwrap_or_else(|error| {
        tracing::error!(%error, "a stored message has fields that cannot be read");
        Default::default()
    });
    Message { properties, headers: headers.into_iter().collect(), body: body.into() }
}

#[async_trait]
impl Deliveries for FileDeliveries {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let session = self.session.clone();
            let changed = session.shared.watch.next_change();
            let mut look = std::pin::pin!(session.look.notified());
            look.as_mut().enable();
            if self.session.is_over() {
                return Err(unavailable(
                    &self.session.shared.db,
                    "the session is over: its lease ran out or it was closed",
                ));
            }
            let got = self.claim(max).await?;
            if !got.is_empty() {
                return Ok(got);
            }
            tokio::select! {
                () = changed => {}
                () = look => {}
            }
        }
    }
}

impl Drop for FileDeliveries {
    /// Gives back a claim that nobody has seen, while receipts that are out keep the session alive.
    fn drop(&mut self) {
        let (Some(claiming), Ok(runtime)) = (self.claiming.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let session = self.session.clone();
        runtime.spawn(async move {
            let Ok(Ok(rows)) = claiming.await else { return };
            let ids: Vec<i64> = rows.iter().map(|(id, ..)| *id).collect();
            let give_back = "UPDATE broker_messages SET session = NULL WHERE session = ? AND id IN (SELECT value FROM json_each(?))";
            let giving = sqlx::query(give_back).bind(session.id).bind(json(&ids)).execute(&session.shared.db.write);
            match settle_error(&session.shared.db, "giving back", within(STATEMENT_TIMEOUT, giving).await) {
                Ok(_) => session.shared.db.wrote.notify_waiters(),
                Err(error) => tracing::warn!(%error, "a claim was not given back; it comes back with the session"),
            }
        });
    }
}
