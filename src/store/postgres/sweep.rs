//! Sweeping: wake-ups that got lost are published again, running jobs of dead workers are given back.

use std::ops::Range;

use sqlx::PgPool;
use uuid::Uuid;

use super::rows::{self, Death, Table};
use super::{PgStore, begin};
use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::{JobRecord, WakeRecord, job_columns};
use crate::store::{State, StoreResult, TakenOver, Wake, step};

const QUEUED: &str = "\
    WITH overdue AS (
        SELECT key FROM jobs WHERE lane = $1 AND released_at < $3
        ORDER BY released_at LIMIT $4 FOR UPDATE SKIP LOCKED)
    UPDATE jobs AS j SET released_at = $2 FROM overdue WHERE j.key = overdue.key
    RETURNING j.key, j.instance, j.released_at AS due_at";
const QUEUED_SIDE: &str = "\
    WITH overdue AS (
        SELECT j.instance FROM jobs_side AS j JOIN jobs AS h ON h.key = j.key
        WHERE j.lane = $1 AND j.released_at < $3
        ORDER BY j.released_at LIMIT $4 FOR UPDATE OF h SKIP LOCKED)
    UPDATE jobs_side AS j SET released_at = $2 FROM overdue
    WHERE j.instance = overdue.instance AND j.released_at < $3
    RETURNING j.key, j.instance, j.released_at AS due_at";
/// Blocks of `jobs`. There is no index of what runs: a settlement would have to change it.
const BLOCKS: &str = "SELECT pg_relation_size('jobs') / current_setting('block_size')::bigint";
/// Blocks that are looked through in one statement: 64 MiB, at most a second or two from a slow disk.
const CHUNK_BLOCKS: i64 = 8 * 1024;
/// A row that moves while the walk is on its way is not an orphan: nobody writes what a dead worker runs.
const ORPHANS: &str = "\
    SELECT key FROM jobs AS j
    WHERE j.ctid >= ('(' || $1::bigint || ',0)')::tid AND j.ctid < ('(' || $2::bigint || ',0)')::tid
        AND j.state = 1 AND NOT EXISTS (SELECT 1 FROM workers AS w WHERE w.id = j.worker)
    LIMIT $3";
/// Looks again, now that it locks; in the order of keys, as everybody does.
const LOCK_ORPHANS: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs AS j WHERE key = ANY($1) AND state = 1
        AND NOT EXISTS (SELECT 1 FROM workers AS w WHERE w.id = j.worker)
    ORDER BY key FOR UPDATE OF j SKIP LOCKED"
);

pub async fn queued(
    pool: &PgPool,
    lane: &LaneName,
    now: Timestamp,
    released_before: Timestamp,
    limit: usize,
) -> Answer<Vec<Wake>> {
    let mut released: Vec<WakeRecord> = Vec::new();
    for sql in [QUEUED, QUEUED_SIDE] {
        let rows: Vec<WakeRecord> = sqlx::query_as(sql)
            .bind(lane.as_str())
            .bind(now.as_micros())
            .bind(released_before.as_micros())
            .bind(rows_limit(limit - released.len()))
            .fetch_all(pool)
            .await?;
        released.extend(rows);
    }
    Ok(released.iter().map(|row| row.wake(lane)).collect())
}

/// Looks for orphans from the end of the table, where what was claimed last most often is, then takes them in one
/// transaction. Every statement is bounded by itself: the walk takes as long as the table is large.
pub async fn run(store: &PgStore, now: Timestamp, poison_after: u32, limit: usize) -> StoreResult<Vec<TakenOver>> {
    let mut end = store.run("sweep run", blocks(&store.pool)).await?;
    let mut orphans: Vec<Uuid> = Vec::new();
    while end > 0 && orphans.len() < limit {
        let begin = (end - CHUNK_BLOCKS).max(0);
        orphans.extend(store.run("sweep run", find(&store.pool, begin..end, limit - orphans.len())).await?);
        end = begin;
    }
    if orphans.is_empty() {
        return Ok(Vec::new());
    }
    store.run("sweep run", take_over(&store.pool, now, poison_after, &orphans)).await
}

async fn blocks(pool: &PgPool) -> Answer<i64> {
    Ok(sqlx::query_scalar(BLOCKS).fetch_one(pool).await?)
}

async fn find(pool: &PgPool, blocks: Range<i64>, limit: usize) -> Answer<Vec<Uuid>> {
    let limit = rows_limit(limit);
    Ok(sqlx::query_scalar(ORPHANS).bind(blocks.start).bind(blocks.end).bind(limit).fetch_all(pool).await?)
}

async fn take_over(pool: &PgPool, now: Timestamp, poison_after: u32, keys: &[Uuid]) -> Answer<Vec<TakenOver>> {
    let mut tx = begin(pool).await?;
    let orphans: Vec<JobRecord> = sqlx::query_as(LOCK_ORPHANS).bind(keys).fetch_all(&mut *tx).await?;
    let (mut changed, mut deaths, mut taken) = (Vec::new(), Vec::new(), Vec::with_capacity(orphans.len()));
    for orphan in &orphans {
        // one that can't be read must not keep the others from being taken over
        let Some((after, row)) = orphan.taken_over(poison_after, now) else { continue };
        let key = orphan.dedup_key();
        if after.state == State::Dead {
            deaths.push(Death { key, row: after, detail: step::killed(after.takeovers) });
        } else {
            changed.push((key, after));
        }
        taken.push(TakenOver { row, key });
    }
    rows::write(&mut tx, Table::Hot, &changed).await?;
    rows::bury(&mut tx, Table::Hot, &deaths, now).await?;
    tx.commit().await?;
    Ok(taken)
}
