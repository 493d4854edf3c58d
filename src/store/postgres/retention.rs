//! Forgetting finished rows, and the marks of publish time that say when that is safe.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{begin, letters};
use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::store::fault::{Answer, limit};
use crate::store::record::{MARKS_KEPT, minute_of, purged, whole_minutes_back};
use crate::store::{Purged, Retention};

/// The mark never falls: a minute starts with what the minutes before it had reached.
const RAISE: &str = "\
    INSERT INTO marks AS m (lane, minute, published_at)
    SELECT $1, $2, greatest($3, (SELECT max(published_at) FROM marks WHERE lane = $1 AND minute <= $2))
    ON CONFLICT (lane, minute) DO UPDATE SET published_at = greatest(m.published_at, excluded.published_at)";
const TRIM: &str = "\
    DELETE FROM marks WHERE lane = $1
        AND minute < (SELECT minute FROM marks WHERE lane = $1 ORDER BY minute DESC LIMIT 1 OFFSET $2)";
const MARK: &str = "SELECT published_at FROM marks WHERE lane = $1 ORDER BY minute DESC LIMIT 1 OFFSET $2";

/// An ended row that may go, by the watermark ($2) or by the cap ($3): nothing ends before it was published.
macro_rules! may_go {
    () => {
        "j.lane = $1 AND j.published_at <= greatest($2, $3) AND j.ended_at IS NOT NULL
            AND (j.published_at <= $2 OR j.ended_at <= $3)"
    };
}
const LOCK_SIDE: &str = concat!(
    "SELECT j.instance FROM jobs_side AS j JOIN jobs AS h ON h.key = j.key WHERE ",
    may_go!(),
    " AND NOT EXISTS (SELECT 1 FROM jobs_all AS o WHERE o.key = j.key AND o.ended_at IS NULL AND NOT o.holds_key)
    ORDER BY j.published_at LIMIT $4 FOR UPDATE OF h SKIP LOCKED"
);
/// Looks again, now that the keys are locked.
const PURGE_SIDE: &str = concat!(
    "DELETE FROM jobs_side AS j WHERE ",
    may_go!(),
    " AND j.instance = ANY($4)
        AND NOT EXISTS (SELECT 1 FROM jobs_all AS o WHERE o.key = j.key AND o.ended_at IS NULL AND NOT o.holds_key)
    RETURNING j.instance, j.published_at"
);
/// A row in `jobs` goes last of its key: while another one is left it is the lock.
const LOCK: &str = concat!(
    "SELECT j.key FROM jobs AS j WHERE ",
    may_go!(),
    " AND NOT EXISTS (SELECT 1 FROM jobs_side AS o WHERE o.key = j.key)
    ORDER BY j.published_at LIMIT $4 FOR UPDATE OF j SKIP LOCKED"
);
const PURGE: &str = concat!(
    "DELETE FROM jobs AS j WHERE ",
    may_go!(),
    " AND j.key = ANY($4) AND NOT EXISTS (SELECT 1 FROM jobs_side AS o WHERE o.key = j.key)
    RETURNING j.instance, j.published_at"
);

pub async fn raise_mark(pool: &PgPool, lane: &LaneName, now: Timestamp, published_at: Timestamp) -> Answer<()> {
    sqlx::query(RAISE).bind(lane.as_str()).bind(minute_of(now)).bind(published_at.as_micros()).execute(pool).await?;
    Ok(())
}

pub async fn mark(pool: &PgPool, lane: &LaneName, minutes: u32) -> Answer<Option<Timestamp>> {
    let mark: Option<i64> =
        sqlx::query_scalar(MARK).bind(lane.as_str()).bind(whole_minutes_back(minutes)).fetch_optional(pool).await?;
    Ok(mark.map(Timestamp::from_micros))
}

pub async fn purge(pool: &PgPool, lane: &LaneName, retention: &Retention) -> Answer<Purged> {
    let mut tx = begin(pool).await?;
    sqlx::query(TRIM).bind(lane.as_str()).bind(MARKS_KEPT).execute(&mut *tx).await?;
    let mut gone = purge_table(&mut tx, LOCK_SIDE, PURGE_SIDE, lane, retention, retention.limit).await?;
    let rest = retention.limit.saturating_sub(gone.len());
    gone.extend(purge_table(&mut tx, LOCK, PURGE, lane, retention, rest).await?);
    let instances: Vec<Uuid> = gone.iter().map(|(instance, _)| *instance).collect();
    letters::forget(&mut tx, &instances).await?;
    tx.commit().await?;
    Ok(purged(gone.iter().map(|(_, published_at)| *published_at), retention))
}

async fn purge_table(
    db: &mut PgConnection,
    lock: &'static str,
    purge: &'static str,
    lane: &LaneName,
    retention: &Retention,
    rows: usize,
) -> Answer<Vec<(Uuid, i64)>> {
    let (published_before, ended_before) = (retention.published_before.as_micros(), retention.ended_before.as_micros());
    let locked: Vec<Uuid> = sqlx::query_scalar(lock)
        .bind(lane.as_str())
        .bind(published_before)
        .bind(ended_before)
        .bind(limit(rows))
        .fetch_all(&mut *db)
        .await?;
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as(purge)
        .bind(lane.as_str())
        .bind(published_before)
        .bind(ended_before)
        .bind(&locked)
        .fetch_all(db)
        .await?)
}
