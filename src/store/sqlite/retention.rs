//! Forgetting finished rows, and the marks of publish time that say when that is safe.

use uuid::Uuid;

use super::{begin, letters};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::LaneName;
use crate::store::fault::{Answer, limit};
use crate::store::record::{MARKS_KEPT, minute_of, purged, whole_minutes_back};
use crate::store::{Purged, Retention};

/// The mark never falls: a minute starts with what the minutes before it had reached.
const RAISE: &str = "\
    INSERT INTO marks (lane, minute, published_at)
    SELECT ?1, ?2, max(?3, coalesce((SELECT max(published_at) FROM marks WHERE lane = ?1 AND minute <= ?2), ?3))
    WHERE true
    ON CONFLICT (lane, minute) DO UPDATE SET published_at = max(published_at, excluded.published_at)";
const TRIM: &str = "\
    DELETE FROM marks WHERE lane = ?1
        AND minute < (SELECT minute FROM marks WHERE lane = ?1 ORDER BY minute DESC LIMIT 1 OFFSET ?2)";
const MARK: &str = "SELECT published_at FROM marks WHERE lane = ?1 ORDER BY minute DESC LIMIT 1 OFFSET ?2";
const PURGE: &str = "\
    DELETE FROM jobs WHERE instance IN (
        SELECT instance FROM jobs AS j
        WHERE lane = ?1 AND published_at <= max(?2, ?3) AND ended_at IS NOT NULL
            AND (published_at <= ?2 OR ended_at <= ?3)
            AND NOT EXISTS (SELECT 1 FROM jobs AS o WHERE o.key = j.key AND o.ended_at IS NULL AND o.holds_key = 0)
        ORDER BY published_at LIMIT ?4)
    RETURNING instance, published_at";

/// Rows that one transaction forgets: everybody else who writes waits meanwhile.
pub const CHUNK: usize = 500;

pub async fn raise_mark(db: &Sqlite, lane: &LaneName, now: Timestamp, published_at: Timestamp) -> Answer<()> {
    sqlx::query(RAISE)
        .bind(lane.as_str())
        .bind(minute_of(now))
        .bind(published_at.as_micros())
        .execute(&db.write)
        .await?;
    Ok(())
}

pub async fn mark(db: &Sqlite, lane: &LaneName, minutes: u32) -> Answer<Option<Timestamp>> {
    let mark: Option<i64> =
        sqlx::query_scalar(MARK).bind(lane.as_str()).bind(whole_minutes_back(minutes)).fetch_optional(&db.read).await?;
    Ok(mark.map(Timestamp::from_micros))
}

pub async fn purge(db: &Sqlite, lane: &LaneName, retention: &Retention) -> Answer<Purged> {
    sqlx::query(TRIM).bind(lane.as_str()).bind(MARKS_KEPT).execute(&db.write).await?;
    let mut gone = Vec::new();
    while gone.len() < retention.limit {
        let rows = CHUNK.min(retention.limit - gone.len());
        let chunk = purge_chunk(db, lane, retention, rows).await?;
        gone.extend_from_slice(&chunk);
        if chunk.len() < rows {
            break;
        }
    }
    Ok(purged(gone.iter().map(|(_, published_at)| *published_at), retention))
}

async fn purge_chunk(db: &Sqlite, lane: &LaneName, retention: &Retention, rows: usize) -> Answer<Vec<(Uuid, i64)>> {
    let mut tx = begin(db).await?;
    let gone: Vec<(Uuid, i64)> = sqlx::query_as(PURGE)
        .bind(lane.as_str())
        .bind(retention.published_before.as_micros())
        .bind(retention.ended_before.as_micros())
        .bind(limit(rows))
        .fetch_all(&mut *tx)
        .await?;
    let instances: Vec<Uuid> = gone.iter().map(|(instance, _)| *instance).collect();
    letters::forget(&mut tx, &instances).await?;
    tx.commit().await?;
    Ok(gone)
}
