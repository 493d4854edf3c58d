//! What operators have said (pauses, calls at a time), and the log of what they changed: each change in one transaction
//! with its line.

use sqlx::{PgConnection, PgPool};

use super::{accounts, begin, end};
use crate::clock::Timestamp;
use crate::store::fault::{Answer, free_text, limit as rows_limit};
use crate::store::record::{AuditRecord, ConcurrencyRecord, ControlRecord, target_texts};
use crate::store::{
    AccountWrite, AuditEntry, AuditFilter, AuditRow, ConcurrencyRow, ConcurrencyWrite, ControlRow, ControlWrite,
    LIST_MAX,
};

const ALL: &str = "\
    SELECT version, set_at, paused_until, lane, endpoint, tenant, author, note FROM controls
    ORDER BY lane, endpoint, tenant";
const INSERT: &str = "\
    INSERT INTO controls (version, set_at, paused_until, lane, endpoint, tenant, author, note)
    VALUES ($4, $5, $6, $1, $2, $3, $7, $8) ON CONFLICT DO NOTHING";
const UPDATE: &str = "\
    UPDATE controls SET version = $4, set_at = $5, paused_until = $6, author = $7, note = $8
    WHERE lane = $1 AND endpoint = $2 AND tenant = $3 AND version = $9";
const DELETE: &str = "DELETE FROM controls WHERE lane = $1 AND endpoint = $2 AND tenant = $3 AND version = $4";
const PURGE: &str = "DELETE FROM controls WHERE paused_until < $1";
const CALLS: &str = "SELECT version, set_at, ends_at, calls, lane, author, note FROM lane_concurrency ORDER BY lane";
const CALLS_INSERT: &str = "\
    INSERT INTO lane_concurrency (version, set_at, ends_at, calls, lane, author, note)
    VALUES ($2, $3, $4, $5, $1, $6, $7) ON CONFLICT DO NOTHING";
const CALLS_UPDATE: &str = "\
    UPDATE lane_concurrency SET version = $2, set_at = $3, ends_at = $4, calls = $5, author = $6, note = $7
    WHERE lane = $1 AND version = $8";
const CALLS_DELETE: &str = "DELETE FROM lane_concurrency WHERE lane = $1 AND version = $2";
const CALLS_PURGE: &str = "DELETE FROM lane_concurrency WHERE ends_at < $1";
const LOG: &str = "\
    INSERT INTO audit (at, actor, source, action, target, value_before, value_after, note)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const LIST: &str = "\
    SELECT id, at, actor, source, action, target, value_before, value_after, note FROM audit
    WHERE ($1::text IS NULL OR actor = $1) AND ($2::text IS NULL OR action = $2) AND ($3::text IS NULL OR target = $3)
        AND ($4::int8 IS NULL OR id < $4)
    ORDER BY id DESC LIMIT $5";
const PURGE_LOG: &str = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)";

pub async fn all(pool: &PgPool) -> Answer<Vec<ControlRow>> {
    let rows: Vec<ControlRecord> = sqlx::query_as(ALL).fetch_all(pool).await?;
    rows.into_iter().map(ControlRecord::row).collect()
}

pub async fn put(pool: &PgPool, write: &ControlWrite, line: &AuditEntry) -> Answer<bool> {
    let mut tx = begin(pool).await?;
    let answer = put_in(&mut tx, write, line).await;
    end(tx, answer).await
}

async fn put_in(db: &mut PgConnection, write: &ControlWrite, entry: &AuditEntry) -> Answer<bool> {
    let [lane, endpoint, tenant] = target_texts(&write.target);
    let query = match &write.pause {
        None => sqlx::query(DELETE).bind(lane).bind(endpoint).bind(tenant).bind(write.seen),
        Some(pause) => {
            let is_new = write.seen == 0;
            let query = sqlx::query(if is_new { INSERT } else { UPDATE })
                .bind(lane)
                .bind(endpoint)
                .bind(tenant)
                .bind(write.version)
                .bind(pause.set_at.as_micros())
                .bind(pause.until.map(Timestamp::as_micros))
                .bind(free_text(&pause.author))
                .bind(free_text(&pause.note));
            if is_new { query } else { query.bind(write.seen) }
        }
    };
    let written = query.execute(&mut *db).await?.rows_affected() == 1;
    if written {
        log(db, entry).await?;
    }
    Ok(written)
}

pub async fn concurrencies(pool: &PgPool) -> Answer<Vec<ConcurrencyRow>> {
    let rows: Vec<ConcurrencyRecord> = sqlx::query_as(CALLS).fetch_all(pool).await?;
    rows.into_iter().map(ConcurrencyRecord::row).collect()
}

pub async fn put_concurrency(pool: &PgPool, write: &ConcurrencyWrite, line: &AuditEntry) -> Answer<bool> {
    let mut tx = begin(pool).await?;
    let answer = put_concurrency_in(&mut tx, write, line).await;
    end(tx, answer).await
}

async fn put_concurrency_in(db: &mut PgConnection, write: &ConcurrencyWrite, line: &AuditEntry) -> Answer<bool> {
    let query = match &write.concurrency {
        None => sqlx::query(CALLS_DELETE).bind(write.lane.as_str()).bind(write.seen),
        Some(concurrency) => {
            let is_new = write.seen == 0;
            let query = sqlx::query(if is_new { CALLS_INSERT } else { CALLS_UPDATE })
                .bind(write.lane.as_str())
                .bind(write.version)
                .bind(concurrency.set_at.as_micros())
                .bind(concurrency.until.map(Timestamp::as_micros))
                .bind(i64::from(concurrency.calls))
                .bind(free_text(&concurrency.author))
                .bind(free_text(&concurrency.note));
            if is_new { query } else { query.bind(write.seen) }
        }
    };
    let written = query.execute(&mut *db).await?.rows_affected() == 1;
    if written {
        log(db, line).await?;
    }
    Ok(written)
}

pub async fn put_account(pool: &PgPool, write: &AccountWrite, now: Timestamp, line: &AuditEntry) -> Answer<bool> {
    let mut tx = begin(pool).await?;
    let answer = put_account_in(&mut tx, write, now, line).await;
    end(tx, answer).await
}

async fn put_account_in(
    db: &mut PgConnection,
    write: &AccountWrite,
    now: Timestamp,
    line: &AuditEntry,
) -> Answer<bool> {
    let written = accounts::put(&mut *db, write, now).await?;
    if written {
        log(db, line).await?;
    }
    Ok(written)
}

/// Writes a line alone.
pub async fn write(pool: &PgPool, line: &AuditEntry) -> Answer<()> {
    let mut db = pool.acquire().await?;
    log(&mut db, line).await
}

/// Writes a line, in a transaction.
pub async fn log(db: &mut PgConnection, line: &AuditEntry) -> Answer<()> {
    sqlx::query(LOG)
        .bind(line.at.as_micros())
        .bind(free_text(&line.actor))
        .bind(line.source.as_str())
        .bind(free_text(&line.action))
        .bind(free_text(&line.target))
        .bind(free_text(&line.before))
        .bind(free_text(&line.after))
        .bind(free_text(&line.note))
        .execute(db)
        .await?;
    Ok(())
}

pub async fn purge(pool: &PgPool, before: Timestamp) -> Answer<u64> {
    let mut purged = 0;
    for statement in [PURGE, CALLS_PURGE] {
        purged += sqlx::query(statement).bind(before.as_micros()).execute(pool).await?.rows_affected();
    }
    Ok(purged)
}

pub async fn audit(pool: &PgPool, filter: &AuditFilter, limit: usize) -> Answer<Vec<AuditRow>> {
    let rows: Vec<AuditRecord> = sqlx::query_as(LIST)
        .bind(filter.actor.as_deref())
        .bind(filter.action.as_deref())
        .bind(filter.target.as_deref())
        .bind(filter.before)
        .bind(rows_limit(limit.min(LIST_MAX)))
        .fetch_all(pool)
        .await?;
    rows.into_iter().map(AuditRecord::row).collect()
}

pub async fn purge_audit(pool: &PgPool, before: Timestamp, limit: usize) -> Answer<u64> {
    let purged = sqlx::query(PURGE_LOG).bind(before.as_micros()).bind(rows_limit(limit)).execute(pool).await?;
    Ok(purged.rows_affected())
}
