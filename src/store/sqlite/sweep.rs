//! Sweeping: wake-ups that got lost are published again, running jobs of dead workers are given back.

use super::{begin, rows};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::LaneName;
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::{JobRecord, WakeRecord, job_columns};
use crate::store::{State, TakenOver, Wake, step};

const QUEUED: &str = "\
    UPDATE jobs SET released_at = ?2
    WHERE instance IN (SELECT instance FROM jobs WHERE lane = ?1 AND released_at < ?3 ORDER BY released_at LIMIT ?4)
    RETURNING key, instance, released_at AS due_at";
const ORPHANS: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE state = 1 AND NOT EXISTS (SELECT 1 FROM workers WHERE id = jobs.worker) LIMIT ?1"
);

pub async fn queued(
    db: &Sqlite,
    lane: &LaneName,
    now: Timestamp,
    released_before: Timestamp,
    limit: usize,
) -> Answer<Vec<Wake>> {
    let rows: Vec<WakeRecord> = sqlx::query_as(QUEUED)
        .bind(lane.as_str())
        .bind(now.as_micros())
        .bind(released_before.as_micros())
        .bind(rows_limit(limit))
        .fetch_all(&db.write)
        .await?;
    Ok(rows.iter().map(|row| row.wake(lane)).collect())
}

pub async fn run(db: &Sqlite, now: Timestamp, poison_after: u32, limit: usize) -> Answer<Vec<TakenOver>> {
    let mut tx = begin(db).await?;
    let orphans: Vec<JobRecord> = sqlx::query_as(ORPHANS).bind(rows_limit(limit)).fetch_all(&mut *tx).await?;
    let mut taken = Vec::with_capacity(orphans.len());
    for orphan in &orphans {
        // one that can't be read must not keep the others from being taken over
        let Some((after, row)) = orphan.taken_over(poison_after, now) else { continue };
        if after.state == State::Dead {
            rows::bury(&mut tx, &after, &step::killed(after.takeovers), now).await?;
        } else {
            rows::write(&mut tx, &after).await?;
        }
        taken.push(TakenOver { row, key: orphan.dedup_key() });
    }
    tx.commit().await?;
    Ok(taken)
}
