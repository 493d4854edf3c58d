//! Releasing: waiting rows that are due become queued, the followers of a key one at a time.

use super::begin;
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::LaneName;
use crate::store::Wake;
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::WakeRecord;

/// Rows of the lane that are queued, counted no further than the bound.
const QUEUED: &str = "\
    SELECT count(*) FROM (SELECT 1 FROM jobs WHERE lane = ?1 AND released_at IS NOT NULL LIMIT ?2)";

/// Due rows: those that hold their key; and of the others of a key the one published first, when nobody alive holds the
/// key and none of them is on its way.
const DUE: &str = "\
    SELECT key, instance, resume_at AS due_at FROM jobs AS j
    WHERE lane = ?1 AND resume_at <= ?2 AND (holds_key = 1 OR NOT EXISTS (
        SELECT 1 FROM jobs AS o WHERE o.key = j.key AND o.instance <> j.instance AND o.ended_at IS NULL
            AND (o.holds_key = 1 OR o.released_at IS NOT NULL
                OR o.resume_at <= ?2 AND (o.published_at, o.instance) < (j.published_at, j.instance))))
    ORDER BY resume_at LIMIT ?3";
const RELEASE: &str = "UPDATE jobs SET state = 3, reason = '', resume_at = NULL, released_at = ?2 WHERE instance = ?1";
const NEXT_DUE: &str = "\
    SELECT min(resume_at) FROM jobs AS j
    WHERE lane = ?1 AND resume_at IS NOT NULL AND (holds_key = 1 OR NOT EXISTS (
        SELECT 1 FROM jobs AS o WHERE o.key = j.key AND o.instance <> j.instance AND o.ended_at IS NULL
            AND (o.holds_key = 1 OR o.released_at IS NOT NULL)))";

pub async fn release(
    db: &Sqlite,
    lane: &LaneName,
    now: Timestamp,
    limit: usize,
    queued_max: usize,
) -> Answer<Vec<Wake>> {
    let mut tx = begin(db).await?;
    let queued: i64 =
        sqlx::query_scalar(QUEUED).bind(lane.as_str()).bind(rows_limit(queued_max)).fetch_one(&mut *tx).await?;
    let room = rows_limit(limit).min(rows_limit(queued_max) - queued);
    if room <= 0 {
        return Ok(Vec::new());
    }
    let due: Vec<WakeRecord> =
        sqlx::query_as(DUE).bind(lane.as_str()).bind(now.as_micros()).bind(room).fetch_all(&mut *tx).await?;
    for row in &due {
        sqlx::query(RELEASE).bind(row.instance).bind(now.as_micros()).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(due.iter().map(|row| row.wake(lane)).collect())
}

pub async fn next_due(db: &Sqlite, lane: &LaneName) -> Answer<Option<Timestamp>> {
    let due: Option<i64> = sqlx::query_scalar(NEXT_DUE).bind(lane.as_str()).fetch_one(&db.read).await?;
    Ok(due.map(Timestamp::from_micros))
}
