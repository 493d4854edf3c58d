//! Budgets and turns: tokens of all windows in one transaction, and who goes next.

use sqlx::SqliteConnection;

use super::begin;
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::LaneName;
use crate::job::budget::{Take, Taken};
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::{GateRecord, WakeRecord};
use crate::store::{Gate, Turn, Wake, gcra};

const DUE: &str = "SELECT due FROM budgets WHERE key = ?1";
const MOVE: &str = "INSERT INTO budgets (key, due) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET due = excluded.due";
const PURGE: &str = "DELETE FROM budgets WHERE due < ?1";

/// Hops from one endpoint and tenant to the next in the index, however many rows each has.
const NEXT_GATE: &str = "\
    SELECT j.endpoint, j.tenant, (
        SELECT count(*) FROM jobs AS q
        WHERE q.lane = ?1 AND q.released_at IS NOT NULL AND q.endpoint = j.endpoint AND q.tenant = j.tenant) AS queued
    FROM jobs AS j
    WHERE j.lane = ?1 AND j.resume_at = 253402214400000000 AND (j.endpoint, j.tenant) > (?2, ?3)
    ORDER BY j.endpoint, j.tenant LIMIT 1";
const RELEASE: &str = "\
    UPDATE jobs SET state = 3, reason = '', resume_at = NULL, released_at = ?5
    WHERE instance IN (
        SELECT instance FROM jobs
        WHERE lane = ?1 AND resume_at = 253402214400000000 AND endpoint = ?2 AND tenant = ?3
        ORDER BY published_at
        LIMIT max(0, ?4 + ?6 - (
            SELECT count(*) FROM jobs AS q
            WHERE q.lane = ?1 AND q.released_at IS NOT NULL AND q.endpoint = ?2 AND q.tenant = ?3)))
    RETURNING key, instance, published_at AS due_at";

pub async fn take(db: &Sqlite, wish: &Take) -> Answer<Taken> {
    let mut tx = begin(db).await?;
    let mut due = Vec::with_capacity(wish.windows.len());
    for window in &wish.windows {
        due.push(due_of(&mut tx, &window.key).await?);
    }
    let (taken, after) = gcra::take(wish, &due);
    if taken.granted > 0 {
        for (window, due) in wish.windows.iter().zip(after) {
            sqlx::query(MOVE).bind(&window.key).bind(due.as_micros()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
    }
    Ok(taken)
}

pub async fn peek(db: &Sqlite, keys: &[String]) -> Answer<Vec<(String, Timestamp)>> {
    let mut found = Vec::with_capacity(keys.len());
    let mut connection = db.read.acquire().await?;
    for key in keys {
        found.extend(due_of(&mut connection, key).await?.map(|due| (key.clone(), due)));
    }
    Ok(found)
}

async fn due_of(db: &mut SqliteConnection, key: &str) -> Answer<Option<Timestamp>> {
    let due: Option<i64> = sqlx::query_scalar(DUE).bind(key).fetch_optional(db).await?;
    Ok(due.map(Timestamp::from_micros))
}

pub async fn purge(db: &Sqlite, before: Timestamp) -> Answer<u64> {
    Ok(sqlx::query(PURGE).bind(before.as_micros()).execute(&db.write).await?.rows_affected())
}

pub async fn gates(db: &Sqlite, lane: &LaneName, after: Option<&Gate>, limit: usize) -> Answer<Vec<Gate>> {
    let mut connection = db.read.acquire().await?;
    let mut gates: Vec<Gate> = Vec::new();
    while gates.len() < limit {
        let (endpoint, tenant) =
            gates.last().or(after).map_or(("", ""), |last| (last.endpoint.as_str(), last.tenant.as_str()));
        let next: Option<GateRecord> = sqlx::query_as(NEXT_GATE)
            .bind(lane.as_str())
            .bind(endpoint)
            .bind(tenant)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(next) = next else { break };
        gates.push(next.gate()?);
    }
    Ok(gates)
}

pub async fn release(db: &Sqlite, lane: &LaneName, now: Timestamp, turns: &[Turn]) -> Answer<Vec<Wake>> {
    let mut tx = begin(db).await?;
    let mut released: Vec<WakeRecord> = Vec::new();
    for turn in turns {
        let rows: Vec<WakeRecord> = sqlx::query_as(RELEASE)
            .bind(lane.as_str())
            .bind(turn.endpoint.as_str())
            .bind(turn.tenant.as_str())
            .bind(rows_limit(turn.jobs as usize))
            .bind(now.as_micros())
            .bind(i64::try_from(turn.queued).unwrap_or(i64::MAX / 2))
            .fetch_all(&mut *tx)
            .await?;
        released.extend(rows);
    }
    tx.commit().await?;
    released.sort_by_key(|row| row.due_at);
    Ok(released.iter().map(|row| row.wake(lane)).collect())
}
