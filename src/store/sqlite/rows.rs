//! Rows of jobs as the protocol reads and writes them: those of a key, one changed row, and the letter a dead one becomes.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::DedupKey;
use crate::store::fault::{Answer, free_text, signed};
use crate::store::letter::AttemptRow;
use crate::store::record::{JobRecord, StoredRecord, job_columns, without_not_before};
use crate::store::transition::Row;
use crate::store::{AttemptRecord, JobRow, StoredJob};

const LOAD: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE key IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY published_at, instance"
);
const GET: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE instance = ?1");
const STORED: &str = concat!("SELECT ", job_columns!(), ", meta, body FROM jobs WHERE instance = ?1");
const INSERT: &str = "\
    INSERT INTO jobs (published_at, resume_at, released_at, ended_at, worker, attempt, generation, takeovers, state,
        effect_possible, cancel_requested, holds_key, key, instance, token, lane, tenant, id, endpoint, reason,
        payload_sha256, meta, body, held_since)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
        ?24)";
const WRITE: &str = "\
    UPDATE jobs SET resume_at = ?2, released_at = ?3, ended_at = ?4, worker = ?5, attempt = ?6, generation = ?7,
        takeovers = ?8, state = ?9, effect_possible = ?10, cancel_requested = ?11, holds_key = ?12, token = ?13,
        reason = coalesce(?14, reason), meta = CASE WHEN ?15 THEN meta END, body = CASE WHEN ?15 THEN body END,
        held_since = ?16
    WHERE instance = ?1";
const RESTORE: &str = "UPDATE jobs SET meta = ?2, body = ?3 WHERE instance = ?1";
const META: &str = "SELECT meta FROM jobs WHERE instance = ?1";
const PUT_META: &str = "UPDATE jobs SET meta = ?2 WHERE instance = ?1";
const BURY: &str = "\
    INSERT OR REPLACE INTO letters (published_at, died_at, body_bytes, attempts, generation, takeovers, copies, raw,
        effect_possible, instance, lane, tenant, id, endpoint, reason, detail, payload_sha256, meta, body)
    SELECT published_at, ?2, length(body), ?3, ?4, ?5, 1, 0, ?6, instance, lane, tenant, id, endpoint, ?7, ?8,
        payload_sha256, meta, body
    FROM jobs WHERE instance = ?1";
const JOURNAL: &str = "\
    INSERT INTO attempts (instance, started_at, duration_us, retry_after_ms, resume_at, generation, attempt, status,
        class, detail, rate_headers, next, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// The rows of `keys`, by key.
pub async fn load(
    db: &mut SqliteConnection,
    keys: impl IntoIterator<Item = DedupKey>,
) -> Answer<HashMap<DedupKey, Vec<Row>>> {
    let mut rows: HashMap<DedupKey, Vec<Row>> = keys.into_iter().map(|key| (key, Vec::new())).collect();
    let keys: Vec<String> = rows.keys().map(|key| format!("{key:?}")).collect();
    let records: Vec<JobRecord> = sqlx::query_as(LOAD).bind(serde_json::to_string(&keys)?).fetch_all(db).await?;
    for record in records {
        rows.entry(record.dedup_key()).or_default().push(record.row()?);
    }
    Ok(rows)
}

/// One row with its names.
pub async fn get(db: &mut SqliteConnection, instance: Uuid) -> Answer<Option<JobRecord>> {
    Ok(sqlx::query_as(GET).bind(instance).fetch_optional(db).await?)
}

/// One row as shown to people; it has to exist.
pub async fn shown(db: &mut SqliteConnection, instance: Uuid) -> Answer<JobRow> {
    sqlx::query_as::<_, JobRecord>(GET).bind(instance).fetch_one(db).await?.job_row()
}

/// What a row holds; it has to exist.
pub async fn stored(db: &mut SqliteConnection, instance: Uuid) -> Answer<StoredJob> {
    sqlx::query_as::<_, StoredRecord>(STORED).bind(instance).fetch_one(db).await?.stored()
}

/// A new row.
pub async fn insert(db: &mut SqliteConnection, row: &Row, job: JobParts<'_>) -> Answer<()> {
    sqlx::query(INSERT)
        .bind(row.published_at.as_micros())
        .bind(row.resume_at.map(Timestamp::as_micros))
        .bind(row.released_at.map(Timestamp::as_micros))
        .bind(row.ended_at.map(Timestamp::as_micros))
        .bind(row.worker.map(|worker| worker.0))
        .bind(signed(row.attempt))
        .bind(signed(row.generation))
        .bind(signed(row.takeovers))
        .bind(row.state.code())
        .bind(row.effect_possible)
        .bind(row.cancel_requested)
        .bind(row.holds_key)
        .bind(Uuid::from_bytes(job.key.0))
        .bind(row.instance)
        .bind(row.token)
        .bind(job.lane)
        .bind(job.tenant)
        .bind(job.id)
        .bind(job.endpoint)
        .bind(row.reason.as_str())
        .bind(&row.payload_sha256[..])
        .bind(job.meta)
        .bind(job.body)
        .bind(row.held_since.map(Timestamp::as_micros))
        .execute(db)
        .await?;
    Ok(())
}

/// What a new row holds beside what the protocol writes.
#[derive(Debug, Clone, Copy)]
pub struct JobParts<'a> {
    pub key: DedupKey,
    pub lane: &'a str,
    pub tenant: &'a str,
    pub id: &'a str,
    pub endpoint: &'a str,
    pub meta: &'a [u8],
    pub body: &'a [u8],
}

/// Writes a changed row; its payload goes when it has ended.
pub async fn write(db: &mut SqliteConnection, row: &Row) -> Answer<()> {
    sqlx::query(WRITE)
        .bind(row.instance)
        .bind(row.resume_at.map(Timestamp::as_micros))
        .bind(row.released_at.map(Timestamp::as_micros))
        .bind(row.ended_at.map(Timestamp::as_micros))
        .bind(row.worker.map(|worker| worker.0))
        .bind(signed(row.attempt))
        .bind(signed(row.generation))
        .bind(signed(row.takeovers))
        .bind(row.state.code())
        .bind(row.effect_possible)
        .bind(row.cancel_requested)
        .bind(row.holds_key)
        .bind(row.token)
        .bind(row.reason.stored())
        .bind(row.state.is_alive())
        .bind(row.held_since.map(Timestamp::as_micros))
        .execute(db)
        .await?;
    Ok(())
}

/// Gives a row its payload back, from its letter.
pub async fn restore(db: &mut SqliteConnection, instance: Uuid, meta: &[u8], body: &[u8]) -> Answer<()> {
    sqlx::query(RESTORE).bind(instance).bind(meta).bind(body).execute(db).await?;
    Ok(())
}

/// The job may be called from now on, whatever it was published with.
pub async fn forget_not_before(db: &mut SqliteConnection, instance: Uuid) -> Answer<()> {
    let meta: Vec<u8> = sqlx::query_scalar(META).bind(instance).fetch_one(&mut *db).await?;
    sqlx::query(PUT_META).bind(instance).bind(without_not_before(&meta)?).execute(db).await?;
    Ok(())
}

/// Writes a row that has just died, its payload moved into a letter.
pub async fn bury(db: &mut SqliteConnection, row: &Row, detail: &str, now: Timestamp) -> Answer<()> {
    sqlx::query(BURY)
        .bind(row.instance)
        .bind(now.as_micros())
        .bind(signed(row.attempt))
        .bind(signed(row.generation))
        .bind(signed(row.takeovers))
        .bind(row.effect_possible)
        .bind(row.reason.as_str())
        .bind(free_text(detail))
        .execute(&mut *db)
        .await?;
    write(db, row).await
}

/// Writes an entry of the journal.
pub async fn journal(db: &mut SqliteConnection, instance: Uuid, attempt: &AttemptRecord) -> Answer<()> {
    let entry = AttemptRow::of(attempt)?;
    sqlx::query(JOURNAL)
        .bind(instance)
        .bind(entry.started_at)
        .bind(entry.duration_us)
        .bind(entry.retry_after_ms)
        .bind(entry.resume_at)
        .bind(entry.generation)
        .bind(entry.attempt)
        .bind(entry.status)
        .bind(entry.class)
        .bind(entry.detail)
        .bind(entry.rate_headers)
        .bind(entry.next)
        .bind(entry.reason)
        .execute(db)
        .await?;
    Ok(())
}
