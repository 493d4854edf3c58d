//! What people were told of incidents: written by whoever has read the version before.

use async_trait::async_trait;
use sqlx::PgPool;

use super::PgStore;
use crate::clock::Timestamp;
use crate::store::fault::Answer;
use crate::store::{NoticeStore, NoticesRow, StoreResult};

/// The one row.
const NAME: &str = "incidents";
const READ: &str = "SELECT version, state FROM notices WHERE name = $1";
const INSERT: &str = "\
    INSERT INTO notices (name, version, changed_at, state)
    SELECT $1, $2 + 1, $3, $4 WHERE $2 = 0 ON CONFLICT DO NOTHING";
const UPDATE: &str = "\
    UPDATE notices SET version = $2 + 1, changed_at = $3, state = $4 WHERE name = $1 AND version = $2";

#[async_trait]
impl NoticeStore for PgStore {
    async fn notices(&self) -> StoreResult<Option<NoticesRow>> {
        self.run("read notices", read(&self.pool)).await
    }

    async fn put_notices(&self, seen: i64, state: &str, now: Timestamp) -> StoreResult<bool> {
        self.run("write notices", put(&self.pool, seen, state, now)).await
    }
}

async fn read(pool: &PgPool) -> Answer<Option<NoticesRow>> {
    let row: Option<(i64, String)> = sqlx::query_as(READ).bind(NAME).fetch_optional(pool).await?;
    Ok(row.map(|(version, state)| NoticesRow { version, state }))
}

async fn put(pool: &PgPool, seen: i64, state: &str, now: Timestamp) -> Answer<bool> {
    let statement = if seen == 0 { INSERT } else { UPDATE };
    let written = sqlx::query(statement).bind(NAME).bind(seen).bind(now.as_micros()).bind(state).execute(pool).await?;
    Ok(written.rows_affected() == 1)
}
