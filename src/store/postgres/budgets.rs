//! Budgets and turns: tokens of all windows in one statement, and who goes next.

use sqlx::PgPool;

use super::begin;
use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::job::budget::{Take, Taken, Window};
use crate::store::fault::{Answer, Fault, limit as rows_limit};
use crate::store::record::{GateRecord, WakeRecord};
use crate::store::{Gate, Turn, Wake};

/// Locks in the order of keys, then decides: what `store::gcra` says, on the numbers as they are under the locks.
///
/// The commit does not wait for the disk, so that a hot key is locked for microseconds: a crash of the server forgets the
/// tokens of its last moments, and is down for longer than these last.
const TAKE: &str = "\
    WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS setting),
    asked AS (
        SELECT w.key, w.interval, w.tolerance, w.reach, w.at
        FROM quick, unnest($1::text[], $2::int8[], $3::int8[], $8::int8[]) WITH ORDINALITY
            AS w(key, interval, tolerance, reach, at)
        WHERE quick.setting = 'off'),
    locked AS MATERIALIZED (
        SELECT b.key, a.at, a.interval, a.tolerance, CASE WHEN b.due > $6 + a.reach THEN $6 + a.tolerance ELSE greatest(b.due, $4) END AS due
        FROM asked AS a JOIN budgets AS b ON b.key = a.key
        ORDER BY b.key FOR UPDATE OF b),
    most AS (
        SELECT CASE WHEN count(*) = $7 THEN
            least($5, min(CASE WHEN due - tolerance > $6 THEN 0 ELSE ($6 - due + tolerance) / interval + 1 END))
            ELSE 0 END AS granted
        FROM locked),
    taken AS (
        UPDATE budgets AS b SET due = locked.due + most.granted * locked.interval
        FROM locked, most WHERE b.key = locked.key AND most.granted > 0)
    SELECT locked.due - locked.tolerance, most.granted FROM locked, most ORDER BY locked.at";
const BEGIN: &str = "\
    INSERT INTO budgets (key, due) SELECT key, $2 FROM unnest($1::text[]) AS w(key) ORDER BY key COLLATE \"C\" ON CONFLICT DO NOTHING";
const PEEK: &str = "SELECT key, due FROM budgets WHERE key = ANY($1)";
const PURGE: &str = "\
    DELETE FROM budgets WHERE due < $1 AND key IN (SELECT key FROM budgets WHERE due < $1 FOR UPDATE SKIP LOCKED)";

/// Hops from one endpoint and tenant to the next in the index, however many rows each has.
const GATES: &str = "\
    WITH RECURSIVE gates AS (
        (SELECT endpoint, tenant FROM jobs
            WHERE lane = $1 AND resume_at = 253402214400000000 AND (endpoint, tenant) > ($3, $4)
            ORDER BY endpoint, tenant LIMIT 1)
        UNION ALL
        SELECT n.endpoint, n.tenant FROM gates AS g CROSS JOIN LATERAL (
            SELECT endpoint, tenant FROM jobs
            WHERE lane = $1 AND resume_at = 253402214400000000 AND (endpoint, tenant) > (g.endpoint, g.tenant)
            ORDER BY endpoint, tenant LIMIT 1) AS n)
    SELECT g.endpoint, g.tenant, coalesce(q.queued, 0) AS queued
    FROM (SELECT endpoint, tenant FROM gates LIMIT $2) AS g LEFT JOIN (
        SELECT endpoint, tenant, count(*) AS queued FROM jobs
        WHERE lane = $1 AND released_at IS NOT NULL GROUP BY endpoint, tenant) AS q
    ON q.endpoint = g.endpoint AND q.tenant = g.tenant
    ORDER BY g.endpoint, g.tenant";
const RELEASE: &str = "\
    WITH picked AS (
        SELECT j.key, j.instance
        FROM unnest($2::text[], $3::text[], $4::int8[], $6::int8[]) AS t(endpoint, tenant, jobs, queued) CROSS JOIN LATERAL (
            SELECT key, instance FROM jobs
            WHERE lane = $1 AND resume_at = 253402214400000000 AND endpoint = t.endpoint AND tenant = t.tenant
            ORDER BY published_at
            LIMIT greatest(0, t.jobs + t.queued - (
                SELECT count(*) FROM jobs AS q
                WHERE q.lane = $1 AND q.released_at IS NOT NULL AND q.endpoint = t.endpoint AND q.tenant = t.tenant))
            FOR UPDATE SKIP LOCKED) AS j)
    UPDATE jobs AS j SET state = 3, reason = '', resume_at = NULL, released_at = $5
    FROM picked WHERE j.key = picked.key AND j.instance = picked.instance AND j.resume_at = 253402214400000000
    RETURNING j.key, j.instance, j.published_at AS due_at";

/// Tries at a statement that finds a window without a row: one to see it, one to write it, and one for a purge between.
const TRIES_MAX: usize = 3;

pub async fn take(pool: &PgPool, wish: &Take) -> Answer<Taken> {
    for _ in 0..TRIES_MAX {
        let rows: Vec<(i64, i64)> = sqlx::query_as(TAKE)
            .bind(keys(&wish.windows))
            .bind(micros(&wish.windows, |window| window.interval))
            .bind(micros(&wish.windows, |window| window.tolerance))
            .bind(wish.now.as_micros())
            .bind(i64::from(wish.tokens))
            .bind(wish.until.as_micros())
            .bind(rows_limit(wish.windows.len()))
            .bind(micros(&wish.windows, |window| window.reach))
            .fetch_all(pool)
            .await?;
        if rows.len() == wish.windows.len() {
            let granted = rows.first().map_or(i64::from(wish.tokens), |(_, granted)| *granted);
            let granted = u32::try_from(granted).map_err(|_| Fault::Unreadable(format!("{granted} tokens")))?;
            return Ok(Taken {
                granted,
                first: rows.iter().map(|(first, _)| Timestamp::from_micros(*first)).collect(),
            });
        }
        sqlx::query(BEGIN).bind(keys(&wish.windows)).bind(wish.now.as_micros()).execute(pool).await?;
    }
    Err(Fault::Contended)
}

pub async fn peek(pool: &PgPool, keys: &[String]) -> Answer<Vec<(String, Timestamp)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(PEEK).bind(keys).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(key, due)| (key, Timestamp::from_micros(due))).collect())
}

pub async fn purge(pool: &PgPool, before: Timestamp) -> Answer<u64> {
    Ok(sqlx::query(PURGE).bind(before.as_micros()).execute(pool).await?.rows_affected())
}

pub async fn gates(pool: &PgPool, lane: &LaneName, after: Option<&Gate>, limit: usize) -> Answer<Vec<Gate>> {
    let (endpoint, tenant) = after.map_or(("", ""), |gate| (gate.endpoint.as_str(), gate.tenant.as_str()));
    let gates: Vec<GateRecord> = sqlx::query_as(GATES)
        .bind(lane.as_str())
        .bind(rows_limit(limit))
        .bind(endpoint)
        .bind(tenant)
        .fetch_all(pool)
        .await?;
    gates.into_iter().map(GateRecord::gate).collect()
}

pub async fn release(pool: &PgPool, lane: &LaneName, now: Timestamp, turns: &[Turn]) -> Answer<Vec<Wake>> {
    let mut tx = begin(pool).await?;
    let my_turn: bool = sqlx::query_scalar(super::release::TAKE_TURN).bind(lane.as_str()).fetch_one(&mut *tx).await?;
    let mut released: Vec<WakeRecord> = Vec::new();
    if my_turn {
        released = sqlx::query_as(RELEASE)
            .bind(lane.as_str())
            .bind(turns.iter().map(|turn| turn.endpoint.as_str()).collect::<Vec<_>>())
            .bind(turns.iter().map(|turn| turn.tenant.as_str()).collect::<Vec<_>>())
            .bind(turns.iter().map(|turn| i64::from(turn.jobs)).collect::<Vec<_>>())
            .bind(now.as_micros())
            .bind(turns.iter().map(|turn| i64::try_from(turn.queued).unwrap_or(i64::MAX / 2)).collect::<Vec<_>>())
            .fetch_all(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    released.sort_by_key(|row| row.due_at);
    Ok(released.iter().map(|row| row.wake(lane)).collect())
}

fn keys(windows: &[Window]) -> Vec<&str> {
    windows.iter().map(|window| window.key.as_str()).collect()
}

fn micros(windows: &[Window], of: impl Fn(&Window) -> std::time::Duration) -> Vec<i64> {
    windows.iter().map(|window| i64::try_from(of(window).as_micros()).unwrap_or(i64::MAX)).collect()
}
