//! Releasing: waiting rows that are due become queued, the followers of a key one at a time.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::begin;
use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::store::Wake;
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::WakeRecord;

/// One releaser of a lane at a time: two would both fill the same room. The other one finds nothing to do.
pub(super) const TAKE_TURN: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('lanes.release.' || $1, 0))";
/// Rows of the lane that are queued, counted no further than the bound.
const QUEUED: &str = "\
    SELECT count(*) FROM (
        SELECT 1 FROM jobs WHERE lane = $1 AND released_at IS NOT NULL
        UNION ALL SELECT 1 FROM jobs_side WHERE lane = $1 AND released_at IS NOT NULL
        LIMIT $2) AS queued";

/// Due rows in `jobs`: those that hold their key; and a replay there, unless a follower of its key is on its way or was
/// published before it. (No alive row holds that key: it would be in the replay's place.)
const DUE: &str = "\
    SELECT key, instance, resume_at AS due_at FROM jobs AS j
    WHERE lane = $1 AND resume_at <= $2 AND (holds_key OR NOT EXISTS (
        SELECT 1 FROM jobs_side AS o WHERE o.key = j.key AND o.ended_at IS NULL
            AND (o.released_at IS NOT NULL
                OR o.resume_at <= $2 AND (o.published_at, o.instance) < (j.published_at, j.instance))))
    ORDER BY resume_at LIMIT $3 FOR UPDATE OF j SKIP LOCKED";
const RELEASE: &str = "\
    UPDATE jobs SET state = 3, reason = '', resume_at = NULL, released_at = $2
    WHERE instance = ANY($1) AND resume_at IS NOT NULL";

/// A due row `j` of `jobs_side` that is the next of its key: nobody alive holds the key, none of the others is on its way,
/// none that is due was published before it.
macro_rules! next_of_its_key {
    () => {
        "NOT EXISTS (SELECT 1 FROM jobs_all AS o WHERE o.key = j.key AND o.instance <> j.instance AND o.ended_at IS NULL
            AND (o.holds_key OR o.released_at IS NOT NULL
                OR o.resume_at <= $2 AND (o.published_at, o.instance) < (j.published_at, j.instance)))"
    };
}
const DUE_SIDE: &str = concat!(
    "SELECT j.key, j.instance, j.resume_at AS due_at FROM jobs_side AS j JOIN jobs AS h ON h.key = j.key
    WHERE j.lane = $1 AND j.resume_at <= $2 AND ",
    next_of_its_key!(),
    " ORDER BY j.resume_at LIMIT $3 FOR UPDATE OF h SKIP LOCKED"
);
/// Looks again, now that the keys are locked.
const RELEASE_SIDE: &str = concat!(
    "UPDATE jobs_side AS j SET state = 3, reason = '', resume_at = NULL, released_at = $2
    WHERE j.instance = ANY($1) AND j.resume_at <= $2 AND ",
    next_of_its_key!(),
    " RETURNING j.instance"
);
const NEXT_DUE: &str = "\
    SELECT least(
        (SELECT resume_at FROM jobs AS j
            WHERE lane = $1 AND resume_at IS NOT NULL AND (holds_key OR NOT EXISTS (
                SELECT 1 FROM jobs_side AS o WHERE o.key = j.key AND o.released_at IS NOT NULL))
            ORDER BY resume_at LIMIT 1),
        (SELECT min(resume_at) FROM jobs_side AS j
            WHERE lane = $1 AND resume_at IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM jobs_all AS o WHERE o.key = j.key AND o.instance <> j.instance AND o.ended_at IS NULL
                    AND (o.holds_key OR o.released_at IS NOT NULL))))";

pub async fn release(
    pool: &PgPool,
    lane: &LaneName,
    now: Timestamp,
    limit: usize,
    queued_max: usize,
) -> Answer<Vec<Wake>> {
    let mut tx = begin(pool).await?;
    let my_turn: bool = sqlx::query_scalar(TAKE_TURN).bind(lane.as_str()).fetch_one(&mut *tx).await?;
    let due = if my_turn { due(&mut tx, lane, now, limit, queued_max).await? } else { Vec::new() };
    // also when nothing was written: the turn ends with the transaction
    tx.commit().await?;
    Ok(due.iter().map(|row| row.wake(lane)).collect())
}

/// Marks the rows that were due first, of both tables, as many as there is room for.
async fn due(
    db: &mut PgConnection,
    lane: &LaneName,
    now: Timestamp,
    limit: usize,
    queued_max: usize,
) -> Answer<Vec<WakeRecord>> {
    let queued: i64 =
        sqlx::query_scalar(QUEUED).bind(lane.as_str()).bind(rows_limit(queued_max)).fetch_one(&mut *db).await?;
    let room = rows_limit(limit).min(rows_limit(queued_max) - queued);
    if room <= 0 {
        return Ok(Vec::new());
    }
    let mut due: Vec<WakeRecord> =
        sqlx::query_as(DUE).bind(lane.as_str()).bind(now.as_micros()).bind(room).fetch_all(&mut *db).await?;
    let side: Vec<WakeRecord> =
        sqlx::query_as(DUE_SIDE).bind(lane.as_str()).bind(now.as_micros()).bind(room).fetch_all(&mut *db).await?;
    let on_side: Vec<Uuid> = side.iter().map(|row| row.instance).collect();
    due.extend(side);
    due.sort_by_key(|row| row.due_at);
    due.truncate(usize::try_from(room).unwrap_or(0));

    let (side, hot): (Vec<Uuid>, Vec<Uuid>) =
        due.iter().map(|row| row.instance).partition(|instance| on_side.contains(instance));
    sqlx::query(RELEASE).bind(&hot).bind(now.as_micros()).execute(&mut *db).await?;
    if !side.is_empty() {
        let released: Vec<Uuid> =
            sqlx::query_scalar(RELEASE_SIDE).bind(&side).bind(now.as_micros()).fetch_all(db).await?;
        due.retain(|row| !side.contains(&row.instance) || released.contains(&row.instance));
    }
    Ok(due)
}

pub async fn next_due(pool: &PgPool, lane: &LaneName) -> Answer<Option<Timestamp>> {
    let due: Option<i64> = sqlx::query_scalar(NEXT_DUE).bind(lane.as_str()).fetch_one(pool).await?;
    Ok(due.map(Timestamp::from_micros))
}
